#include "io/checkpoint.hpp"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <memory>
#include <numeric>
#include <set>
#include <type_traits>

#include "base/error.hpp"
#include "base/hash.hpp"
#include "io/hdf5.hpp"
#include "io/replace_file.hpp"
#include "kernels/statistics.hpp"

namespace hearth {

namespace {

constexpr const char* format_name = "hearth checkpoint";
constexpr std::int64_t format_version = 2;
constexpr const char* statistics_group = "/statistics";

std::string dataset_name(const std::string& group, const TensorInfo& tensor) {
  return group + "/" + tensor.name;
}

std::string shape_text(const std::vector<Index>& dims) {
  std::string shape = "(";
  for (std::size_t axis = 0; axis < dims.size(); ++axis) {
    shape += text(axis == 0 ? "" : ", ", dims[axis]);
  }
  return shape + ")";
}

// The groups of the parts, in the order of first mention.
template <class T>
std::vector<std::string> groups_of(const std::vector<TensorPart<T>>& parts) {
  std::vector<std::string> groups;
  for (const TensorPart<T>& part : parts) {
    if (std::find(groups.begin(), groups.end(), part.group) == groups.end()) {
      groups.push_back(part.group);
    }
  }
  return groups;
}

// Calls visit(tensor, range, offset) for the stretches of tensors that a part holds, a tensor's
// after each other: elements `range` of the whole tensor lie in the part's values from `offset`.
template <class T, class Visit>
void each_stretch(const TensorTable& table, const TensorPart<T>& part, Visit visit) {
  for (const ArenaLayout::Run& run : part.layout->runs(part.range)) {
    const Index first =
        run.slice * table[static_cast<std::size_t>(run.tensor)].slice_elements() + run.first;
    visit(static_cast<std::size_t>(run.tensor), Range{first, first + run.elements},
          run.begin - part.range.begin);
  }
}

// Σ mod 2⁶⁴ of hash_element over values[offset, offset + range.size()), which are elements `range`
// of a tensor. An integer sum: the same in any order.
template <class T>
std::uint64_t stretch_checksum(const Array1<T>& values, Range range, Index offset) {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  const Index first = range.begin;
  std::uint64_t sum = 0;
  Kokkos::parallel_reduce(
      "checksum", Kokkos::RangePolicy<Exec>(0, range.size()),
      KOKKOS_LAMBDA(const Index i, std::uint64_t& partial) {
        partial += hash_element(static_cast<std::uint64_t>(first + i),
                                Kokkos::bit_cast<Bits>(values(offset + i)));
      },
      sum);
  return sum;
}

std::uint64_t counter_checksum(const std::vector<std::int64_t>& values) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    sum += hash_element(i, static_cast<std::uint64_t>(values[i]));
  }
  return sum;
}

// The checksums of a group's tensors over all ranks, having made sure that the parts cover each
// tensor once.
template <class T>
std::vector<std::uint64_t> group_checksums(const Communicator& world, const TensorTable& table,
                                           const std::vector<TensorPart<T>>& parts,
                                           const std::string& group) {
  // One sum for both: checksums, then elements.
  std::vector<std::int64_t> sums(2 * table.size(), 0);
  world.together([&] {
    for (const TensorPart<T>& part : parts) {
      if (part.group != group) continue;
      if (static_cast<Index>(part.values.extent(0)) != part.range.size()) {
        throw failure("checkpoint: a part of ", group, " has ", part.values.extent(0),
                      " values for ", part.range.size(), " elements");
      }
      each_stretch(table, part, [&](std::size_t tensor, Range range, Index offset) {
        const auto term = stretch_checksum(part.values, range, offset);
        auto& sum = sums[tensor];  // unsigned, since it wraps around
        sum = static_cast<std::int64_t>(static_cast<std::uint64_t>(sum) + term);
        sums[table.size() + tensor] += range.size();
      });
    }
  });
  world.sum(sums);
  std::vector<std::uint64_t> checksums;
  for (std::size_t tensor = 0; tensor < table.size(); ++tensor) {
    const Index covered = sums[table.size() + tensor];
    const bool alias = !table[tensor].alias_of.empty();
    checksums.push_back(alias ? 0 : static_cast<std::uint64_t>(sums[tensor]));
    if (!alias && covered != table[tensor].elements()) {
      const std::string name = dataset_name(group, table[tensor]);
      world.together([&] {
        throw failure("checkpoint: the ranks' parts hold ", covered, " of the ",
                      table[tensor].elements(), " elements of ", name);
      });
    }
  }
  return checksums;
}

// ---- Writing

// A run does not come back from weights that are not finite: no checkpoint may hold them.
template <class T>
void check_finite(const Communicator& world, const std::string& path, std::int64_t step,
                  const TensorTable& table, const std::vector<TensorPart<T>>& parts,
                  const std::string& group) {
  std::vector<std::int64_t> found(table.size(), 0);
  for (const TensorPart<T>& part : parts) {
    if (part.group != group) continue;
    each_stretch(table, part, [&](std::size_t tensor, Range range, Index offset) {
      found[tensor] += kernels::count_non_finite<T>(
          run_of<Array1<const T>>(part.values, offset, offset + range.size()));
    });
  }
  world.sum(found);
  for (std::size_t tensor = 0; tensor < table.size(); ++tensor) {
    if (found[tensor] == 0) continue;
    throw CollectiveError(static_cast<int>(Status::failure),
                          text(path, ": not written, since after step ", step, " ", found[tensor],
                               " elements of ", dataset_name(group, table[tensor]),
                               " are not finite; go on from an older checkpoint with another "
                               "optimizer.learning_rate"));
  }
}

// The file with everything but the tensors' values. Done by the first rank alone: what can fail
// here then fails in one place, and HDF5 makes many small objects faster so.
template <class T>
void create_file(const std::string& path, const CheckpointHeader& header, const TensorTable& table,
                 const std::vector<std::string>& groups,
                 const std::vector<std::vector<std::uint64_t>>& checksums,
                 std::uint64_t weights_checksum, const std::vector<CounterTensor>& counters) {
  using hdf5::TextStorage;
  hdf5::File file = hdf5::File::create(path);
  file.set_text("/", "format", format_name, TextStorage::fixed);
  file.set_number("/", "format_version", format_version);
  file.set_number("/", "step", header.step);
  file.set_text("/", "deck", header.deck, TextStorage::fixed);
  file.set_text("/", "version", header.version, TextStorage::fixed);
  file.set_text("/", "revision", header.revision, TextStorage::fixed);
  file.set_text("/", "decomposition", header.decomposition, TextStorage::fixed);
  file.set_text("/", "data_identity", header.data_identity, TextStorage::fixed);
  for (std::size_t group = 0; group < groups.size(); ++group) {
    const bool is_model = groups[group] == model_group;
    if (is_model) file.set_number("/", "weights_checksum", weights_checksum);
    for (std::size_t tensor = 0; tensor < table.size(); ++tensor) {
      const TensorInfo& info = table[tensor];
      if (!info.alias_of.empty()) continue;
      const std::string name = dataset_name(groups[group], info);
      file.create_dataset<T>(name, info.shape).set_axes(info.axes);
      file.set_number(name, "checksum", checksums[group][tensor]);
      if (is_model && !info.hugging_face.empty()) {
        file.set_text(name, "hugging_face", info.hugging_face, TextStorage::fixed);
      }
    }
  }
  file.create_group(statistics_group);
  for (const CounterTensor& counter : counters) {
    const std::string name = text(statistics_group, "/", counter.name);
    const hdf5::Dataset dataset = file.create_dataset<std::int64_t>(name, counter.dims);
    if (dataset.elements() != static_cast<Index>(counter.values.size())) {
      throw failure(path, ": ", name, ": has ", counter.values.size(), " values for shape ",
                    shape_text(counter.dims));
    }
    dataset.set_axes(counter.axes);
    dataset.write<std::int64_t>({0, dataset.elements()}, counter.values.data());
    file.set_number(name, "checksum", counter_checksum(counter.values));
  }
  file.close();
  reserve_space(path, std::filesystem::file_size(path));
}

// Writes are independent: a rank's part of a tensor is one stretch of the file, and nothing would
// be gained by exchanging data first. docs/file_formats.md has the measurement.
template <class T>
void write_part(const hdf5::File& file, const TensorTable& table, const TensorPart<T>& part,
                Index limit_bytes) {
  const auto values = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), part.values);
  std::unique_ptr<hdf5::Dataset> dataset;
  each_stretch(table, part, [&](std::size_t tensor, Range range, Index offset) {
    const std::string name = dataset_name(part.group, table[tensor]);
    if (dataset == nullptr || dataset->name() != name) {
      dataset = std::make_unique<hdf5::Dataset>(file.dataset(name));
    }
    dataset->write<T>(range, values.data() + offset, limit_bytes);
  });
}

// ---- Reading

// Refuses a file of another model: every tensor must be there, in its shape, and no other.
template <class T>
void check_tensors(const hdf5::File& file, const TensorTable& table, const std::string& group) {
  std::set<std::string> needed;
  for (const TensorInfo& info : table) {
    if (!info.alias_of.empty()) continue;
    const std::string name = dataset_name(group, info);
    needed.insert(name);
    if (!file.has(name)) {
      throw input_error(file.path(), ": has no tensor ", name, ", which the deck's model needs");
    }
    const hdf5::Dataset dataset = file.dataset(name);
    if (dataset.dims() != info.shape) {
      throw input_error(file.path(), ": tensor ", name, " has shape ", shape_text(dataset.dims()),
                        ", the deck's model needs ", shape_text(info.shape));
    }
    if (!dataset.holds<T>()) {
      throw input_error(file.path(), ": tensor ", name, " is not stored in fp", 8 * sizeof(T));
    }
  }
  for (const std::string& name : file.datasets(group)) {
    if (needed.count(name) == 0) {
      throw input_error(file.path(), ": has a tensor ", name, ", which the deck's model has not");
    }
  }
}

void check_checksum(const hdf5::File& file, const std::string& name, std::uint64_t found) {
  const auto stored = file.get_number<std::uint64_t>(name, "checksum");
  if (found != stored) {
    throw input_error(file.path(), ": tensor ", name, " is damaged: its values' checksum is ",
                      found, ", the stored one ", stored);
  }
}

template <class T>
void read_part(const hdf5::File& file, const TensorTable& table, const TensorPart<T>& part,
               Index limit_bytes) {
  // Padding becomes zero. On the host, values itself; on a device, a copy.
  const auto values = Kokkos::create_mirror_view(Kokkos::HostSpace(), part.values);
  Kokkos::deep_copy(values, T(0));
  std::unique_ptr<hdf5::Dataset> dataset;
  each_stretch(table, part, [&](std::size_t tensor, Range range, Index offset) {
    const std::string name = dataset_name(part.group, table[tensor]);
    if (dataset == nullptr || dataset->name() != name) {
      dataset = std::make_unique<hdf5::Dataset>(file.dataset(name));
    }
    dataset->read<T>(range, values.data() + offset, limit_bytes);
  });
  Kokkos::deep_copy(part.values, values);
}

void read_counter(const hdf5::File& file, CounterTensor& counter) {
  const std::string name = text(statistics_group, "/", counter.name);
  if (!file.has(name)) throw input_error(file.path(), ": has no counters ", name);
  const hdf5::Dataset dataset = file.dataset(name);
  if (dataset.dims() != counter.dims || !dataset.holds<std::int64_t>()) {
    throw input_error(file.path(), ": counters ", name, " have shape ", shape_text(dataset.dims()),
                      ", the deck's run needs ", shape_text(counter.dims));
  }
  counter.values.resize(static_cast<std::size_t>(dataset.elements()));
  dataset.read<std::int64_t>({0, dataset.elements()}, counter.values.data());
  check_checksum(file, name, counter_checksum(counter.values));
}

}  // namespace

template <class T>
std::uint64_t write_checkpoint(const Communicator& world, const std::string& path,
                               const CheckpointHeader& header, const TensorTable& table,
                               const std::vector<TensorPart<T>>& parts,
                               const std::vector<CounterTensor>& counters) {
  const std::vector<std::string> groups = groups_of(parts);
  std::vector<std::vector<std::uint64_t>> checksums;
  std::uint64_t weights = 0;
  for (const std::string& group : groups) {
    checksums.push_back(group_checksums(world, table, parts, group));
    check_finite(world, path, header.step, table, parts, group);
    if (group == model_group) weights = combined_checksum(table, checksums.back());
  }
  const std::string temporary = temporary_name(path);
  try {
    world.together([&] {
      if (!world.is_first()) return;
      create_file<T>(temporary, header, table, groups, checksums, weights, counters);
    });
    // A rank that cannot reach the file must say so before the others wait for it in MPI-IO.
    world.together([&] { sync_file(temporary); });
    std::unique_ptr<hdf5::File> file;
    world.together(
        [&] { file = std::make_unique<hdf5::File>(hdf5::File::open_parallel(temporary, world)); });
    // Where one rank fails, all leave `together`, and so all close the file.
    world.together([&] {
      for (const TensorPart<T>& part : parts) {
        write_part(*file, table, part, world.message_limit_bytes());
      }
    });
    world.together([&] { file->close(); });
    world.together([&] { sync_file(temporary); });  // on every node: each has pages of its own
    world.together([&] {
      if (world.is_first()) publish(temporary, path);
    });
  } catch (const CollectiveError&) {
    if (world.is_first()) discard(temporary);
    throw;
  }
  return weights;
}

CheckpointHeader read_checkpoint_header(const std::string& path) {
  const hdf5::File file = hdf5::File::open(path);
  if (!file.has_attribute("/", "format") || file.get_text("/", "format") != format_name) {
    throw input_error(path, ": is not a checkpoint of Hearth");
  }
  const auto format = file.get_number<std::int64_t>("/", "format_version");
  if (format != format_version) {
    throw input_error(path, ": is a checkpoint of format ", format, ", this Hearth reads format ",
                      format_version);
  }
  CheckpointHeader header;
  header.step = file.get_number<std::int64_t>("/", "step");
  header.deck = file.get_text("/", "deck");
  header.version = file.get_text("/", "version");
  header.revision = file.get_text("/", "revision");
  header.decomposition = file.get_text("/", "decomposition");
  header.data_identity = file.get_text("/", "data_identity");
  if (file.has_attribute("/", "weights_checksum")) {
    header.weights_checksum = file.get_number<std::uint64_t>("/", "weights_checksum");
  }
  const std::size_t prefix = std::string(statistics_group).size() + 1;
  for (const std::string& name : file.datasets(statistics_group)) {
    header.counters.push_back(name.substr(prefix));
  }
  return header;
}

template <class T>
void read_checkpoint(const Communicator& world, const std::string& path, const TensorTable& table,
                     std::vector<TensorPart<T>>& parts, std::vector<CounterTensor>& counters) {
  const std::vector<std::string> groups = groups_of(parts);
  std::unique_ptr<hdf5::File> file;
  world.together([&] {
    if (world.is_first()) (void)read_checkpoint_header(path);
    file = std::make_unique<hdf5::File>(hdf5::File::open(path));
    if (!world.is_first()) return;
    for (const std::string& group : groups) check_tensors<T>(*file, table, group);
  });
  // Each rank reads by itself: no rank can then leave another waiting.
  world.together([&] {
    for (const TensorPart<T>& part : parts) {
      read_part(*file, table, part, world.message_limit_bytes());
    }
  });
  for (const std::string& group : groups) {
    const std::vector<std::uint64_t> found = group_checksums(world, table, parts, group);
    world.together([&] {
      if (!world.is_first()) return;
      for (std::size_t tensor = 0; tensor < table.size(); ++tensor) {
        if (!table[tensor].alias_of.empty()) continue;
        check_checksum(*file, dataset_name(group, table[tensor]), found[tensor]);
      }
    });
  }
  world.together([&] {
    if (!world.is_first()) return;
    for (CounterTensor& counter : counters) read_counter(*file, counter);
  });
}

template <class T>
std::vector<std::uint64_t> tensor_checksums(const Communicator& world, const TensorTable& table,
                                            const std::vector<TensorPart<T>>& parts,
                                            const std::string& group) {
  return group_checksums(world, table, parts, group);
}

#define HEARTH_CHECKPOINT_OF(T)                                                                 \
  template std::uint64_t write_checkpoint(                                                      \
      const Communicator&, const std::string&, const CheckpointHeader&, const TensorTable&,     \
      const std::vector<TensorPart<T>>&, const std::vector<CounterTensor>&);                    \
  template void read_checkpoint(const Communicator&, const std::string&, const TensorTable&,    \
                                std::vector<TensorPart<T>>&, std::vector<CounterTensor>&);      \
  template std::vector<std::uint64_t> tensor_checksums(const Communicator&, const TensorTable&, \
                                                       const std::vector<TensorPart<T>>&,       \
                                                       const std::string&);

HEARTH_CHECKPOINT_OF(float)
HEARTH_CHECKPOINT_OF(double)
#undef HEARTH_CHECKPOINT_OF

}  // namespace hearth
