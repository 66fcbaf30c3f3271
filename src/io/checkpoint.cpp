#include "io/checkpoint.hpp"

#include <algorithm>
#include <exception>
#include <memory>
#include <set>

#include "base/error.hpp"
#include "io/checkpoint_tensors.hpp"
#include "io/hdf5.hpp"
#include "io/placed_reader.hpp"

namespace hearth {

namespace {

// Where the tensors of a group lie, in bytes from the file's begin: (tensors of the table), zero
// for an alias. Refuses a file of another model: every tensor must be there, in its shape, and no
// other.
template <class T>
std::vector<std::int64_t> find_tensors(const hdf5::File& file, const TensorTable& table,
                                       const std::string& group) {
  std::vector<std::int64_t> offsets;
  std::set<std::string> needed;
  for (const TensorInfo& info : table) {
    offsets.push_back(0);
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
    offsets.back() = dataset.file_offset();
  }
  for (const std::string& name : file.datasets(group)) {
    if (needed.count(name) == 0) {
      throw input_error(file.path(), ": has a tensor ", name, ", which the deck's model has not");
    }
  }
  return offsets;
}

void check_checksum(const hdf5::File& file, const std::string& name, std::uint64_t found) {
  const auto stored = file.get_number<std::uint64_t>(name, "checksum");
  if (found != stored) {
    throw input_error(file.path(), ": tensor ", name, " is damaged: its values' checksum is ",
                      found, ", the stored one ", stored);
  }
}

// Fills elements `range` of a part's values, on the host: each is a tensor's, or padding, which is
// zero. `offsets` (tensors of the table) are those of its group.
template <class T>
void read_range(const PlacedReader& file, const std::vector<TensorStretch>& stretches,
                const std::int64_t* offsets, T* values, Range range) {
  Index done = range.begin;
  for (const auto& [tensor, elements, offset] : stretches) {
    const Index begin = std::max(range.begin, offset);
    const Index end = std::min(range.end, offset + elements.size());
    if (begin >= end) continue;
    std::fill(values + done, values + begin, T(0));
    const Index first = elements.begin + begin - offset;  // of the tensor
    file.read(static_cast<std::uint64_t>(offsets[tensor] + first * Index{sizeof(T)}),
              values + begin, static_cast<std::size_t>(end - begin) * sizeof(T));
    done = end;
  }
  std::fill(values + done, values + range.end, T(0));
}

// Each thread reads a share: one alone would wait for the system's copy of every byte.
template <class T>
void read_part(const PlacedReader& file, const TensorTable& table, const TensorPart<T>& part,
               const std::int64_t* offsets) {
  // On the host, values itself; on a device, a copy.
  const auto values = Kokkos::create_mirror_view(
      Kokkos::view_alloc(Kokkos::HostSpace(), Kokkos::WithoutInitializing), part.values);
  const std::vector<TensorStretch> stretches = stretches_of(table, part);
  const Index threads = HostExec().concurrency();
  std::vector<std::exception_ptr> errors(static_cast<std::size_t>(threads));
  Kokkos::parallel_for("read", Kokkos::RangePolicy<HostExec>(0, threads), [&](const Index thread) {
    try {
      read_range(file, stretches, offsets, values.data(),
                 share(part.range.size(), threads, thread));
    } catch (...) {
      errors[static_cast<std::size_t>(thread)] = std::current_exception();
    }
  });
  HostExec().fence("read");
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
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
  dataset.read(counter.values.data());
  check_checksum(file, name, counter_checksum(counter.values));
}

}  // namespace

CheckpointHeader read_checkpoint_header(const std::string& path) {
  const hdf5::File file = hdf5::File::open(path);
  if (!file.has_attribute("/", "format") || file.get_text("/", "format") != checkpoint_format) {
    throw input_error(path, ": is not a checkpoint of Hearth");
  }
  const auto format = file.get_number<std::int64_t>("/", "format_version");
  if (format != checkpoint_format_version) {
    throw OtherFormat(text(path, ": is a checkpoint of format ", format,
                           "; this Hearth reads format ", checkpoint_format_version));
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
  std::unique_ptr<hdf5::File> file;                // of the first rank
  std::vector<std::vector<std::int64_t>> offsets(  // (groups, tensors of the table)
      groups.size(), std::vector<std::int64_t>(table.size(), 0));
  world.together([&] {
    if (!world.is_first()) return;
    (void)read_checkpoint_header(path);
    file = std::make_unique<hdf5::File>(hdf5::File::open(path));
    for (std::size_t group = 0; group < groups.size(); ++group) {
      offsets[group] = find_tensors<T>(*file, table, groups[group]);
    }
  });
  for (std::vector<std::int64_t>& of_group : offsets) world.sum(of_group);  // others' are zero
  // Each rank reads by itself: no rank can then leave another waiting.
  world.together([&] {
    const PlacedReader tensors(path);
    for (const TensorPart<T>& part : parts) {
      const auto group = std::find(groups.begin(), groups.end(), part.group) - groups.begin();
      read_part(tensors, table, part, offsets[static_cast<std::size_t>(group)].data());
    }
  });
  for (const std::string& group : groups) {
    const std::vector<std::uint64_t> found = tensor_checksums(world, table, parts, group);
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

#define HEARTH_INSTANTIATE(T)                                                                \
  template void read_checkpoint(const Communicator&, const std::string&, const TensorTable&, \
                                std::vector<TensorPart<T>>&, std::vector<CounterTensor>&)
HEARTH_INSTANTIATE(float);
HEARTH_INSTANTIATE(double);
#undef HEARTH_INSTANTIATE

}  // namespace hearth
