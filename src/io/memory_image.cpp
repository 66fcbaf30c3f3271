#include "io/memory_image.hpp"

#if __has_include(<H5FDdevelop.h>)
#include <H5FDdevelop.h>  // where HDF5 1.14 keeps what a driver needs
#endif
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <new>

#include "base/error.hpp"
#include "io/placed_writer.hpp"
#include "io/replace_file.hpp"

namespace hearth::hdf5 {

namespace {

constexpr std::uint64_t page_bytes = 1 << 16;

// Calls visit(page, begin within the page, begin within the stretch, count) for each page that
// `count` bytes from `address` touch.
template <class Visit>
void each_page(std::uint64_t address, std::size_t count, Visit visit) {
  for (std::size_t done = 0; done < count;) {
    const std::uint64_t page = (address + done) / page_bytes,
                        within = (address + done) % page_bytes;
    const std::size_t part = std::min<std::size_t>(count - done, page_bytes - within);
    visit(page, within, done, part);
    done += part;
  }
}

// An open file, as HDF5 sees it: its own part first.
struct Opened {
  H5FD_t hdf5;
  MemoryImage* image;
  haddr_t allocated;  // end of what HDF5 has given out
};

struct AccessInfo {
  MemoryImage* image;
};

Opened* opened(H5FD_t* file) {
  return reinterpret_cast<Opened*>(file);
}
const Opened* opened(const H5FD_t* file) {
  return reinterpret_cast<const Opened*>(file);
}

H5FD_t* open(const char*, unsigned, hid_t access, haddr_t) {
  const auto* info = static_cast<const AccessInfo*>(H5Pget_driver_info(access));
  if (info == nullptr) return nullptr;
  return &(new (std::nothrow) Opened{{}, info->image, 0})->hdf5;
}

herr_t close(H5FD_t* file) {
  delete opened(file);
  return 0;
}

herr_t query(const H5FD_t*, unsigned long* features) {
  *features = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE |
              H5FD_FEAT_AGGREGATE_SMALLDATA;
  return 0;
}

haddr_t get_eoa(const H5FD_t* file, H5FD_mem_t) {
  return opened(file)->allocated;
}
herr_t set_eoa(H5FD_t* file, H5FD_mem_t, haddr_t end) {
  opened(file)->allocated = end;
  return 0;
}
haddr_t get_eof(const H5FD_t* file, H5FD_mem_t) {
  return opened(file)->image->size;
}

herr_t read(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t address, std::size_t count, void* bytes) {
  opened(file)->image->read(address, static_cast<char*>(bytes), count);
  return 0;
}

herr_t write(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t address, std::size_t count,
             const void* bytes) {
  try {
    opened(file)->image->write(address, static_cast<const char*>(bytes), count);
  } catch (const std::bad_alloc&) {
    return -1;
  }
  return 0;
}

herr_t truncate(H5FD_t* file, hid_t, hbool_t) {
  opened(file)->image->size = opened(file)->allocated;
  return 0;
}

hid_t driver() {
  static const hid_t id = [] {
    static H5FD_class_t functions{};  // HDF5 versions differ in what comes besides
#ifdef H5FD_CLASS_VERSION
    functions.version = H5FD_CLASS_VERSION;
#endif
    functions.name = "memory_image";
    functions.maxaddr = static_cast<haddr_t>(std::numeric_limits<std::int64_t>::max());
    functions.fc_degree = H5F_CLOSE_WEAK;
    functions.fapl_size = sizeof(AccessInfo);
    functions.open = open;
    functions.close = close;
    functions.query = query;
    functions.get_eoa = get_eoa;
    functions.set_eoa = set_eoa;
    functions.get_eof = get_eof;
    functions.read = read;
    functions.write = write;
    functions.truncate = truncate;
    return H5FDregister(&functions);
  }();
  return id;
}

}  // namespace

void MemoryImage::use_for(hid_t access) {
  const AccessInfo info{this};
  H5Pset_driver(access, driver(), &info);
}

void MemoryImage::write(std::uint64_t address, const char* bytes, std::size_t count) {
  each_page(address, count,
            [&](std::uint64_t page, std::uint64_t within, std::size_t done, std::size_t part) {
              std::vector<char>& content = pages_[page];
              content.resize(page_bytes);
              std::memcpy(content.data() + within, bytes + done, part);
            });
  size = std::max(size, address + count);
}

void MemoryImage::read(std::uint64_t address, char* bytes, std::size_t count) const {
  each_page(address, count,
            [&](std::uint64_t page, std::uint64_t within, std::size_t done, std::size_t part) {
              const auto content = pages_.find(page);
              if (content == pages_.end()) {
                std::memset(bytes + done, 0, part);
              } else {
                std::memcpy(bytes + done, content->second.data() + within, part);
              }
            });
}

void MemoryImage::save(const std::string& path) const {
  {
    const Descriptor made(::open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0666));
    if (made.number() < 0 || ::ftruncate(made.number(), static_cast<off_t>(size)) != 0) {
      throw failure(path, ": cannot be written: ", std::strerror(errno));
    }
  }
  const PlacedWriter file(path);
  for (const auto& [page, content] : pages_) {
    const std::uint64_t begin = page * page_bytes, end = std::min(size, begin + page_bytes);
    if (begin < end) file.write(begin, content.data(), end - begin);
  }
}

}  // namespace hearth::hdf5
