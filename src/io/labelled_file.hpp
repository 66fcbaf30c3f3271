// Statistics files that describe themselves: arrays with named axes, units and a description, as
// HDF5 dimension scales and labels, which h5py, xarray and h5dump show (docs/file_formats.md).
#pragma once

#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/types.hpp"

namespace hearth {

struct LabelledArray {
  using Values =
      std::variant<std::vector<std::int64_t>, std::vector<double>, std::vector<std::int32_t>,
                   std::vector<std::uint64_t>, std::vector<float>, std::vector<std::string>>;

  std::string path;               // "/timing/seconds"
  std::vector<Index> dims;        // the first may be 0: no rows yet
  std::vector<std::string> axes;  // (dims.size()). An axis named like a 1-d array of its length in
                                  // the same group or in the root has that array as its scale
  std::string units;              // "1" for pure numbers
  std::string description;
  Values values;  // (product of dims), row-major
  bool compress = false;
  std::optional<double> fill_value = {};  // what absent entries hold; numbers only
};

// An array of one axis.
template <class T>
[[nodiscard]] LabelledArray labelled_list(const std::string& path, const std::string& axis,
                                          const std::string& units, const std::string& description,
                                          const std::vector<T>& values) {
  return {path, {static_cast<Index>(values.size())}, {axis}, units, description, values};
}

using LabelledAttributes = std::map<std::string, std::string>;

struct LabelledFile {
  LabelledAttributes attributes;      // of the whole file
  std::vector<LabelledArray> arrays;  // root first, each group in the order of writing
};

// Replaces the file by a new version, whole or not at all. One rank alone. Throws failure.
void write_labelled_file(const std::string& path, const LabelledAttributes& attributes,
                         const std::vector<LabelledArray>& arrays);

// Throws input_error when the file is missing or damaged.
[[nodiscard]] LabelledFile read_labelled_file(const std::string& path);

}  // namespace hearth
