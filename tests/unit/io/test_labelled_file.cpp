#include <cmath>
#include <filesystem>
#include <numeric>

#include "catch.hpp"
#include "io/hdf5.hpp"
#include "io/labelled_file.hpp"
#include "io/replace_file.hpp"
#include "unit/io/checkpoint_fixture.hpp"

using namespace hearth;
using namespace hearth::fixture;

namespace {

std::vector<LabelledArray> some_arrays() {
  std::vector<std::int64_t> counts(3 * 2 * 1000);
  std::iota(counts.begin(), counts.end(), -5);
  return {
      {"/step",
       {3},
       {"step"},
       "steps",
       "last step of the interval",
       std::vector<std::int64_t>{10, 20, 30}},
      {"/layer", {2}, {"layer"}, "1", "layer", std::vector<std::int32_t>{1, 4}},
      {"/source", {2}, {"source"}, "1", "data source", std::vector<std::string>{"wiki", "größe"}},
      {"/counts",
       {3, 2, 1000},
       {"step", "layer", "expert"},
       "token copies",
       "sent to each expert",
       counts,
       true,
       -1.0},
      {"/loss",
       {3, 2},
       {"step", "source"},
       "nat",
       "mean loss",
       std::vector<double>{1, 2.5, NAN, 4, 5, 6},
       false,
       NAN},
      {"/probe/position", {4}, {"position"}, "tokens", "", std::vector<float>{0, 1, 2, 3}},
      {"/probe/choice",
       {4, 2},
       {"position", "layer"},
       "1",
       "",
       std::vector<std::int32_t>{0, 1, 2, 3, 4, 5, 6, 7}},
      {"/probe/later",
       {0, 4},
       {"step", "position"},
       "1",
       "no rows yet",
       std::vector<float>{},
       true},
  };
}

// Equal, with NaN equal to NaN.
bool same(const LabelledArray::Values& a, const LabelledArray::Values& b) {
  return std::visit(
      [](const auto& x, const auto& y) {
        if constexpr (std::is_same_v<decltype(x), decltype(y)>) {
          return std::equal(
              x.begin(), x.end(), y.begin(), y.end(),
              [](const auto& p, const auto& q) { return p == q || (p != p && q != q); });
        }
        return false;
      },
      a, b);
}

}  // namespace

TEST_CASE("a labelled file comes back") {
  const TemporaryFolder folder;
  const std::string path = folder / "routing.h5";
  const LabelledAttributes attributes = {{"deck", "[run]\n"}, {"version", ""}};
  const std::vector<LabelledArray> arrays = some_arrays();
  for (int version = 0; version < 2; ++version) {
    write_labelled_file(path, attributes, arrays);
    CHECK_FALSE(std::filesystem::exists(temporary_name(path)));
    const LabelledFile file = read_labelled_file(path);
    CHECK(file.attributes == attributes);
    REQUIRE(file.arrays.size() == arrays.size());
    for (std::size_t i = 0; i < arrays.size(); ++i) {
      const LabelledArray &found = file.arrays[i], &wanted = arrays[i];
      INFO(wanted.path);
      CHECK(found.path == wanted.path);
      CHECK(found.dims == wanted.dims);
      CHECK(found.axes == wanted.axes);
      CHECK(found.units == wanted.units);
      CHECK(found.description == wanted.description);
      CHECK(same(found.values, wanted.values));
      CHECK(found.fill_value.has_value() == wanted.fill_value.has_value());
      CHECK(found.compress == (wanted.compress && wanted.dims[0] > 0));
    }
  }
}

TEST_CASE("axes have their scales") {
  const TemporaryFolder folder;
  const std::string path = folder / "routing.h5";
  write_labelled_file(path, {}, some_arrays());
  // HDF5 lists in a scale's REFERENCE_LIST the axes that it was attached to.
  const hdf5::File file = hdf5::File::open(path);
  for (const char* scale : {"/step", "/layer", "/source", "/probe/position"}) {
    CHECK(file.get_text(scale, "CLASS") == "DIMENSION_SCALE");
    CHECK(file.has_attribute(scale, "REFERENCE_LIST"));
  }
  CHECK(file.has_attribute("/counts", "DIMENSION_LIST"));
  CHECK_FALSE(file.has_attribute("/counts", "CLASS"));
}

TEST_CASE("equal contents make equal files") {
  const TemporaryFolder folder;
  write_labelled_file(folder / "a.h5", {{"deck", "x"}}, some_arrays());
  write_labelled_file(folder / "b.h5", {{"deck", "x"}}, some_arrays());
  CHECK(read_bytes(folder / "a.h5") == read_bytes(folder / "b.h5"));
}

TEST_CASE("a failure leaves the old version") {
  const TemporaryFolder folder;
  const std::string path = folder / "training.h5";
  write_labelled_file(path, {}, some_arrays());
  const std::string before = read_bytes(path);
  std::vector<LabelledArray> arrays = some_arrays();
  arrays[1].dims = {5};
  int status = 0;
  CHECK(message_of([&] { write_labelled_file(path, {}, arrays); }, &status) ==
        path + ": /layer: has 2 values and 1 axis names for 1 axes of 5 elements");
  CHECK(status == 1);
  CHECK(read_bytes(path) == before);
  CHECK_FALSE(std::filesystem::exists(temporary_name(path)));

  std::filesystem::resize_file(path, before.size() / 2);
  CHECK(message_of([&] { (void)read_labelled_file(path); }, &status).find(path + ": ") == 0);
  CHECK(status == 2);
}
