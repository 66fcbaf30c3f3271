#include <cstdint>

#include "base/error.hpp"
#include "catch.hpp"
#include "model/activations.hpp"

using namespace hearth;

namespace {

std::string message_of_taking(Activations& activations, Index rows, Index width) {
  try {
    (void)activations.take<double>("received rows", rows, width);
  } catch (const Error& error) {
    CHECK(error.status() == Status::failure);
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("what is taken does not overlap and is aligned") {
  Activations activations;
  struct Part {
    const char *begin, *end;
  };
  std::vector<Part> parts;
  // Many blocks: each is larger than those before it together.
  for (Index rows = 1; rows < 1000000; rows *= 7) {
    const Array2<float> a = activations.take<float>("a", rows, 3);
    const Array1<int> b = activations.take<int>("b", rows);
    CHECK(a.extent(0) == static_cast<std::size_t>(rows));
    CHECK(a.extent(1) == 3);
    CHECK(b.extent(0) == static_cast<std::size_t>(rows));
    const auto* begin = reinterpret_cast<const char*>(a.data());
    parts.push_back({begin, begin + a.size() * sizeof(float)});
    begin = reinterpret_cast<const char*>(b.data());
    parts.push_back({begin, begin + b.size() * sizeof(int)});
  }
  for (const Part& one : parts) {
    CHECK(reinterpret_cast<std::uintptr_t>(one.begin) % Activations::alignment == 0);
    for (const Part& other : parts) {
      if (&one != &other) CHECK((one.end <= other.begin || other.end <= one.begin));
    }
  }
}

TEST_CASE("a scope gives back what was taken in it, the high-water mark stays") {
  Activations activations;
  (void)activations.take<char>("kept", 64);
  const float* first = nullptr;
  {
    const Activations::Scope scope(activations);
    first = activations.take<float>("scratch", 100, 10).data();
    CHECK(activations.in_use_bytes() == 64 + 4032);  // rounded up to 64
  }
  CHECK(activations.in_use_bytes() == 64);
  CHECK(activations.take<float>("scratch", 5).data() == first);
  CHECK(activations.take<float>("nothing", 0, 5).extent(1) == 5);
  CHECK(activations.in_use_bytes() == 128);
  CHECK(activations.high_water_bytes() == 64 + 4032);
}

TEST_CASE("memory is kept between cells, in one block once its size is known") {
  Activations activations;
  const auto run_cell = [&](Index rows) {
    activations.clear();
    const char* place = activations.take<char>("first", 100).data();
    for (int i = 0; i < 6; ++i) (void)activations.take<char>("rows", rows);
    return place;
  };
  (void)run_cell(1 << 20);
  const char* const place = run_cell(1 << 20);  // in one block from here on
  const Index held = activations.held_bytes();
  for (const Index rows : {1 << 20, 1 << 10, 0, 1 << 20}) {
    CHECK(run_cell(rows) == place);
    CHECK(activations.held_bytes() == held);
  }
  CHECK(held >= activations.high_water_bytes());
  CHECK(held <= activations.high_water_bytes() * 17 / 16 + Activations::alignment);
  // More rows than ever: what is held grows by a bounded part more than is needed.
  (void)run_cell(2 << 20);
  (void)run_cell(2 << 20);
  CHECK(activations.held_bytes() <= activations.high_water_bytes() * 17 / 16 + 64);
}

TEST_CASE("a counting stack has shapes and no memory") {
  Activations counted = Activations::counting();
  const Array2<double> huge = counted.take<double>("huge", Index{1} << 40, 10);
  CHECK(huge.extent(0) == std::size_t{1} << 40);
  CHECK(huge.data() == nullptr);
  CHECK(counted.high_water_bytes() == Index{80} << 40);
  CHECK(counted.held_bytes() == 0);
}

TEST_CASE("no memory: the error says where, for what and how much, and what would help") {
  Activations activations;
  activations.enter("layer 3");
  activations.set_limit_bytes(4 << 20);
  (void)activations.take<char>("others", 1 << 20);
  const std::string expected =
      "layer 3: no memory for 'received rows', 4096 rows of 1024 bytes: 4194304 bytes (4.0 MiB) "
      "beside 1.0 MiB of activations; a smaller batch.cell_sequences, more parallel.expert_ranks "
      "or model.recompute = block would need less";
  CHECK(message_of_taking(activations, 4096, 128) == expected);
  // What does fit is given although a block of the usual growth would not.
  CHECK(message_of_taking(activations, 3072, 128) == "no error");

  // The same from the device itself.
  Activations unlimited;
  CHECK(message_of_taking(unlimited, Index{1} << 40, 1 << 10).find("no memory for") !=
        std::string::npos);
}
