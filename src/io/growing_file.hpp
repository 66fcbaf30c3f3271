// A statistics file whose datasets grow by rows: kept in memory by one rank, replaced as a whole.
#pragma once

#include "io/labelled_file.hpp"

namespace hearth {

class GrowingFile {
 public:
  // Adds a dataset without rows. The first of its `axes` is an axis of steps: the one-dimensional
  // int64 dataset "/<axis>", which is declared first, says at which step each row was written, in
  // ascending order. `row` is the shape of a row, for the other axes; `fill_value`: what absent
  // entries hold.
  template <class T>
  void declare(const std::string& path, const std::vector<std::string>& axes,
               const std::vector<Index>& row, const std::string& units,
               const std::string& description, bool compress = false,
               std::optional<double> fill_value = {});

  // Adds a dataset that does not grow, or puts it in the place of the one of its path.
  void set(LabelledArray array);

  // Adds a row to a declared dataset of T: as many values as its shape says.
  template <class T>
  void append(const std::string& path, const std::vector<T>& row);

  // Takes the rows of all declared datasets up to and including `step` from the file `path`; later
  // ones belong to a course not taken. False: there is no such file. Throws input_error, saying
  // what to do, where the file is damaged or has not these datasets.
  bool read(const std::string& path, std::int64_t step);

  void write(const std::string& path, const LabelledAttributes& attributes) const {
    write_labelled_file(path, attributes, arrays_);
  }

 private:
  std::vector<LabelledArray> arrays_;
  std::vector<std::string> growing_;  // paths of those that were declared
};

}  // namespace hearth
