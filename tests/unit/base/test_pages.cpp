#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/pages.hpp"
#include "catch.hpp"

using namespace hearth;

// Ranges that begin and end inside pages, at their borders, within one page, and across huge ones.
TEST_CASE("cleared memory reads as zero, and its neighbours stay") {
  constexpr std::size_t page = 4096, bytes = 6u << 20;
  std::vector<unsigned char> memory(bytes);
  const std::size_t first_page =
      (page - reinterpret_cast<std::uintptr_t>(memory.data()) % page) % page;
  const std::size_t begin = first_page + GENERATE(std::size_t{1} * page, page - 1, page + 1);
  const std::size_t length =
      GENERATE(std::size_t{0}, std::size_t{1}, std::size_t{100}, std::size_t{4096},
               std::size_t{4097}, std::size_t{3} * 4096 - 1, std::size_t{5} << 20);
  CAPTURE(begin - first_page, length);
  std::fill(memory.begin(), memory.end(), static_cast<unsigned char>(7));
  advise_huge_pages(memory.data() + begin, length);
  clear_pages(memory.data() + begin, length);
  std::size_t zeros = 0, others = 0;
  for (std::size_t i = 0; i < bytes; ++i) {
    const bool inside = i >= begin && i < begin + length;
    zeros += inside && memory[i] == 0 ? 1 : 0;
    others += !inside && memory[i] == 7 ? 1 : 0;
  }
  CHECK(zeros == length);
  CHECK(others == bytes - length);
  // It is ordinary memory again.
  if (length > 0) memory[begin] = 1;
  CHECK((length == 0 || memory[begin] == 1));
}
