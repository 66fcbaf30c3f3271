#include "io/checkpoint_writer.hpp"

#include <pthread.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <utility>

#include "base/error.hpp"
#include "base/pages.hpp"
#include "io/checkpoint_tensors.hpp"
#include "io/hdf5.hpp"
#include "io/placed_writer.hpp"
#include "io/replace_file.hpp"

namespace hearth {

namespace {

// A run does not come back from weights that are not finite: no checkpoint may hold them.
void check_finite(const std::string& path, std::int64_t step, const TensorTable& table,
                  const std::string& group, const std::vector<std::int64_t>& not_finite) {
  for (std::size_t tensor = 0; tensor < table.size(); ++tensor) {
    if (not_finite[tensor] == 0) continue;
    throw CollectiveError(
        static_cast<int>(Status::failure),
        text(path, ": not written, since after step ", step, " ", not_finite[tensor],
             " elements of ", dataset_name(group, table[tensor]),
             " are not finite; go on from an older checkpoint with another "
             "optimizer.learning_rate"));
  }
}

// The file with everything but the tensors' values, whose places it returns: (groups, tensors of
// the table) bytes from the file's begin. Done by the first rank alone: what can fail here then
// fails in one place, and HDF5 makes many small objects faster so.
template <class T>
std::vector<std::int64_t> create_file(const std::string& path, const CheckpointHeader& header,
                                      const TensorTable& table,
                                      const std::vector<std::string>& groups,
                                      const std::vector<std::vector<std::uint64_t>>& checksums,
                                      std::uint64_t weights_checksum,
                                      const std::vector<CounterTensor>& counters) {
  using hdf5::TextStorage;
  std::vector<std::int64_t> offsets(groups.size() * table.size(), 0);
  hdf5::File file = hdf5::File::create(path);
  file.set_text("/", "format", checkpoint_format, TextStorage::fixed);
  file.set_number("/", "format_version", checkpoint_format_version);
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
      const hdf5::Dataset dataset = file.create_dataset<T>(name, info.shape);
      dataset.set_axes(info.axes);
      offsets[group * table.size() + tensor] = dataset.file_offset();
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
    dataset.write(counter.values.data());
    file.set_number(name, "checksum", counter_checksum(counter.values));
  }
  file.close();
  reserve_space(path, std::filesystem::file_size(path));
  return offsets;
}

// Writes a part's values, on the host, to their places: `offsets` (tensors of the table) are those
// of its group. Ends early when `give_up` says so.
template <class T, class GiveUp>
void write_part(const PlacedWriter& file, const std::vector<TensorStretch>& stretches,
                const std::uint64_t* offsets, const T* values, const GiveUp& give_up) {
  for (const auto& [tensor, range, offset] : stretches) {
    if (give_up()) return;
    const auto begin = static_cast<std::uint64_t>(range.begin) * sizeof(T);
    file.write(offsets[tensor] + begin, values + offset,
               static_cast<std::size_t>(range.size()) * sizeof(T));
  }
}

// Starts a thread that no signal disturbs: they are the main thread's.
template <class Work>
std::thread quiet_thread(Work work) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    std::thread started(std::move(work));
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return started;
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
}

}  // namespace

template <class T>
CheckpointWriter<T>::CheckpointWriter(const Communicator& world, WriteTime time)
    : world_(world), time_(time) {}

template <class T>
CheckpointWriter<T>::~CheckpointWriter() {
  given_up_ = true;
  if (thread_.joinable()) thread_.join();
  if (is_open()) forget();
}

template <class T>
std::uint64_t CheckpointWriter<T>::begin(const std::string& path, const CheckpointHeader& header,
                                         const TensorTable& table,
                                         const std::vector<TensorPart<T>>& parts,
                                         const std::vector<CounterTensor>& counters) {
  const std::vector<std::string> groups = groups_of(parts);
  std::vector<std::vector<std::uint64_t>> checksums;
  std::uint64_t weights = 0;
  for (const std::string& group : groups) {
    TensorSums sums = tensor_sums(world_, table, parts, group);
    check_finite(path, header.step, table, group, sums.not_finite);
    checksums.push_back(std::move(sums.checksums));
    if (group == model_group) weights = combined_checksum(table, checksums.back());
  }
  path_ = path;
  written_ = false;
  try {
    std::vector<std::int64_t> offsets(groups.size() * table.size(), 0);
    world_.together([&] {
      if (!world_.is_first()) return;
      offsets =
          create_file<T>(temporary_name(path), header, table, groups, checksums, weights, counters);
    });
    world_.sum(offsets);  // the first rank's: elsewhere they are zero
    // Of each part, those of its group: (parts, tensors of the table).
    std::vector<std::uint64_t> part_offsets;
    for (const TensorPart<T>& part : parts) {
      const auto group = std::find(groups.begin(), groups.end(), part.group) - groups.begin();
      const auto first = offsets.begin() + group * static_cast<std::ptrdiff_t>(table.size());
      part_offsets.insert(part_offsets.end(), first,
                          first + static_cast<std::ptrdiff_t>(table.size()));
    }
    world_.together([&] {
      if (time_ == WriteTime::at_once) {
        write_at_once(table, parts, part_offsets);
      } else {
        write_beside(table, parts, part_offsets);
      }
    });
  } catch (const CollectiveError&) {
    // Where the others could not begin, this rank's thread may be at work.
    given_up_ = true;
    if (thread_.joinable()) thread_.join();
    world_.barrier();
    forget();
    throw;
  }
  return weights;
}

template <class T>
void CheckpointWriter<T>::write_at_once(const TensorTable& table,
                                        const std::vector<TensorPart<T>>& parts,
                                        const std::vector<std::uint64_t>& offsets) {
  const PlacedWriter file(temporary_name(path_));
  for (std::size_t part = 0; part < parts.size(); ++part) {
    const auto values =
        Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), parts[part].values);
    write_part(file, stretches_of(table, parts[part]), offsets.data() + part * table.size(),
               values.data(), [] { return false; });
  }
  file.sync();
  written_ = true;
}

template <class T>
void CheckpointWriter<T>::write_beside(const TensorTable& table,
                                       const std::vector<TensorPart<T>>& parts,
                                       const std::vector<std::uint64_t>& offsets) {
  copies_.resize(parts.size());
  std::vector<std::vector<TensorStretch>> stretches;
  for (std::size_t part = 0; part < parts.size(); ++part) {
    const auto& values = parts[part].values;
    if (copies_[part].extent(0) != values.extent(0)) {
      copies_[part] = HostArray1<T>(Kokkos::view_alloc(Kokkos::WithoutInitializing, "checkpoint"),
                                    values.extent(0));
      advise_huge_pages(copies_[part].data(), values.extent(0) * sizeof(T));
    }
    Kokkos::deep_copy(copies_[part], values);
    stretches.push_back(stretches_of(table, parts[part]));
  }
  given_up_ = false;
  error_ = nullptr;
  // Kokkos' arrays count their users, on one thread only: the thread gets plain pointers.
  std::vector<const T*> values;
  for (const HostArray1<T>& copy : copies_) values.push_back(copy.data());
  thread_ = quiet_thread([this, path = temporary_name(path_), stretches = std::move(stretches),
                          values = std::move(values), offsets, tensors = table.size()] {
    try {
      const PlacedWriter file(path);
      for (std::size_t part = 0; part < values.size(); ++part) {
        write_part(file, stretches[part], offsets.data() + part * tensors, values[part],
                   [&] { return given_up_.load(); });
      }
      if (!given_up_) file.sync();
    } catch (...) {
      error_ = std::current_exception();
    }
    written_ = true;
  });
}

template <class T>
void CheckpointWriter<T>::finish() {
  try {
    // Each rank has forced its part to the disk: nodes keep pages of their own.
    world_.together([&] {
      if (thread_.joinable()) thread_.join();
      if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
    });
    world_.together([&] {
      if (world_.is_first()) publish(temporary_name(path_), path_);
    });
  } catch (const CollectiveError&) {
    forget();
    throw;
  }
  path_.clear();
}

template <class T>
void CheckpointWriter<T>::forget() {
  if (world_.is_first()) discard(temporary_name(path_));
  path_.clear();
}

template <class T>
std::uint64_t write_checkpoint(const Communicator& world, const std::string& path,
                               const CheckpointHeader& header, const TensorTable& table,
                               const std::vector<TensorPart<T>>& parts,
                               const std::vector<CounterTensor>& counters) {
  CheckpointWriter<T> writer(world, WriteTime::at_once);
  const std::uint64_t checksum = writer.begin(path, header, table, parts, counters);
  writer.finish();
  return checksum;
}

#define HEARTH_INSTANTIATE(T)                                                               \
  template class CheckpointWriter<T>;                                                       \
  template std::uint64_t write_checkpoint(                                                  \
      const Communicator&, const std::string&, const CheckpointHeader&, const TensorTable&, \
      const std::vector<TensorPart<T>>&, const std::vector<CounterTensor>&)
HEARTH_INSTANTIATE(float);
HEARTH_INSTANTIATE(double);
#undef HEARTH_INSTANTIATE

}  // namespace hearth
