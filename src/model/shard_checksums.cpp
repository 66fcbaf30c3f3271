#include "model/shard_checksums.hpp"

#include <algorithm>

namespace hearth {

namespace {

using kernels::block_elements;
using kernels::chunk_elements;

Array1<const Index> to_device(const std::string& label, const std::vector<Index>& values) {
  const auto copy = uninitialized<Array1<Index>>(label, values.size());
  Kokkos::deep_copy(copy,
                    Kokkos::View<const Index*, Kokkos::HostSpace>(values.data(), values.size()));
  return copy;
}

}  // namespace

ShardChecksums::ShardChecksums(const TensorTable& table, const ArenaLayout& layout, Range range) {
  const Index blocks = range.size() / block_elements;
  HostArray1<std::uint64_t> first("first", blocks);
  HostArray1<int> elements("elements", blocks);
  std::vector<Index> begin, end;
  for (const ArenaLayout::Run& run : layout.runs(range)) {
    const TensorInfo& tensor = table[static_cast<std::size_t>(run.tensor)];
    const Index begin_block = (run.begin - range.begin) / block_elements;
    const Index run_blocks = kernels::whole_blocks(run.elements);
    for (Index b = 0; b < run_blocks; ++b) {
      first(begin_block + b) = static_cast<std::uint64_t>(run.slice * tensor.slice_elements() +
                                                          run.first + b * block_elements);
      elements(begin_block + b) =
          static_cast<int>(std::min(block_elements, run.elements - b * block_elements));
    }
    constexpr Index chunks_of_block = block_elements / chunk_elements;
    if (tensor_.empty() || tensor_.back() != run.tensor) {
      tensor_.push_back(run.tensor);
      begin.push_back(begin_block * chunks_of_block);
      end.push_back(0);
    }
    end.back() = (begin_block + run_blocks) * chunks_of_block;
  }
  chunks_ = {Kokkos::create_mirror_view_and_copy(Memory(), first),
             Kokkos::create_mirror_view_and_copy(Memory(), elements), kernels::place_keys(),
             Array1<std::uint64_t>("chunk checksums", range.size() / chunk_elements)};
  begin_ = to_device("begin", begin);
  end_ = to_device("end", end);
  sum_ = Array1<std::uint64_t>("checksums", tensor_.size());
}

void ShardChecksums::add_to(std::vector<std::int64_t>& sums) const {
  add_to(sums, chunks_.sum);
}

void ShardChecksums::add_to(std::vector<std::int64_t>& sums,
                            const Array1<const std::uint64_t>& chunks) const {
  kernels::sum_chunks(chunks, begin_, end_, sum_);
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), sum_);
  for (std::size_t stretch = 0; stretch < tensor_.size(); ++stretch) {
    std::int64_t& sum = sums[static_cast<std::size_t>(tensor_[stretch])];
    sum = static_cast<std::int64_t>(static_cast<std::uint64_t>(sum) + host(stretch));  // wraps
  }
}

}  // namespace hearth
