#include "io/hdf5.hpp"

#include <hdf5_hl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <numeric>
#include <type_traits>
#include <utility>

namespace hearth::hdf5 {

namespace {

constexpr hsize_t chunk_bytes = hsize_t{1} << 20;
constexpr unsigned deflate_level = 4;  // beyond it counters shrink little more, and slowly

// Tensors start at a page, so that ranks that write neighbouring blocks share none.
constexpr hsize_t alignment_bytes = 4096, alignment_threshold_bytes = 4096;

constexpr unsigned creation_order = H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED;

// HDF5's stack of errors as one line: what was asked for, and the innermost reason.
std::string what_hdf5_said() {
  std::vector<std::string> lines;  // outermost first
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_DOWNWARD,
      [](unsigned, const H5E_error2_t* entry, void* into) -> herr_t {
        if (entry->desc != nullptr) {
          static_cast<std::vector<std::string>*>(into)->emplace_back(entry->desc);
        }
        return 0;
      },
      &lines);
  if (lines.empty()) return "HDF5 failed and gave no reason";
  std::string reason = lines.back();
  // The file drivers' messages hold times, addresses and the system's own words; these suffice.
  const std::string opening = "error message = '";
  if (const auto begin = reason.find(opening); begin != std::string::npos) {
    reason = reason.substr(begin + opening.size());
    reason = reason.substr(0, reason.find('\''));
  }
  std::string said = lines.front() == reason ? reason : lines.front() + ": " + reason;
  std::replace(said.begin(), said.end(), '\n', ' ');
  return said;
}

Error error_of(Status status, const std::string& path, const std::string& object) {
  const std::string said = what_hdf5_said();  // before any other call of HDF5 forgets it
  if (said.ends_with(std::strerror(EIO))) status = Status::failure;
  return {status, object.empty() ? text(path, ": ", said) : text(path, ": ", object, ": ", said)};
}

Handle file_access(bool aligned) {
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_libver_bounds(access.id(), H5F_LIBVER_V18, H5F_LIBVER_LATEST);
  // A handle that outlives its file's close is a mistake, not a reason to leave the file open.
  H5Pset_fclose_degree(access.id(), H5F_CLOSE_SEMI);
  // Files are replaced by renaming, never changed, so readers need no lock, and some parallel file
  // systems offer none.
  H5Pset_file_locking(access.id(), false, true);
  if (aligned) H5Pset_alignment(access.id(), alignment_threshold_bytes, alignment_bytes);
  return access;
}

Handle text_type(std::size_t bytes) {
  Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type.id(), bytes);
  H5Tset_cset(type.id(), H5T_CSET_UTF8);
  return type;
}

Handle simple_space(const std::vector<Index>& dims) {
  const std::vector<hsize_t> sizes(dims.begin(), dims.end());
  return {H5Screate_simple(static_cast<int>(sizes.size()), sizes.data(), nullptr), H5Sclose};
}

Index product(const std::vector<Index>& dims) {
  return std::accumulate(dims.begin(), dims.end(), Index{1}, std::multiplies<>());
}

// Whole rows of the trailing axes, about chunk_bytes of them.
std::vector<hsize_t> chunk_shape(const std::vector<Index>& dims, std::size_t element_bytes) {
  std::vector<hsize_t> chunk(dims.begin(), dims.end());
  hsize_t row_bytes = element_bytes;
  for (std::size_t axis = dims.size(); axis-- > 0;) {
    chunk[axis] = std::clamp<hsize_t>(chunk_bytes / row_bytes, 1, chunk[axis]);
    row_bytes *= chunk[axis];
  }
  return chunk;
}

}  // namespace

Handle::Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}

Handle& Handle::operator=(Handle&& other) noexcept {
  if (this != &other) {
    reset();
    id_ = std::exchange(other.id_, -1);
    close_ = other.close_;
  }
  return *this;
}

herr_t Handle::reset() {
  const hid_t id = std::exchange(id_, -1);
  return id < 0 ? 0 : close_(id);
}

template <class T>
hid_t native_type() {
  if constexpr (std::is_same_v<T, std::int32_t>) {
    return H5T_NATIVE_INT32;
  } else if constexpr (std::is_same_v<T, std::int64_t>) {
    return H5T_NATIVE_INT64;
  } else if constexpr (std::is_same_v<T, std::uint64_t>) {
    return H5T_NATIVE_UINT64;
  } else if constexpr (std::is_same_v<T, float>) {
    return H5T_NATIVE_FLOAT;
  } else {
    static_assert(std::is_same_v<T, double>);
    return H5T_NATIVE_DOUBLE;
  }
}

// ---- Dataset

Dataset::Dataset(const File& file, std::string name, Handle handle)
    : file_(&file), name_(std::move(name)), handle_(std::move(handle)) {
  const Handle space(H5Dget_space(handle_.id()), H5Sclose);
  const int rank = space.id() < 0 ? -1 : H5Sget_simple_extent_ndims(space.id());
  if (rank < 0) throw file_->error(name_);
  std::vector<hsize_t> sizes(static_cast<std::size_t>(rank));
  H5Sget_simple_extent_dims(space.id(), sizes.data(), nullptr);
  dims_.assign(sizes.begin(), sizes.end());
}

Index Dataset::elements() const {
  return product(dims_);
}

template <class T>
bool Dataset::holds() const {
  const Handle type(H5Dget_type(handle_.id()), H5Tclose);
  return H5Tequal(type.id(), native_type<T>()) > 0;
}

bool Dataset::holds_texts() const {
  const Handle type(H5Dget_type(handle_.id()), H5Tclose);
  return H5Tis_variable_str(type.id()) > 0;
}

bool Dataset::is_compressed() const {
  const Handle creation(H5Dget_create_plist(handle_.id()), H5Pclose);
  return H5Pget_layout(creation.id()) == H5D_CHUNKED;
}

Index Dataset::file_offset() const {
  if (elements() == 0) return 0;
  const haddr_t offset = H5Dget_offset(handle_.id());
  if (offset == HADDR_UNDEF) {
    throw input_error(file_->path(), ": ", name_,
                      ": does not lie in one stretch of the file; h5repack -l CONTI makes a file "
                      "where it does");
  }
  return static_cast<Index>(offset);
}

template <class T>
void Dataset::write(const T* values) const {
  if (elements() == 0) return;
  if (H5Dwrite(handle_.id(), native_type<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0) {
    throw file_->error(name_);
  }
}

template <class T>
void Dataset::read(T* values) const {
  if (elements() == 0) return;
  if (H5Dread(handle_.id(), native_type<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0) {
    throw file_->error(name_);
  }
}

void Dataset::write_texts(const std::vector<std::string>& values) const {
  if (values.empty()) return;
  std::vector<const char*> pointers;
  for (const std::string& value : values) pointers.push_back(value.c_str());
  const Handle type = text_type(H5T_VARIABLE);
  if (H5Dwrite(handle_.id(), type.id(), H5S_ALL, H5S_ALL, H5P_DEFAULT, pointers.data()) < 0) {
    throw file_->error(name_);
  }
}

std::vector<std::string> Dataset::read_texts() const {
  std::vector<char*> pointers(static_cast<std::size_t>(elements()), nullptr);
  if (pointers.empty()) return {};
  const Handle type = text_type(H5T_VARIABLE);
  if (H5Dread(handle_.id(), type.id(), H5S_ALL, H5S_ALL, H5P_DEFAULT, pointers.data()) < 0) {
    throw file_->error(name_);
  }
  std::vector<std::string> values;
  for (const char* pointer : pointers) values.emplace_back(pointer == nullptr ? "" : pointer);
  const Handle space(H5Dget_space(handle_.id()), H5Sclose);
  H5Dvlen_reclaim(type.id(), space.id(), H5P_DEFAULT, pointers.data());
  return values;
}

void Dataset::set_axes(const std::vector<std::string>& names) const {
  for (std::size_t axis = 0; axis < names.size(); ++axis) {
    if (H5DSset_label(handle_.id(), static_cast<unsigned>(axis), names[axis].c_str()) < 0) {
      throw file_->error(name_);
    }
  }
}

std::vector<std::string> Dataset::axes() const {
  std::vector<std::string> names;
  for (unsigned axis = 0; axis < dims_.size(); ++axis) {
    const ssize_t length = H5DSget_label(handle_.id(), axis, nullptr, 0);
    if (length < 0) throw file_->error(name_);
    std::string name(static_cast<std::size_t>(length) + 1, '\0');  // HDF5 ends it with a zero
    H5DSget_label(handle_.id(), axis, name.data(), name.size());
    name.pop_back();
    names.push_back(name);
  }
  return names;
}

void Dataset::become_scale(const std::string& name) const {
  if (H5DSset_scale(handle_.id(), name.c_str()) < 0) throw file_->error(name_);
}

void Dataset::attach_scale(const Dataset& scale, int axis) const {
  if (H5DSattach_scale(handle_.id(), scale.handle_.id(), static_cast<unsigned>(axis)) < 0) {
    throw file_->error(name_);
  }
}

// ---- File

File::File(std::string path, Handle handle, Status status, std::unique_ptr<MemoryImage> image)
    : path_(std::move(path)),
      image_(std::move(image)),
      handle_(std::move(handle)),
      status_(status) {}

Error File::error(const std::string& object) const {
  return error_of(status_, path_, object);
}

File File::create(const std::string& path) {
  auto image = std::make_unique<MemoryImage>();
  const Handle access = file_access(true);
  image->use_for(access.id());
  const Handle creation(H5Pcreate(H5P_FILE_CREATE), H5Pclose);
  H5Pset_link_creation_order(creation.id(), creation_order);
  H5Pset_obj_track_times(creation.id(), false);
  Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation.id(), access.id()), H5Fclose);
  if (file.id() < 0) throw error_of(Status::failure, path, "");
  return {path, std::move(file), Status::failure, std::move(image)};
}

File File::open(const std::string& path) {
  const Handle access = file_access(false);
  Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.id()), H5Fclose);
  if (file.id() < 0) throw error_of(Status::bad_input, path, "");
  return {path, std::move(file), Status::bad_input};
}

void File::close() {
  if (handle_.reset() < 0) throw error("");
  if (image_) image_->save(path_);
}

void File::create_group(const std::string& name) {
  for (std::size_t end = name.find('/', 1); !name.empty(); end = name.find('/', end + 1)) {
    const std::string group = name.substr(0, end);
    if (group != "/" && !has(group)) {
      const Handle creation(H5Pcreate(H5P_GROUP_CREATE), H5Pclose);
      H5Pset_link_creation_order(creation.id(), creation_order);
      H5Pset_obj_track_times(creation.id(), false);
      const Handle made(
          H5Gcreate2(handle_.id(), group.c_str(), H5P_DEFAULT, creation.id(), H5P_DEFAULT),
          H5Gclose);
      if (made.id() < 0) throw error(group);
    }
    if (end == std::string::npos) return;
  }
}

Dataset File::create_dataset(const std::string& name, const std::vector<Index>& dims, hid_t type,
                             std::size_t element_bytes, Storage storage) {
  if (const auto slash = name.rfind('/'); slash != 0) create_group(name.substr(0, slash));
  const Handle space = simple_space(dims);
  const Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  // Equal contents make equal files.
  H5Pset_obj_track_times(creation.id(), false);
  if (product(dims) == 0) storage = Storage::contiguous;  // chunks have at least one element
  if (storage == Storage::compressed) {
    const std::vector<hsize_t> chunk = chunk_shape(dims, element_bytes);
    H5Pset_chunk(creation.id(), static_cast<int>(chunk.size()), chunk.data());
    H5Pset_shuffle(creation.id());
    H5Pset_deflate(creation.id(), deflate_level);
  } else {
    H5Pset_alloc_time(creation.id(), H5D_ALLOC_TIME_EARLY);
    if (H5Tis_variable_str(type) == 0) H5Pset_fill_time(creation.id(), H5D_FILL_TIME_NEVER);
  }
  Handle made(H5Dcreate2(handle_.id(), name.c_str(), type, space.id(), H5P_DEFAULT, creation.id(),
                         H5P_DEFAULT),
              H5Dclose);
  if (made.id() < 0) throw error(name);
  return {*this, name, std::move(made)};
}

template <class T>
Dataset File::create_dataset(const std::string& name, const std::vector<Index>& dims,
                             Storage storage) {
  return create_dataset(name, dims, native_type<T>(), sizeof(T), storage);
}

Dataset File::create_text_dataset(const std::string& name, const std::vector<Index>& dims) {
  const Handle type = text_type(H5T_VARIABLE);
  return create_dataset(name, dims, type.id(), sizeof(char*), Storage::contiguous);
}

Dataset File::dataset(const std::string& name) const {
  Handle opened(H5Dopen2(handle_.id(), name.c_str(), H5P_DEFAULT), H5Dclose);
  if (opened.id() < 0) throw error(name);
  return {*this, name, std::move(opened)};
}

bool File::has(const std::string& name) const {
  // HDF5 answers only for the last part of a path, so each part is asked for in turn.
  for (std::size_t end = name.find('/', 1); name != "/"; end = name.find('/', end + 1)) {
    const htri_t found = H5Lexists(handle_.id(), name.substr(0, end).c_str(), H5P_DEFAULT);
    if (found < 0) throw error(name);
    if (found == 0) return false;
    if (end == std::string::npos) break;
  }
  return true;
}

std::vector<std::string> File::datasets(const std::string& group) const {
  if (!has(group)) return {};
  const Handle opened(H5Gopen2(handle_.id(), group.c_str(), H5P_DEFAULT), H5Gclose);
  if (opened.id() < 0) throw error(group);
  const Handle creation(H5Gget_create_plist(opened.id()), H5Pclose);
  unsigned order = 0;
  H5Pget_link_creation_order(creation.id(), &order);
  const H5_index_t index =
      (order & H5P_CRT_ORDER_TRACKED) != 0 ? H5_INDEX_CRT_ORDER : H5_INDEX_NAME;
  H5G_info_t info{};
  if (H5Gget_info(opened.id(), &info) < 0) throw error(group);

  std::vector<std::string> found, groups;
  for (hsize_t link = 0; link < info.nlinks; ++link) {
    const auto name_of = [&](char* into, std::size_t bytes) {
      return H5Lget_name_by_idx(opened.id(), ".", index, H5_ITER_INC, link, into, bytes,
                                H5P_DEFAULT);
    };
    const ssize_t length = name_of(nullptr, 0);
    if (length < 0) throw error(group);
    std::string name(static_cast<std::size_t>(length) + 1, '\0');
    name_of(name.data(), name.size());
    name.pop_back();
    const std::string path = (group == "/" ? "/" : group + "/") + name;
    const Handle object = open_object(path);
    if (H5Iget_type(object.id()) == H5I_DATASET) found.push_back(path);
    if (H5Iget_type(object.id()) == H5I_GROUP) groups.push_back(path);
  }
  for (const std::string& below : groups) {
    for (const std::string& path : datasets(below)) found.push_back(path);
  }
  return found;
}

Handle File::open_object(const std::string& object) const {
  Handle opened(H5Oopen(handle_.id(), object.c_str(), H5P_DEFAULT), H5Oclose);
  if (opened.id() < 0) throw error(object);
  return opened;
}

// ---- Attributes

void File::set_attribute(const std::string& object, const std::string& attribute, hid_t type,
                         hid_t space, const void* values) {
  const Handle opened = open_object(object);
  const Handle made(
      H5Acreate2(opened.id(), attribute.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  if (made.id() < 0 || H5Awrite(made.id(), type, values) < 0) {
    throw error(object + " attribute " + attribute);
  }
}

void File::set_text(const std::string& object, const std::string& attribute,
                    const std::string& value, TextStorage storage) {
  const Handle scalar(H5Screate(H5S_SCALAR), H5Sclose);
  const char* const characters = value.c_str();
  if (storage == TextStorage::fixed) {
    const Handle type = text_type(value.size() + 1);
    set_attribute(object, attribute, type.id(), scalar.id(), characters);
  } else {
    const Handle type = text_type(H5T_VARIABLE);
    set_attribute(object, attribute, type.id(), scalar.id(), &characters);
  }
}

template <class T>
void File::set_number(const std::string& object, const std::string& attribute, T value) {
  const Handle scalar(H5Screate(H5S_SCALAR), H5Sclose);
  set_attribute(object, attribute, native_type<T>(), scalar.id(), &value);
}

template <class T>
void File::set_numbers(const std::string& object, const std::string& attribute,
                       const std::vector<T>& values) {
  const Handle space = simple_space({static_cast<Index>(values.size())});
  set_attribute(object, attribute, native_type<T>(), space.id(), values.data());
}

bool File::has_attribute(const std::string& object, const std::string& attribute) const {
  const Handle opened = open_object(object);
  const htri_t found = H5Aexists(opened.id(), attribute.c_str());
  if (found < 0) throw error(object + " attribute " + attribute);
  return found > 0;
}

std::string File::get_text(const std::string& object, const std::string& attribute) const {
  const std::string what = object + " attribute " + attribute;
  const Handle opened = open_object(object);
  const Handle found(H5Aopen(opened.id(), attribute.c_str(), H5P_DEFAULT), H5Aclose);
  if (found.id() < 0) throw error(what);
  const Handle type(H5Aget_type(found.id()), H5Tclose);
  const Handle space(H5Aget_space(found.id()), H5Sclose);
  if (H5Tget_class(type.id()) != H5T_STRING || H5Sget_simple_extent_npoints(space.id()) != 1) {
    throw Error(status_, text(path_, ": ", what, ": is not a text"));
  }
  if (H5Tis_variable_str(type.id()) > 0) {
    char* characters = nullptr;
    const Handle memory = text_type(H5T_VARIABLE);
    if (H5Aread(found.id(), memory.id(), &characters) < 0) throw error(what);
    const std::string value = characters == nullptr ? "" : characters;
    H5free_memory(characters);
    return value;
  }
  std::string value(H5Tget_size(type.id()), '\0');
  if (H5Aread(found.id(), type.id(), value.data()) < 0) throw error(what);
  value.resize(std::min(value.size(), value.find('\0')));
  return value;
}

template <class T>
std::vector<T> File::get_attribute(const std::string& object, const std::string& attribute) const {
  const std::string what = object + " attribute " + attribute;
  const Handle opened = open_object(object);
  const Handle found(H5Aopen(opened.id(), attribute.c_str(), H5P_DEFAULT), H5Aclose);
  if (found.id() < 0) throw error(what);
  const Handle space(H5Aget_space(found.id()), H5Sclose);
  const hssize_t count = H5Sget_simple_extent_npoints(space.id());
  std::vector<T> values(static_cast<std::size_t>(std::max<hssize_t>(count, 0)));
  if (count < 0 || H5Aread(found.id(), native_type<T>(), values.data()) < 0) throw error(what);
  return values;
}

template <class T>
std::vector<T> File::get_numbers(const std::string& object, const std::string& attribute) const {
  return get_attribute<T>(object, attribute);
}

template <class T>
T File::get_number(const std::string& object, const std::string& attribute) const {
  const std::vector<T> values = get_attribute<T>(object, attribute);
  if (values.size() != 1) {
    throw Error(status_, text(path_, ": ", object, " attribute ", attribute, ": has ",
                              values.size(), " values, not one"));
  }
  return values[0];
}

std::vector<std::string> File::text_attributes(const std::string& object) const {
  const Handle opened = open_object(object);
  std::vector<std::string> names;
  const herr_t walked = H5Aiterate2(
      opened.id(), H5_INDEX_NAME, H5_ITER_INC, nullptr,
      [](hid_t owner, const char* name, const H5A_info_t*, void* into) -> herr_t {
        const Handle attribute(H5Aopen(owner, name, H5P_DEFAULT), H5Aclose);
        const Handle type(H5Aget_type(attribute.id()), H5Tclose);
        if (H5Tget_class(type.id()) == H5T_STRING) {
          static_cast<std::vector<std::string>*>(into)->emplace_back(name);
        }
        return 0;
      },
      &names);
  if (walked < 0) throw error(object);
  return names;
}

// ---- The element types

#define HEARTH_HDF5_ELEMENT(T)                                                            \
  template hid_t native_type<T>();                                                        \
  template bool Dataset::holds<T>() const;                                                \
  template void Dataset::write<T>(const T*) const;                                        \
  template void Dataset::read<T>(T*) const;                                               \
  template Dataset File::create_dataset<T>(const std::string&, const std::vector<Index>&, \
                                           Storage);                                      \
  template void File::set_number<T>(const std::string&, const std::string&, T);           \
  template void File::set_numbers<T>(const std::string&, const std::string&,              \
                                     const std::vector<T>&);                              \
  template T File::get_number<T>(const std::string&, const std::string&) const;           \
  template std::vector<T> File::get_numbers<T>(const std::string&, const std::string&) const;

HEARTH_HDF5_ELEMENT(std::int32_t)
HEARTH_HDF5_ELEMENT(std::int64_t)
HEARTH_HDF5_ELEMENT(std::uint64_t)
HEARTH_HDF5_ELEMENT(float)
HEARTH_HDF5_ELEMENT(double)
#undef HEARTH_HDF5_ELEMENT

}  // namespace hearth::hdf5
