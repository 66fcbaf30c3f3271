// HDF5 (1.10 or newer, its C interface) with owners for its handles and one-line errors.
//
// Names of datasets and groups are absolute paths, "/model/head/weight". Every function throws
// "<file>: <object>: <what HDF5 said>": input_error on a file opened for reading, unless its disk
// is broken, otherwise failure. HDF5 itself prints nothing.
#pragma once

#include <hdf5.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/types.hpp"
#include "io/memory_image.hpp"

namespace hearth::hdf5 {

// Owner of one HDF5 identifier.
class Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Handle() = default;
  Handle(hid_t id, Close close) : id_(id), close_(close) {}
  ~Handle() { reset(); }
  Handle(Handle&& other) noexcept;
  Handle& operator=(Handle&& other) noexcept;
  [[nodiscard]] hid_t id() const { return id_; }
  // Closes now; negative when HDF5 failed to.
  herr_t reset();

 private:
  hid_t id_ = -1;
  Close close_ = nullptr;
};

// HDF5's name of an element type in memory: std::int32_t, std::int64_t, std::uint64_t, float,
// double. Files store elements as the machine that writes them does.
template <class T>
[[nodiscard]] hid_t native_type();

// How a text attribute is stored. `fixed` lies in the object's header, which HDF5 checksums;
// `variable` does not, but h5py shows it as a str.
enum class TextStorage { fixed, variable };

// How a dataset's elements are stored.
enum class Storage {
  contiguous,  // allocated at once, written later in any order; not filled
  compressed   // chunks, byte shuffle, deflate
};

class File;

// An open dataset. The file must outlive it.
class Dataset {
 public:
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] const std::vector<Index>& dims() const { return dims_; }
  [[nodiscard]] Index elements() const;
  // Whether elements are stored exactly as T.
  template <class T>
  [[nodiscard]] bool holds() const;
  [[nodiscard]] bool holds_texts() const;
  [[nodiscard]] bool is_compressed() const;
  // Where a contiguous dataset's first element lies, in bytes from the file's begin; 0 where it has
  // no element. Throws input_error for other datasets.
  [[nodiscard]] Index file_offset() const;

  // All elements in row-major order to and from `values` (elements()).
  template <class T>
  void write(const T* values) const;
  template <class T>
  void read(T* values) const;

  // All elements of a dataset of texts.
  void write_texts(const std::vector<std::string>& values) const;
  [[nodiscard]] std::vector<std::string> read_texts() const;

  // Names of the axes, as HDF5's dimension labels (h5py: dataset.dims[i].label).
  void set_axes(const std::vector<std::string>& names) const;
  [[nodiscard]] std::vector<std::string> axes() const;

  // Makes this 1-d dataset a dimension scale; makes `scale` the scale of this dataset's axis.
  void become_scale(const std::string& name) const;
  void attach_scale(const Dataset& scale, int axis) const;

 private:
  friend class File;
  Dataset(const File& file, std::string name, Handle handle);

  const File* file_;
  std::string name_;
  Handle handle_;
  std::vector<Index> dims_;
};

class File {
 public:
  // A new file by this rank alone. It takes shape in memory, where datasets that are not written
  // take no room, and appears at `path` with close(), in place of an old one. Metadata is
  // checksummed (version 1.8 of the format and up).
  [[nodiscard]] static File create(const std::string& path);
  // For reading, by any rank alone.
  [[nodiscard]] static File open(const std::string& path);

  File(File&&) = default;  // while it has no Datasets: they point to it
  File& operator=(File&&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }

  // Closes now; all Datasets must be gone. The destructor closes silently, and forgets a new file.
  void close();

  // Groups on the way are made. Compressed chunks hold about 1 MiB.
  template <class T>
  Dataset create_dataset(const std::string& name, const std::vector<Index>& dims,
                         Storage storage = Storage::contiguous);
  Dataset create_text_dataset(const std::string& name, const std::vector<Index>& dims);
  [[nodiscard]] Dataset dataset(const std::string& name) const;

  void create_group(const std::string& name);
  [[nodiscard]] bool has(const std::string& name) const;
  // Paths of every dataset below a group, in the order of creation; none when it does not exist.
  [[nodiscard]] std::vector<std::string> datasets(const std::string& group) const;

  // Attributes of a dataset or group ("/" is the file's own). A list of one is not a scalar.
  void set_text(const std::string& object, const std::string& attribute, const std::string& value,
                TextStorage storage);
  template <class T>
  void set_number(const std::string& object, const std::string& attribute, T value);
  template <class T>
  void set_numbers(const std::string& object, const std::string& attribute,
                   const std::vector<T>& values);

  [[nodiscard]] bool has_attribute(const std::string& object, const std::string& attribute) const;
  [[nodiscard]] std::string get_text(const std::string& object, const std::string& attribute) const;
  template <class T>
  [[nodiscard]] T get_number(const std::string& object, const std::string& attribute) const;
  template <class T>
  [[nodiscard]] std::vector<T> get_numbers(const std::string& object,
                                           const std::string& attribute) const;
  // Names of the attributes that are texts, alphabetically.
  [[nodiscard]] std::vector<std::string> text_attributes(const std::string& object) const;

  // The Error for what HDF5 just failed to do with `object`.
  [[nodiscard]] Error error(const std::string& object) const;

 private:
  File(std::string path, Handle handle, Status status,
       std::unique_ptr<MemoryImage> image = nullptr);
  Dataset create_dataset(const std::string& name, const std::vector<Index>& dims, hid_t type,
                         std::size_t element_bytes, Storage storage);
  [[nodiscard]] Handle open_object(const std::string& object) const;
  void set_attribute(const std::string& object, const std::string& attribute, hid_t type,
                     hid_t space, const void* values);
  template <class T>
  [[nodiscard]] std::vector<T> get_attribute(const std::string& object,
                                             const std::string& attribute) const;

  std::string path_;
  std::unique_ptr<MemoryImage> image_;  // of a new file; outlives the handle
  Handle handle_;
  Status status_;  // of its errors
};

}  // namespace hearth::hdf5
