#include "base/pages.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

namespace hearth {

namespace {

// The whole pages of [data, data + bytes).
struct WholePages {
  char *begin, *end;

  WholePages(void* data, std::size_t bytes, std::uintptr_t page) {
    const auto address = reinterpret_cast<std::uintptr_t>(data);
    begin = reinterpret_cast<char*>((address + page - 1) / page * page);
    end = reinterpret_cast<char*>((address + bytes) / page * page);
  }
  [[nodiscard]] bool any() const { return begin < end; }
  [[nodiscard]] std::size_t bytes() const { return static_cast<std::size_t>(end - begin); }
};

}  // namespace

void advise_huge_pages(void* data, std::size_t bytes) {
  const WholePages pages(data, bytes, std::uintptr_t{1} << 21);
  if (pages.any()) ::madvise(pages.begin, pages.bytes(), MADV_HUGEPAGE);
}

void clear_pages(void* data, std::size_t bytes) {
  const WholePages pages(data, bytes, static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE)));
  if (!pages.any() || ::madvise(pages.begin, pages.bytes(), MADV_DONTNEED) != 0) {
    std::memset(data, 0, bytes);
    return;
  }
  auto* const first = static_cast<char*>(data);
  std::memset(first, 0, static_cast<std::size_t>(pages.begin - first));
  std::memset(pages.end, 0, static_cast<std::size_t>(first + bytes - pages.end));
}

}  // namespace hearth
