#include "io/growing_file.hpp"

#include <algorithm>
#include <filesystem>

#include "base/error.hpp"

namespace hearth {

namespace {

// Null: there is none.
LabelledArray* find(std::vector<LabelledArray>& arrays, const std::string& path) {
  const auto found = std::find_if(arrays.begin(), arrays.end(),
                                  [&](const LabelledArray& array) { return array.path == path; });
  return found == arrays.end() ? nullptr : &*found;
}

// Rows up to and including `step` on an axis of steps.
Index rows_until(const LabelledArray& axis, std::int64_t step) {
  const auto& steps = std::get<std::vector<std::int64_t>>(axis.values);
  return std::upper_bound(steps.begin(), steps.end(), step) - steps.begin();
}

// The same dataset but for the number of rows.
bool alike(const LabelledArray& a, const LabelledArray& b) {
  return a.values.index() == b.values.index() && a.dims.size() == b.dims.size() &&
         std::equal(a.dims.begin() + 1, a.dims.end(), b.dims.begin() + 1);
}

void keep_rows(LabelledArray& array, Index rows) {
  std::visit(
      [&](auto& values) {
        const auto all = static_cast<Index>(values.size());
        values.resize(static_cast<std::size_t>(rows == 0 ? 0 : all / array.dims[0] * rows));
      },
      array.values);
  array.dims[0] = rows;
}

}  // namespace

template <class T>
void GrowingFile::declare(const std::string& path, const std::vector<std::string>& axes,
                          const std::vector<Index>& row, const std::string& units,
                          const std::string& description, bool compress,
                          std::optional<double> fill_value) {
  std::vector<Index> dims = {0};
  dims.insert(dims.end(), row.begin(), row.end());
  arrays_.push_back({path, dims, axes, units, description, std::vector<T>(), compress, fill_value});
  growing_.push_back(path);
}

void GrowingFile::set(LabelledArray array) {
  if (LabelledArray* old = find(arrays_, array.path)) {
    *old = std::move(array);
  } else {
    arrays_.push_back(std::move(array));
  }
}

template <class T>
void GrowingFile::append(const std::string& path, const std::vector<T>& row) {
  LabelledArray* const array = find(arrays_, path);
  if (array == nullptr) throw failure("statistics: no dataset ", path, " was declared");
  auto& values = std::get<std::vector<T>>(array->values);
  values.insert(values.end(), row.begin(), row.end());
  ++array->dims[0];
}

bool GrowingFile::read(const std::string& path, std::int64_t step) {
  if (!std::filesystem::exists(path)) return false;
  try {
    LabelledFile file = read_labelled_file(path);
    for (const std::string& name : growing_) {
      LabelledArray& mine = *find(arrays_, name);
      LabelledArray* const found = find(file.arrays, name);
      if (found == nullptr || !alike(*found, mine)) {
        throw input_error(path, ": ", name,
                          found == nullptr ? " is missing" : " has another shape");
      }
      // Axes are declared before what lies along them: theirs are cut already.
      const LabelledArray& axis = *find(arrays_, "/" + mine.axes[0]);
      const Index rows = rows_until(name == axis.path ? *found : axis, step);
      if (found->dims[0] < rows) throw input_error(path, ": ", name, " has too few rows");
      keep_rows(*found, rows);
      mine.dims = found->dims;
      mine.values = std::move(found->values);
    }
  } catch (const Error& error) {
    throw input_error(error.what(), "; restore the file, or move it away to go on from step ", step,
                      " without its rows");
  }
  return true;
}

#define HEARTH_INSTANTIATE(T)                                                                \
  template void GrowingFile::declare<T>(const std::string&, const std::vector<std::string>&, \
                                        const std::vector<Index>&, const std::string&,       \
                                        const std::string&, bool, std::optional<double>);    \
  template void GrowingFile::append<T>(const std::string&, const std::vector<T>&)
HEARTH_INSTANTIATE(std::int64_t);
HEARTH_INSTANTIATE(std::int32_t);
HEARTH_INSTANTIATE(std::uint64_t);
HEARTH_INSTANTIATE(double);
HEARTH_INSTANTIATE(float);
#undef HEARTH_INSTANTIATE

}  // namespace hearth
