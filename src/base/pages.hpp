// The pages behind large arrays on the host: huge ones mean fewer page faults when memory is first
// touched, and fewer misses of the address cache after.
#pragma once

#include <cstddef>

namespace hearth {

// Asks the system for huge pages in the whole ones of [data, data + bytes), which nobody has
// touched yet. No more than a wish: without effect where the system gives none.
void advise_huge_pages(void* data, std::size_t bytes);

// Sets [data, data + bytes), memory that the program has from the system's allocator, to zero.
// Whole pages are given back instead: they read as zero, and cost no time and no memory until they
// are used.
void clear_pages(void* data, std::size_t bytes);

}  // namespace hearth
