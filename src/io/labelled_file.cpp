#include "io/labelled_file.hpp"

#include <functional>
#include <numeric>
#include <set>
#include <type_traits>

#include "base/error.hpp"
#include "io/hdf5.hpp"
#include "io/replace_file.hpp"

namespace hearth {

namespace {

constexpr const char* fill_value_attribute = "_FillValue";  // as netCDF and xarray name it

template <class Values>
using Element = typename std::decay_t<Values>::value_type;

std::string group_of(const std::string& path) {
  return path.substr(0, path.rfind('/'));
}
std::string last_name(const std::string& path) {
  return path.substr(path.rfind('/') + 1);
}

void check(const std::string& file, const LabelledArray& array) {
  const Index elements =
      std::accumulate(array.dims.begin(), array.dims.end(), Index{1}, std::multiplies<>());
  const auto values =
      std::visit([](const auto& v) { return static_cast<Index>(v.size()); }, array.values);
  if (array.dims.empty() || array.axes.size() != array.dims.size() || values != elements) {
    throw failure(file, ": ", array.path, ": has ", values, " values and ", array.axes.size(),
                  " axis names for ", array.dims.size(), " axes of ", elements, " elements");
  }
}

// The array that is the scale of this axis: one of that name and length in the same group, or
// else in the root. Null: none.
const LabelledArray* scale_of(const std::vector<LabelledArray>& arrays, const LabelledArray& array,
                              std::size_t axis) {
  for (const std::string& group : {group_of(array.path), std::string()}) {
    for (const LabelledArray& scale : arrays) {
      if (scale.path == group + "/" + array.axes[axis] && scale.dims.size() == 1 &&
          scale.dims[0] == array.dims[axis]) {
        return &scale;
      }
    }
  }
  return nullptr;
}

void write_array(hdf5::File& file, const LabelledArray& array) {
  using hdf5::TextStorage;
  std::visit(
      [&](const auto& values) {
        using T = Element<decltype(values)>;
        if constexpr (std::is_same_v<T, std::string>) {
          file.create_text_dataset(array.path, array.dims).write_texts(values);
        } else {
          const auto storage =
              array.compress ? hdf5::Storage::compressed : hdf5::Storage::contiguous;
          const hdf5::Dataset dataset = file.create_dataset<T>(array.path, array.dims, storage);
          dataset.write(values.data());
          if (array.fill_value) {
            file.set_number(array.path, fill_value_attribute, static_cast<T>(*array.fill_value));
          }
        }
      },
      array.values);
  file.dataset(array.path).set_axes(array.axes);
  file.set_text(array.path, "units", array.units, TextStorage::variable);
  file.set_text(array.path, "description", array.description, TextStorage::variable);
}

void attach_scales(const hdf5::File& file, const std::vector<LabelledArray>& arrays) {
  std::set<const LabelledArray*> scales;
  for (const LabelledArray& array : arrays) {
    for (std::size_t axis = 0; axis < array.axes.size(); ++axis) {
      if (const LabelledArray* scale = scale_of(arrays, array, axis)) scales.insert(scale);
    }
  }
  for (const LabelledArray* scale : scales) {
    file.dataset(scale->path).become_scale(last_name(scale->path));
  }
  for (const LabelledArray& array : arrays) {
    if (scales.count(&array) != 0) continue;  // HDF5 gives a scale no scales
    for (std::size_t axis = 0; axis < array.axes.size(); ++axis) {
      if (const LabelledArray* scale = scale_of(arrays, array, axis)) {
        file.dataset(array.path).attach_scale(file.dataset(scale->path), static_cast<int>(axis));
      }
    }
  }
}

// True when the dataset's elements are T; then they are read.
template <class T>
bool read_values(const hdf5::Dataset& dataset, LabelledArray::Values& values) {
  if (!dataset.holds<T>()) return false;
  std::vector<T> elements(static_cast<std::size_t>(dataset.elements()));
  dataset.read(elements.data());
  values = std::move(elements);
  return true;
}

LabelledArray read_array(const hdf5::File& file, const std::string& path) {
  const hdf5::Dataset dataset = file.dataset(path);
  LabelledArray array;
  array.path = path;
  array.dims = dataset.dims();
  if (array.dims.empty()) throw input_error(file.path(), ": ", path, ": has no axes");
  array.axes = dataset.axes();
  array.units = file.get_text(path, "units");
  array.description = file.get_text(path, "description");
  if (dataset.holds_texts()) {
    array.values = dataset.read_texts();
    return array;
  }
  array.compress = dataset.is_compressed();
  if (file.has_attribute(path, fill_value_attribute)) {
    array.fill_value = file.get_number<double>(path, fill_value_attribute);
  }
  if (!read_values<std::int64_t>(dataset, array.values) &&
      !read_values<double>(dataset, array.values) &&
      !read_values<std::int32_t>(dataset, array.values) &&
      !read_values<std::uint64_t>(dataset, array.values) &&
      !read_values<float>(dataset, array.values)) {
    throw input_error(file.path(), ": ", path, ": has elements of another type than Hearth writes");
  }
  return array;
}

}  // namespace

void write_labelled_file(const std::string& path, const LabelledAttributes& attributes,
                         const std::vector<LabelledArray>& arrays) {
  const std::string temporary = temporary_name(path);
  try {
    {
      hdf5::File file = hdf5::File::create(temporary);
      for (const auto& [name, value] : attributes) {
        file.set_text("/", name, value, hdf5::TextStorage::variable);
      }
      for (const LabelledArray& array : arrays) {
        check(path, array);
        write_array(file, array);
      }
      attach_scales(file, arrays);
      file.close();
    }
    sync_file(temporary);
    publish(temporary, path);
  } catch (...) {
    discard(temporary);
    throw;
  }
}

LabelledFile read_labelled_file(const std::string& path) {
  const hdf5::File file = hdf5::File::open(path);
  LabelledFile result;
  for (const std::string& name : file.text_attributes("/")) {
    result.attributes[name] = file.get_text("/", name);
  }
  for (const std::string& name : file.datasets("/")) {
    result.arrays.push_back(read_array(file, name));
  }
  return result;
}

}  // namespace hearth
