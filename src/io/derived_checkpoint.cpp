#include "io/derived_checkpoint.hpp"

#include <algorithm>

#include "io/checkpoint_tensors.hpp"
#include "io/hdf5.hpp"
#include "io/placed_reader.hpp"

namespace hearth {

namespace {

// Elements `range` of a tensor made of one that begins at `offset` bytes of the file.
template <class T>
void read_stretch(const PlacedReader& file, Index offset, const TensorSource& source, Range range,
                  T* values) {
  std::vector<T> read;
  for (Index begin = range.begin; begin < range.end;) {
    const Index unit = begin / source.unit, within = begin % source.unit;
    const Index end = std::min(range.end, (unit + 1) * source.unit), count = end - begin;
    const auto& terms = source.terms.at(static_cast<std::size_t>(unit));
    T* const out = values + (begin - range.begin);
    const auto read_term = [&](const SourceTerm& term, T* into) {
      const Index first = term.begin + within;
      file.read(static_cast<std::uint64_t>(offset + first * Index{sizeof(T)}), into,
                static_cast<std::size_t>(count) * sizeof(T));
    };
    if (terms.size() == 1 && terms[0].weight == 1) {
      read_term(terms[0], out);  // bit for bit
    } else {
      std::vector<double> sum(static_cast<std::size_t>(count), 0.0);
      read.resize(static_cast<std::size_t>(count));
      for (const SourceTerm& term : terms) {
        read_term(term, read.data());
        for (std::size_t i = 0; i < sum.size(); ++i) {
          sum[i] += term.weight * static_cast<double>(read[i]);
        }
      }
      std::transform(sum.begin(), sum.end(), out, [](double x) { return static_cast<T>(x); });
    }
    begin = end;
  }
}

}  // namespace

template <class T>
void read_derived(const Communicator& world, const std::string& path, const TensorTable& table,
                  const TensorSources& sources, const std::vector<TensorPart<T>>& parts) {
  world.together([&] {
    const hdf5::File file = hdf5::File::open(path);
    const PlacedReader reader(path);
    for (const TensorPart<T>& part : parts) {
      if (part.group != model_group) continue;
      const auto values = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), part.values);
      for (const auto& [tensor, range, offset] : stretches_of(table, part)) {
        const TensorSource& source = sources.at(tensor);
        if (source.tensor.empty()) continue;
        // Of a tensor without a single term there need not be one in the file.
        const bool zero = std::all_of(source.terms.begin(), source.terms.end(),
                                      [](const auto& terms) { return terms.empty(); });
        if (zero) {
          std::fill_n(values.data() + offset, range.size(), T(0));
          continue;
        }
        const hdf5::Dataset dataset = file.dataset(std::string(model_group) + "/" + source.tensor);
        read_stretch(reader, dataset.file_offset(), source, range, values.data() + offset);
      }
      Kokkos::deep_copy(part.values, values);
    }
  });
}

template void read_derived<float>(const Communicator&, const std::string&, const TensorTable&,
                                  const TensorSources&, const std::vector<TensorPart<float>>&);
template void read_derived<double>(const Communicator&, const std::string&, const TensorTable&,
                                   const TensorSources&, const std::vector<TensorPart<double>>&);

}  // namespace hearth
