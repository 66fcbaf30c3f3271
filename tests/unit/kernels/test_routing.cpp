// Scores, selection, gates, balance and sums. What routers make of them:
// unit/model/test_routers.cpp.
#include "catch.hpp"
#include "kernels/reference.hpp"
#include "kernels/rms_norm.hpp"
#include "kernels/routing/balance.hpp"
#include "kernels/routing/selection.hpp"
#include "kernels/routing/sums.hpp"
#include "support.hpp"

using namespace hearth;
using namespace hearth::kernels;
using namespace hearth::testing;

namespace {

struct Shape {
  Index tokens, experts, k;
};

Shape generate_shape() {
  return GENERATE(Shape{0, 8, 2}, Shape{1, 1, 1}, Shape{7, 5, 5}, Shape{64, 33, 3},
                  Shape{131, 64, 6}, Shape{3, 512, 64});
}

// top_k routing.
template <class T>
struct Routed {
  Array2<T> logits, affinity, gate;
  Array2<int> choice;
  Array1<T> log_sum;
  GateRule rule;

  Routed(const std::vector<double>& z, const Shape& s, Score kind = Score::softmax)
      : logits(to_device<T>(z, s.tokens, s.experts)),
        affinity(filled_matrix<T>(s.tokens, s.experts)),
        gate(filled_matrix<T>(s.tokens, s.k)),
        choice(filled_matrix<int>(s.tokens, s.k)),
        log_sum(filled<T>(s.tokens)),
        rule{kind, false, 1, static_cast<int>(s.experts)} {
    score<T>(kind, logits, affinity, log_sum);
    select_top_k<T>(affinity, {}, gate, choice);
    take_gates<T>(rule, logits, affinity, choice, choice, gate);
  }

  Array2<T> backward(const std::vector<double>& dgate, const AffinitySlope& slope, double z_scale,
                     const Shape& s) const {
    const auto dlogits = filled_matrix<T>(s.tokens, s.experts);
    const auto dscore = to_device<T>(dgate, s.tokens, s.k);
    gates_backward<T>(rule, logits, affinity, choice, choice, gate, dscore, dscore);
    score_backward<T>(rule.score, logits, affinity, log_sum, choice, dscore, slope, z_scale,
                      dlogits);
    return dlogits;
  }
};

template <class T>
RouterSums sums_of(const Routed<T>& routed, const Shape& s, const AffinitySlope& slope) {
  const RouterSums sums(s.experts);
  sum_router<T>(routed.logits, routed.affinity, routed.log_sum, routed.choice, routed.gate, slope,
                filled_matrix<double>(row_blocks(s.tokens), router_sum_columns(s.experts)), sums);
  return sums;
}

AffinitySlope no_slope(const Shape& s) {
  return {filled_matrix<double>(1, s.experts, 0), std::max<Index>(1, s.tokens)};
}

}  // namespace

TEMPLATE_TEST_CASE("scores and sums of a router agree with the reference", "", float, double) {
  using T = TestType;
  const Shape s = generate_shape();
  const Score kind = GENERATE(Score::softmax, Score::sigmoid, Score::relu);
  CAPTURE(s.tokens, s.experts, s.k, static_cast<int>(kind));
  const auto z = rounded<T>(random_values("logits", s.tokens * s.experts, 2));
  const Index group_tokens = 40, groups = (s.tokens + group_tokens - 1) / group_tokens + 1;
  const auto slope = random_values("slope", groups * s.experts);
  const auto expected = reference::score(kind, z, s.tokens, s.experts);

  const Routed<T> routed(z, s, kind);
  CHECK(relative_difference_of(routed.affinity, expected.affinity) < tolerance<T>());
  CHECK(relative_difference_of(routed.log_sum, expected.log_sum) < tolerance<T>());
  const auto sums = sums_of(routed, s, {to_device<double>(slope, groups, s.experts), group_tokens});

  std::vector<double> affinity(s.experts, 0.0), gate(s.experts, 0.0);
  double entropy = 0, z_squared = 0, balance = 0, norm = 0;
  for (Index t = 0; t < s.tokens; ++t) {
    const std::vector<double> a = slice(expected.affinity, t * s.experts, s.experts);
    for (const int e : reference::largest(a, s.k)) {
      gate[e] += expected.score[t * s.experts + e];
    }
    double mass = 0, square = 0;
    for (Index e = 0; e < s.experts; ++e) {
      affinity[e] += a[e];
      mass += a[e];
      balance += a[e] * slope[t / group_tokens * s.experts + e];
      square += z[t * s.experts + e] * z[t * s.experts + e];
    }
    for (const double x : a) entropy -= x > 0 ? x / mass * std::log(x / mass) : 0;
    z_squared += expected.log_sum[t] * expected.log_sum[t];
    norm += std::sqrt(square);
  }
  const double scale = tolerance<T>();
  CHECK(relative_difference_of(sums.affinity, affinity) < scale);
  CHECK(relative_difference_of(sums.gate, gate) < scale);
  // One expert is certain: its entropy is zero up to rounding.
  CHECK(std::abs(to_host(sums.entropy)[0] - entropy) < scale * std::max(1.0, entropy));
  CHECK(relative_difference_of(sums.z_squared, {z_squared}) < scale);
  CHECK(std::abs(to_host(sums.balance)[0] - balance) < scale * static_cast<double>(s.tokens + 1));
  CHECK(relative_difference_of(sums.logit_norm, {norm}) < scale);
}

TEST_CASE("routing: the entropy of near-certain, even and impossible choices") {
  const Shape s{3, 100, 2};
  std::vector<double> logits(s.tokens * s.experts, 0.0);
  logits[7] = 9;                                                      // p = 1 - 0.012
  for (Index e = 40; e < 100; ++e) logits[2 * s.experts + e] = -1e4;  // p = 0
  const double rare = 1 / (99 + std::exp(9.0));
  const double expected = -99 * rare * std::log(rare) - (1 - 99 * rare) * std::log1p(-99 * rare) +
                          std::log(100.0) + std::log(40.0);
  const Routed<float> single(logits, s);
  CHECK(to_host(sums_of(single, s, no_slope(s)).entropy)[0] == Approx(expected).epsilon(1e-6));
  const Routed<double> oracle(logits, s);
  CHECK(to_host(sums_of(oracle, s, no_slope(s)).entropy)[0] == Approx(expected).epsilon(1e-13));
}

TEST_CASE("routing: ties go to the lower expert") {
  const Shape s{3, 40, 4};
  std::vector<double> logits(s.tokens * s.experts, 0.25);  // all equal
  for (const int e : {7, 19, 20, 33, 39}) logits[s.experts + e] = 1;
  for (const int e : {3, 38}) logits[2 * s.experts + e] = 2;
  const Routed<float> routed(logits, s);
  CHECK(to_host(routed.choice) ==
        std::vector<int>{0, 1, 2, 3, /**/ 7, 19, 20, 33, /**/ 0, 1, 3, 38});
}

TEST_CASE("routing: choices are valid whatever the logits") {
  const Shape s{4, 5, 3};
  const double infinity = std::numeric_limits<double>::infinity();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<double> logits{nan,  nan,       nan,       nan,       nan,  //
                                   1,    nan,       2,         3,         4,    //
                                   -1e4, 1e4,       0,         -infinity, 1e4,  //
                                   0,    -infinity, -infinity, -infinity, -infinity};
  const Routed<float> routed(logits, s);
  const auto choice = to_host(routed.choice);
  for (Index t = 0; t < s.tokens; ++t) {
    for (Index j = 0; j < s.k; ++j) {
      const int e = choice[t * s.k + j];
      CHECK((e >= 0 && e < s.experts));
      CHECK((j == 0 || e > choice[t * s.k + j - 1]));
    }
  }
  // Extreme logits of finite probability: exact, without overflow.
  CHECK(slice(choice, 2 * s.k, s.k) == std::vector<int>{0, 1, 4});
  CHECK(slice(to_host(routed.gate), 2 * s.k, s.k) == std::vector<float>{0, 0.5, 0.5});
  CHECK(slice(to_host(routed.gate), 3 * s.k, s.k) == std::vector<float>{1, 0, 0});
  CHECK(to_host(routed.log_sum)[3] == 0);
}

TEST_CASE("routing: of groups, those with the best two experts are used") {
  // Three groups of three: the second has the best expert, the others the better pairs.
  const std::vector<double> value{5, 1, 4, /**/ 7, 0, 1, /**/ 2, 6, 6.5};
  const auto choice = filled_matrix<int>(1, 3);
  const auto scratch = filled_matrix<double>(1, 3);
  select_top_k<double>(to_device<double>(value, 1, 9), {3, 2}, scratch, choice);
  CHECK(to_host(choice) == std::vector<int>{0, 7, 8});
  select_top_k<double>(to_device<double>(value, 1, 9), {3, 1}, scratch, choice);
  CHECK(to_host(choice) == std::vector<int>{6, 7, 8});
  select_top_k<double>(to_device<double>(value, 1, 9), {1, 1}, scratch, choice);
  CHECK(to_host(choice) == std::vector<int>{3, 7, 8});
}

TEST_CASE("routing: hashed choices are distinct and even, and the keys' alone") {
  constexpr Index tokens = 3000, experts = 10, k = 3;
  std::vector<std::uint64_t> key(tokens);
  for (Index t = 0; t < tokens; ++t) key[t] = mix_bits(static_cast<std::uint64_t>(t % 1500));
  const auto device = uninitialized<Array1<std::uint64_t>>("key", tokens);
  Kokkos::deep_copy(device, Kokkos::View<std::uint64_t*, Kokkos::HostSpace>(key.data(), tokens));
  const auto choice = filled_matrix<int>(tokens, k);
  select_hashed(device, experts, choice);
  const auto chosen = to_host(choice);
  std::vector<int> count(experts, 0);
  for (Index t = 0; t < tokens; ++t) {
    for (Index j = 0; j < k; ++j) {
      ++count[chosen[t * k + j]];
      CHECK((j == 0 || chosen[t * k + j] > chosen[t * k + j - 1]));
    }
  }
  CHECK(slice(chosen, 0, 1500 * k) == slice(chosen, 1500 * k, 1500 * k));
  // 900 each, but for about five standard deviations.
  for (const int c : count) CHECK(std::abs(c - 900) < 2 * 5 * 18);
}

TEST_CASE("routing: the balance loss's slopes are coefficient times share of the load") {
  constexpr Index tokens = 6, destinations = 5;
  const std::vector<int> choice{0, 1, /**/ 0, 3, /**/ 0, -1, /**/ 1, 4, /**/ 3, 4, /**/ -1, -1};
  const Index group_tokens = GENERATE(6, 3);
  const Index groups = tokens / group_tokens;
  const auto count = filled_matrix<int>(groups, destinations);
  count_groups(to_device<int>(choice, tokens, 2), group_tokens, count);
  const std::vector<int> expected = groups == 1 ? std::vector<int>{3, 2, 0, 2, 2}
                                                : std::vector<int>{3, 1, 0, 1, 0, 0, 1, 0, 1, 2};
  REQUIRE(to_host(count) == expected);

  // Three experts, then two light ones; both are null and share their load.
  const double copies_of_token = GENERATE(0.0, 2.0);
  const BalanceRule rule{0.7, 12, copies_of_token, 3, 3, 0.25};
  const auto slope = filled_matrix<double>(groups, destinations);
  balance_slopes(rule, group_tokens, count, slope);
  std::vector<double> slopes;
  for (Index g = 0; g < groups; ++g) {
    const auto c = slice(expected, g * destinations, destinations);
    const double copies = copies_of_token > 0 ? copies_of_token * static_cast<double>(group_tokens)
                                              : c[0] + c[1] + c[2] + c[3] + c[4];
    for (Index e = 0; e < destinations; ++e) {
      const double load = e < 3 ? c[e] : 0.25 * 0.5 * (c[3] + c[4]);
      slopes.push_back(0.7 * destinations * load / copies / 12);
    }
  }
  CHECK(relative_difference_of(slope, slopes) < 1e-14);

  const auto earlier = filled_matrix<double>(1, destinations);
  balance_slopes(rule, to_device<double>(std::vector<double>{0.5, 0.2, 0.1, 0.1, 0.1}), earlier);
  CHECK(relative_difference_of(earlier, {0.7 * 5 * 0.5 / 12, 0.7 * 5 * 0.2 / 12, 0.7 * 5 * 0.1 / 12,
                                         0.7 * 5 * 0.025 / 12, 0.7 * 5 * 0.025 / 12}) < 1e-14);
}

TEST_CASE("routing: a token's result does not depend on the other tokens") {
  const Shape s{37, 64, 6};
  const Index token = 29;
  const auto logits = random_values("logits", s.tokens * s.experts);
  const auto dgate = random_values("dgate", s.tokens * s.k);
  const auto slope = to_device<double>(random_values("slope", s.experts), 1, s.experts);
  const auto run = [&](Index begin, Index tokens) {
    const Shape part{tokens, s.experts, s.k};
    const Routed<float> routed(slice(logits, begin * s.experts, tokens * s.experts), part);
    return std::vector{to_host(routed.affinity),
                       to_host(routed.backward(slice(dgate, begin * s.k, tokens * s.k),
                                               {slope, tokens}, 0.3, part))};
  };
  const auto all = run(0, s.tokens), one = run(token, 1);
  for (std::size_t i = 0; i < all.size(); ++i) {
    CHECK(same_bits(one[i], slice(all[i], token * s.experts, s.experts)));
  }
}

TEST_CASE("routing: bits", "[.bits]") {
  const Shape s{1000, 48, 4};
  const Routed<float> routed(random_values("logits", s.tokens * s.experts), s);
  const AffinitySlope slope{to_device<double>(random_values("slope", s.experts), 1, s.experts),
                            s.tokens};
  const auto sums = sums_of(routed, s, slope);
  std::uint64_t bits = combine_bits(0, to_host(sums.affinity));
  for (const auto& sum : {sums.gate, sums.entropy, sums.z_squared, sums.balance, sums.logit_norm}) {
    bits = combine_bits(bits, to_host(sum));
  }
  print_bits(bits);
}

TEST_CASE("routing: the sums' bits do not depend on the number of threads") {
  const std::string one = bits_with_threads("routing: bits", 1);
  CHECK(one != "");
  CHECK(one == bits_with_threads("routing: bits", 2));
  CHECK(one == bits_with_threads("routing: bits", 8));
}
