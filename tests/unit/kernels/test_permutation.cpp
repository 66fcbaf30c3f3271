#include <numeric>

#include "catch.hpp"
#include "kernels/permutation.hpp"
#include "kernels/reference.hpp"
#include "kernels/rms_norm.hpp"
#include "support.hpp"

using namespace hearth;
using namespace hearth::kernels;
using namespace hearth::testing;

namespace {

struct Shape {
  Index tokens, experts, k, hidden;
};

Shape generate_shape() {
  return GENERATE(Shape{0, 4, 2, 8}, Shape{1, 1, 1, 1}, Shape{5, 3, 3, 33}, Shape{64, 7, 2, 96},
                  Shape{193, 16, 4, 77}, Shape{70, 300, 64, 5});
}

// k different experts for each token, ascending; expert 0 is in high demand.
std::vector<int> random_choice(const Shape& s) {
  std::vector<int> choice;
  for (Index t = 0; t < s.tokens; ++t) {
    const auto score = random_values("score" + std::to_string(t), s.experts);
    std::vector<int> order(s.experts);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return score[a] + (a == 0) > score[b] + (b == 0); });
    std::sort(order.begin(), order.begin() + s.k);
    choice.insert(choice.end(), order.begin(), order.begin() + s.k);
  }
  return choice;
}

// Some of the choices, the first ones of each token: as many as hash to less than a share. After
// them stands -1, and `beyond` copies go to destinations that have no segment.
std::vector<int> some_choices(const Shape& s, int beyond) {
  std::vector<int> choice = random_choice(s);
  for (Index t = 0; t < s.tokens; ++t) {
    const Index used = random_integers("used" + std::to_string(t), 1, static_cast<int>(s.k) + 1)[0];
    int next = static_cast<int>(s.experts);
    for (Index j = used; j < s.k; ++j) {
      choice[t * s.k + j] = j - used < beyond ? next++ : -1;
    }
  }
  return choice;
}

struct DeviceCopies {
  Array2<int> choice, position;
  Array1<int> count;  // of the destinations beyond the experts too
  CopyPlaces places;

  DeviceCopies(const reference::Copies& copies, const Shape& s, Index beyond = 0)
      : choice(to_device<int>(copies.choice, s.tokens, s.k)),
        position(filled_matrix<int>(s.tokens, s.k)),
        count(filled<int>(s.experts + beyond)) {
    count_copies(choice, filled_matrix<int>(row_blocks(s.tokens), s.experts + beyond), count,
                 position);
    places = {choice, position, to_device<int>(copies.segment_begin),
              to_device<int>(copies.segment_rows), count};
  }
};

void add_to(std::vector<double>& a, const std::vector<double>& b) {
  for (std::size_t i = 0; i < a.size(); ++i) a[i] += b[i];
}

}  // namespace

TEST_CASE("copies are counted and placed in the order of tokens") {
  const Shape s = generate_shape();
  CAPTURE(s.tokens, s.experts, s.k);
  const auto copies =
      reference::count_copies(random_choice(s), s.k, s.experts, static_cast<int>(segment_multiple));
  const DeviceCopies device(copies, s);
  CHECK(to_host(device.count) == copies.count);
  CHECK(to_host(device.position) == copies.position);
  CHECK(std::accumulate(copies.count.begin(), copies.count.end(), Index{0}) == s.tokens * s.k);
}

TEST_CASE("tokens are counted by the number of their copies") {
  const Shape s{64, 7, 2, 1};
  const auto choice = some_choices(s, 0);
  std::vector<std::int64_t> expected(s.k + 1, 5);
  for (Index t = 0; t < s.tokens; ++t) {
    ++expected[(choice[t * s.k] >= 0 ? 1 : 0) + (choice[t * s.k + 1] >= 0 ? 1 : 0)];
  }
  const auto count = filled<std::int64_t>(s.k + 1, 5);
  count_tokens_by_copies(to_device<int>(choice, s.tokens, s.k), count);
  CHECK(to_host(count) == expected);
  CHECK(expected[0] > 5);
}

TEMPLATE_TEST_CASE("dispatch, combine and their adjoints agree with the reference", "", bfloat16,
                   float, double) {
  using T = TestType;
  const Shape s = generate_shape();
  // All copies; or some that are missing or stay where they are; and segments longer than copies.
  const int beyond = GENERATE(0, 1);
  CAPTURE(s.tokens, s.experts, s.k, s.hidden, beyond);
  const auto copies =
      reference::count_copies(beyond == 0 ? random_choice(s) : some_choices(s, beyond), s.k,
                              s.experts, static_cast<int>(segment_multiple), beyond == 0 ? 0 : 40);
  const DeviceCopies device(copies, s, beyond);
  const auto x = rounded<T>(random_values("x", s.tokens * s.hidden));
  const auto dy = rounded<T>(random_values("dy", s.tokens * s.hidden));
  const auto gate = rounded<Real<T>>(random_values("gate", s.tokens * s.k));
  // The experts' outputs; those of padding rows are used nowhere.
  const auto outputs = rounded<T>(random_values("outputs", copies.rows * s.hidden));
  const auto device_outputs = to_device<T>(outputs, copies.rows, s.hidden);
  const auto device_gate = to_device<Real<T>>(gate, s.tokens, s.k);

  const auto rows = filled_matrix<T>(copies.rows, s.hidden);
  dispatch<T>(to_device<T>(x, s.tokens, s.hidden), device.places, {}, rows);
  CHECK(relative_difference_of(rows, reference::dispatch(x, s.hidden, copies)) == 0);

  auto y = x;  // combine adds to what is there
  add_to(y, reference::combine(outputs, s.hidden, copies, gate));
  const auto device_y = to_device<T>(x, s.tokens, s.hidden);
  combine<T>(device_outputs, device.places, device_gate, device_y);
  CHECK(deviation_of(device_y, y) < tolerance<T>());

  const auto expected = reference::combine_backward(dy, outputs, s.hidden, copies, gate);
  const auto device_dy = to_device<T>(dy, s.tokens, s.hidden);
  const auto drows = filled_matrix<T>(copies.rows, s.hidden);
  const auto dgate = filled_matrix<Real<T>>(s.tokens, s.k);
  combine_backward<T>(device_dy, device_outputs, device.places, device_gate, drows, dgate);
  CHECK(deviation_of(drows, expected.drows) < tolerance<T>());
  CHECK(relative_difference_of(dgate, expected.dgate) < tolerance<T>());

  auto dx = x;
  add_to(dx, reference::dispatch_backward(outputs, s.hidden, copies));
  const auto device_dx = to_device<T>(x, s.tokens, s.hidden);
  dispatch_backward<T>(device_outputs, device.places, {}, device_dx);
  CHECK(deviation_of(device_dx, dx) < tolerance<T>());

  // Gates before the experts: x and the outputs change places.
  const auto scaled = filled_matrix<T>(copies.rows, s.hidden);
  dispatch<T>(device_dy, device.places, device_gate, scaled);
  CHECK(deviation_of(scaled, expected.drows) < tolerance<T>());
  const auto scaled_dx = to_device<T>(x, s.tokens, s.hidden);
  dispatch_backward<T>(device_outputs, device.places, device_gate, scaled_dx);
  CHECK(same_bits(to_host(scaled_dx), to_host(device_y)));
  const auto gate_before = filled_matrix<Real<T>>(s.tokens, s.k);
  dispatch_gate_backward<T>(device_dy, device_outputs, device.places, gate_before);
  CHECK(same_bits(to_host(gate_before), to_host(dgate)));
  const auto plain = filled_matrix<T>(copies.rows, s.hidden);
  combine_backward<T>(device_dy, device_outputs, device.places, {}, plain, dgate);
  CHECK(relative_difference_of(plain, reference::dispatch(dy, s.hidden, copies)) == 0);
  CHECK(same_bits(to_host(gate_before), to_host(dgate)));  // left alone

  // In place.
  const auto again = filled_matrix<Real<T>>(s.tokens, s.k);
  combine_backward<T>(device_dy, device_outputs, device.places, device_gate, device_outputs, again);
  CHECK(same_bits(to_host(device_outputs), to_host(drows)));
  CHECK(same_bits(to_host(again), to_host(dgate)));
}

TEST_CASE("permutation: the reference's adjoints are its derivatives") {
  const Shape s{6, 4, 2, 3};
  const auto copies =
      reference::count_copies(random_choice(s), s.k, s.experts, static_cast<int>(segment_multiple));
  const auto x = random_values("x", s.tokens * s.hidden);
  const auto dy = random_values("dy", s.tokens * s.hidden);
  const auto gate = random_values("gate", s.tokens * s.k);
  const auto rows = random_values("rows", copies.rows * s.hidden);

  const auto gradients = reference::combine_backward(dy, rows, s.hidden, copies, gate);
  const auto by_rows = complex_step(rows, [&](const std::vector<Complex>& z) {
    return dot(reference::combine(z, s.hidden, copies, complex(gate)), dy);
  });
  const auto by_gate = complex_step(gate, [&](const std::vector<Complex>& z) {
    return dot(reference::combine(complex(rows), s.hidden, copies, z), dy);
  });
  CHECK(relative_difference(gradients.drows, by_rows) < 1e-13);
  CHECK(relative_difference(gradients.dgate, by_gate) < 1e-13);

  const auto by_x = complex_step(x, [&](const std::vector<Complex>& z) {
    return dot(reference::dispatch(z, s.hidden, copies), rows);
  });
  CHECK(relative_difference(reference::dispatch_backward(rows, s.hidden, copies), by_x) < 1e-13);
}

TEST_CASE("combine: a token's sum does not depend on the other tokens") {
  const Shape s{90, 8, 3, 50};
  const Index token = 71;
  const auto choice = random_choice(s);
  const auto outputs = random_values("outputs", s.tokens * s.k * s.hidden);  // by copy
  const auto gate = random_values("gate", s.tokens * s.k);
  const auto run = [&](Index begin, Index tokens) {
    const Shape part{tokens, s.experts, s.k, s.hidden};
    const auto copies = reference::count_copies(slice(choice, begin * s.k, tokens * s.k), s.k,
                                                s.experts, static_cast<int>(segment_multiple));
    const DeviceCopies device(copies, part);
    std::vector<double> rows(copies.rows * s.hidden);
    for (Index copy = 0; copy < tokens * s.k; ++copy) {
      for (Index h = 0; h < s.hidden; ++h) {
        rows[copies.row(copy) * s.hidden + h] = outputs[(begin * s.k + copy) * s.hidden + h];
      }
    }
    const auto y = filled_matrix<float>(tokens, s.hidden, 0.125);
    combine<float>(to_device<float>(rows, copies.rows, s.hidden), device.places,
                   to_device<float>(slice(gate, begin * s.k, tokens * s.k), tokens, s.k), y);
    return to_host(y);
  };
  CHECK(same_bits(run(token, 1), slice(run(0, s.tokens), token * s.hidden, s.hidden)));
}
