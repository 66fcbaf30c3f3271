#include "catch.hpp"
#include "kernels/reference.hpp"
#include "kernels/rms_norm.hpp"
#include "kernels/router.hpp"
#include "support.hpp"

using namespace hearth;
using namespace hearth::kernels;
using namespace hearth::testing;

namespace {

constexpr double z_scale = 0.3;

struct Shape {
  Index tokens, experts, k;
};

Shape generate_shape() {
  return GENERATE(Shape{0, 8, 2}, Shape{1, 1, 1}, Shape{7, 5, 5}, Shape{64, 33, 3},
                  Shape{131, 64, 6}, Shape{3, 512, 64});
}

template <class T>
struct Routing {
  Array2<T> probability, gate;
  Array2<int> choice;
  Array1<T> log_sum;

  Routing(const std::vector<double>& logits, const Shape& s)
      : probability(filled_matrix<T>(s.tokens, s.experts)),
        gate(filled_matrix<T>(s.tokens, s.k)),
        choice(filled_matrix<int>(s.tokens, s.k)),
        log_sum(filled<T>(s.tokens)) {
    route_top_k<T>(to_device<T>(logits, s.tokens, s.experts), probability, choice, gate, log_sum);
  }

  Array2<T> backward(const std::vector<double>& dgate, const std::vector<double>& slope,
                     const Shape& s) const {
    const auto dlogits = filled_matrix<T>(s.tokens, s.experts);
    route_top_k_backward<T>(to_device<T>(dgate, s.tokens, s.k), probability, choice, log_sum,
                            to_device<double>(slope), z_scale, dlogits);
    return dlogits;
  }
};

template <class T>
RouterSums sums_of(const Routing<T>& routing, const Shape& s) {
  const RouterSums sums{filled<double>(s.experts), filled<double>(1), filled<double>(1)};
  sum_router<T>(routing.probability, routing.log_sum,
                filled_matrix<double>(row_blocks(s.tokens), s.experts + 2), sums);
  return sums;
}

}  // namespace

TEMPLATE_TEST_CASE("the router, its sums and its adjoint agree with the reference", "", float,
                   double) {
  using T = TestType;
  const Shape s = generate_shape();
  CAPTURE(s.tokens, s.experts, s.k);
  const auto logits = rounded<T>(random_values("logits", s.tokens * s.experts, 2));
  const auto dgate = rounded<T>(random_values("dgate", s.tokens * s.k));
  const auto slope = rounded<T>(random_values("slope", s.experts));
  const auto expected = reference::route_top_k(logits, s.tokens, s.experts, s.k);

  const Routing<T> routing(logits, s);
  CHECK(to_host(routing.choice) == expected.choice);
  CHECK(relative_difference_of(routing.probability, expected.probability) < tolerance<T>());
  CHECK(relative_difference_of(routing.gate, expected.gate) < tolerance<T>());
  CHECK(relative_difference_of(routing.log_sum, expected.log_sum) < tolerance<T>());

  const auto dlogits = routing.backward(dgate, slope, s);
  CHECK(relative_difference_of(dlogits, reference::route_top_k_backward(dgate, expected, slope,
                                                                        z_scale, s.tokens, s.k)) <
        tolerance<T>());

  const auto sums = sums_of(routing, s);
  const auto expected_sums = reference::sum_router(expected, s.tokens, s.experts);
  CHECK(relative_difference_of(sums.probability_mass, expected_sums.probability_mass) <
        tolerance<T>());
  // One expert is certain: its entropy is zero up to rounding.
  CHECK(std::abs(to_host(sums.entropy)[0] - expected_sums.entropy) <
        tolerance<T>() * std::max(1.0, expected_sums.entropy));
  CHECK(relative_difference_of(sums.z_squared, {expected_sums.z_squared}) < tolerance<T>());
}

TEST_CASE("router: the reference's adjoint is its derivative") {
  const Shape s{4, 9, 3};
  const auto logits = random_values("logits", s.tokens * s.experts);
  const auto dgate = random_values("dgate", s.tokens * s.k);
  const auto slope = random_values("slope", s.experts);
  const auto derivative = complex_step(logits, [&](const std::vector<Complex>& z) {
    const auto routed = reference::route_top_k(z, s.tokens, s.experts, s.k);
    const auto sums = reference::sum_router(routed, s.tokens, s.experts);
    return dot(routed.gate, dgate) + dot(sums.probability_mass, slope) +
           0.5 * z_scale * sums.z_squared;
  });
  const auto routed = reference::route_top_k(logits, s.tokens, s.experts, s.k);
  const auto dlogits =
      reference::route_top_k_backward(dgate, routed, slope, z_scale, s.tokens, s.k);
  CHECK(relative_difference(dlogits, derivative) < 1e-13);
}

TEST_CASE("router: the entropy of near-certain, even and impossible choices") {
  const Shape s{3, 100, 2};
  std::vector<double> logits(s.tokens * s.experts, 0.0);
  logits[7] = 9;                                                      // p = 1 - 0.012
  for (Index e = 40; e < 100; ++e) logits[2 * s.experts + e] = -1e4;  // p = 0
  const double rare = 1 / (99 + std::exp(9.0));
  const double expected = -99 * rare * std::log(rare) - (1 - 99 * rare) * std::log1p(-99 * rare) +
                          std::log(100.0) + std::log(40.0);
  const Routing<float> single(logits, s);
  CHECK(to_host(sums_of(single, s).entropy)[0] == Approx(expected).epsilon(1e-6));
  const Routing<double> oracle(logits, s);
  CHECK(to_host(sums_of(oracle, s).entropy)[0] == Approx(expected).epsilon(1e-13));
}

TEST_CASE("router: ties go to the lower expert") {
  const Shape s{3, 40, 4};
  std::vector<double> logits(s.tokens * s.experts, 0.25);  // all equal
  for (const int e : {7, 19, 20, 33, 39}) logits[s.experts + e] = 1;
  for (const int e : {3, 38}) logits[2 * s.experts + e] = 2;
  const Routing<float> routing(logits, s);
  CHECK(to_host(routing.choice) ==
        std::vector<int>{0, 1, 2, 3, /**/ 7, 19, 20, 33, /**/ 0, 1, 3, 38});
}

TEST_CASE("router: choices are valid whatever the logits") {
  const Shape s{4, 5, 3};
  const double infinity = std::numeric_limits<double>::infinity();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<double> logits{nan,  nan,       nan,       nan,       nan,  //
                                   1,    nan,       2,         3,         4,    //
                                   -1e4, 1e4,       0,         -infinity, 1e4,  //
                                   0,    -infinity, -infinity, -infinity, -infinity};
  const Routing<float> routing(logits, s);
  const auto choice = to_host(routing.choice);
  for (Index t = 0; t < s.tokens; ++t) {
    for (Index j = 0; j < s.k; ++j) {
      const int e = choice[t * s.k + j];
      CHECK((e >= 0 && e < s.experts));
      CHECK((j == 0 || e > choice[t * s.k + j - 1]));
    }
  }
  // Extreme logits of finite probability: exact, without overflow.
  CHECK(slice(choice, 2 * s.k, s.k) == std::vector<int>{0, 1, 4});
  CHECK(slice(to_host(routing.gate), 2 * s.k, s.k) == std::vector<float>{0, 0.5, 0.5});
  CHECK(slice(to_host(routing.gate), 3 * s.k, s.k) == std::vector<float>{1, 0, 0});
  CHECK(to_host(routing.log_sum)[3] == 0);
}

TEST_CASE("router: a token's result does not depend on the other tokens") {
  const Shape s{37, 64, 6};
  const Index token = 29;
  const auto logits = random_values("logits", s.tokens * s.experts);
  const auto dgate = random_values("dgate", s.tokens * s.k);
  const auto slope = random_values("slope", s.experts);
  const auto run = [&](Index begin, Index tokens) {
    const Shape part{tokens, s.experts, s.k};
    const Routing<float> routing(slice(logits, begin * s.experts, tokens * s.experts), part);
    return std::vector{
        to_host(routing.probability),
        to_host(routing.backward(slice(dgate, begin * s.k, tokens * s.k), slope, part))};
  };
  const auto all = run(0, s.tokens), one = run(token, 1);
  for (std::size_t i = 0; i < all.size(); ++i) {
    CHECK(same_bits(one[i], slice(all[i], token * s.experts, s.experts)));
  }
}

TEST_CASE("router: bits", "[.bits]") {
  const Shape s{1000, 48, 4};
  const Routing<float> routing(random_values("logits", s.tokens * s.experts), s);
  const auto sums = sums_of(routing, s);
  std::uint64_t bits = combine_bits(0, to_host(sums.probability_mass));
  bits = combine_bits(bits, to_host(sums.entropy));
  print_bits(combine_bits(bits, to_host(sums.z_squared)));
}

TEST_CASE("router: the sums' bits do not depend on the number of threads") {
  const std::string one = bits_with_threads("router: bits", 1);
  CHECK(one != "");
  CHECK(one == bits_with_threads("router: bits", 2));
  CHECK(one == bits_with_threads("router: bits", 8));
}
