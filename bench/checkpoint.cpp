#include <fcntl.h>
#include <hdf5.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "bench/cases.hpp"
#include "io/checkpoint_writer.hpp"
#include "io/replace_file.hpp"
#include "parallel/mesh.hpp"

namespace hearth::bench {

namespace {

// What a rank of the deck's model holds of a checkpoint. Values are no matter, but finite.
template <class R>
struct Parts {
  TensorTable table;
  std::vector<ArenaLayout> layouts;
  std::vector<TensorPart<R>> parts;

  Parts(const Config& config, const Mesh& mesh) : table(make_tensor_table(config)) {
    const RankGrid& grid = mesh.grid;
    const int rank = mesh.world.rank();
    for (const Owner owner : {Owner::everyone, Owner::experts}) {
      layouts.emplace_back(table, owner, mesh.placements, grid.expert_index(rank));
    }
    const std::vector<Range> shards = {layouts[0].shard(grid.ranks, rank),
                                       layouts[1].shard(grid.data_ranks(), grid.data_index(rank))};
    for (const char* group : {model_group, first_moment_group, second_moment_group}) {
      for (std::size_t owner = 0; owner < layouts.size(); ++owner) {
        const Array1<R> values("values", shards[owner].size());
        Kokkos::deep_copy(values, R(0.125));
        parts.push_back({group, &layouts[owner], shards[owner], values});
      }
    }
  }
  [[nodiscard]] std::size_t bytes() const {
    std::size_t all = 0;
    for (const TensorInfo& info : table) {
      if (info.alias_of.empty()) all += 3 * sizeof(R) * static_cast<std::size_t>(info.elements());
    }
    return all;
  }
};

void need(herr_t status, const std::string& path) {
  if (status < 0) throw failure(path, ": HDF5 failed");
}

// One dataset of as many bytes, contiguous, through HDF5's plain driver: what the file system gives
// to a program that does nothing else.
void write_plain(const std::string& path, const std::vector<float>& values) {
  const hsize_t count = values.size();
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  const hid_t space = H5Screate_simple(1, &count, nullptr);
  const hid_t dataset =
      H5Dcreate2(file, "/values", H5T_NATIVE_FLOAT, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  need(H5Dwrite(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), path);
  H5Dclose(dataset);
  H5Sclose(space);
  need(H5Fclose(file), path);
  sync_file(path);
}

void read_plain(const std::string& path, std::vector<float>& values) {
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  const hid_t dataset = H5Dopen2(file, "/values", H5P_DEFAULT);
  need(H5Dread(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), path);
  H5Dclose(dataset);
  need(H5Fclose(file), path);
}

// Forgets what the system keeps of a file, so that reading it asks the disk.
void drop_cached(const std::string& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  ::posix_fadvise(file.number(), 0, 0, POSIX_FADV_DONTNEED);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

template <class T>
void checkpoint(const Config& config, const Communicator& world, const Measure& measure) {
  using R = Real<T>;
  const Mesh mesh(world, config);
  Parts<R> held(config, mesh);
  std::vector<float> plain(world.is_first() ? held.bytes() / sizeof(float) : 0, 0.125F);
  const std::string& folder = config.run.output;
  if (world.is_first()) std::filesystem::create_directories(folder);
  const std::string path = folder + "/bench_checkpoint.h5", other = folder + "/bench_plain.h5";
  CheckpointWriter<R> at_once(world, WriteTime::at_once), beside(world, WriteTime::beside);
  std::vector<CounterTensor> none;

  // Each case in turn, round after round: disks change their mind from minute to minute.
  struct Case {
    const char* name;
    std::function<void()> work;
    const std::string* reads;  // null: writes
    std::vector<double> times_s;
  };
  const auto first_only = [&](auto work) {
    if (world.is_first()) work();
  };
  std::vector<Case> cases = {
      {"plain HDF5 write", [&] { first_only([&] { write_plain(other, plain); }); }, nullptr, {}},
      {"checkpoint write",
       [&] {
         at_once.begin(path, {}, held.table, held.parts, {});
         at_once.finish();
       },
       nullptr,
       {}},
      {"checkpoint copy for background",
       [&] { beside.begin(path, {}, held.table, held.parts, {}); },
       nullptr,
       {}},
      {"checkpoint background finish", [&] { beside.finish(); }, nullptr, {}},
      {"plain HDF5 read", [&] { first_only([&] { read_plain(other, plain); }); }, &other, {}},
      {"checkpoint read",
       [&] { read_checkpoint(world, path, held.table, held.parts, none); },
       &path,
       {}},
  };
  // A disk is slower after a gigabyte than before it, so that each goes first in every second turn.
  const std::array<std::vector<std::size_t>, 2> orders = {{{0, 1, 2, 3, 4, 5}, {2, 3, 1, 0, 5, 4}}};
  for (int run = -measure.warmup; run < measure.repeat; ++run) {
    for (const std::size_t number : orders[static_cast<std::size_t>(run & 1)]) {
      Case& one = cases[number];
      if (one.reads != nullptr && world.is_first()) drop_cached(*one.reads);
      world.barrier();
      const auto start = std::chrono::steady_clock::now();
      one.work();
      world.barrier();
      const std::chrono::duration<double> time_s = std::chrono::steady_clock::now() - start;
      if (run >= 0) one.times_s.push_back(time_s.count());
    }
  }
  if (!world.is_first()) return;
  discard(path);
  discard(other);
  const auto bytes = static_cast<double>(held.bytes());
  const auto time_of = [&](const std::string& name) {
    const auto found =
        std::find_if(cases.begin(), cases.end(), [&](const Case& one) { return one.name == name; });
    return median(found->times_s);
  };
  for (const Case& one : cases) {
    const bool reads = one.reads != nullptr;
    const double plain_s = time_of(reads ? "plain HDF5 read" : "plain HDF5 write");
    const double time_s = median(one.times_s);
    std::printf(
        "{\"name\": \"%s\", \"ranks\": %d, \"bytes\": %.0f, \"median_s\": %.4g, "
        "\"mb_per_s\": %.4g, \"ratio_to_plain\": %.3g}\n",
        one.name, world.size(), bytes, time_s, 1e-6 * bytes / time_s, plain_s / time_s);
  }
}

template void checkpoint<float>(const Config&, const Communicator&, const Measure&);
template void checkpoint<double>(const Config&, const Communicator&, const Measure&);
template void checkpoint<bfloat16>(const Config&, const Communicator&, const Measure&);

}  // namespace hearth::bench
