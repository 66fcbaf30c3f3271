// Large arrays on the host in large pages: fewer page faults when they are first touched, and
// fewer misses of the address cache after.
#pragma once

#include <cstddef>

namespace hearth {

// Asks the system for huge pages in the whole ones of [data, data + bytes), which nobody has
// touched yet. No more than a wish: without effect where the system gives none.
void advise_huge_pages(void* data, std::size_t bytes);

}  // namespace hearth
