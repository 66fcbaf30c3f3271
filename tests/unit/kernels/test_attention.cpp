#include "catch.hpp"
#include "kernels/attention.hpp"
#include "kernels/reference.hpp"
#include "support.hpp"

using namespace hearth;
using namespace hearth::kernels;
using namespace hearth::testing;

namespace {

using Segments = std::vector<AttentionSegment>;

template <class T>
struct Problem {
  reference::AttentionShape shape;
  std::vector<double> q, k, v, dout;

  explicit Problem(const reference::AttentionShape& s)
      : shape(s),
        q(rounded<T>(random_values("q", s.queries * s.heads * s.head_dim))),
        k(rounded<T>(random_values("k", s.keys * s.kv_heads * s.head_dim))),
        v(rounded<T>(random_values("v", s.keys * s.kv_heads * s.head_dim))),
        dout(rounded<T>(random_values("dout", s.queries * s.heads * s.head_dim))) {}
};

template <class T>
struct Result {
  std::vector<T> out, dq, dk, dv;
  std::vector<Real<T>> log_sum;
};

constexpr double untouched = -77;

// Those that can be run here.
template <class T>
std::vector<AttentionMethod> methods() {
  std::vector<AttentionMethod> list{AttentionMethod::by_block};
  if (attention_method<T> != AttentionMethod::by_block) {
    list.push_back(AttentionMethod::by_segment);
    if (std::is_same_v<T, bfloat16>) list.push_back(AttentionMethod::in_pairs);
  }
  return list;
}

template <class T>
Result<T> run(const Problem<T>& p, const Segments& segments,
              AttentionMethod method = attention_method<T>) {
  const auto& s = p.shape;
  const AttentionPlan plan(segments);
  const Index width = s.heads * s.head_dim, kv_width = s.kv_heads * s.head_dim;
  const auto q = to_device<T>(p.q, s.queries, width), k = to_device<T>(p.k, s.keys, kv_width),
             v = to_device<T>(p.v, s.keys, kv_width), dout = to_device<T>(p.dout, s.queries, width);
  const auto out = filled_matrix<T>(s.queries, width, untouched),
             dq = filled_matrix<T>(s.queries, width, untouched);
  const auto dk = filled_matrix<T>(s.keys, kv_width, untouched),
             dv = filled_matrix<T>(s.keys, kv_width, untouched);
  const auto log_sum = filled_matrix<Real<T>>(s.queries, s.heads, untouched);
  const auto dq_sum = filled_matrix<Real<T>>(s.queries, attention_needs_dq_sum<T> ? width : 0);
  attention<T>(plan, q, k, v, s.head_dim, s.scale, out, log_sum, method);
  attention_backward<T>(plan, dout, q, k, v, out, log_sum, s.head_dim, s.scale,
                        filled_matrix<Real<T>>(s.queries, s.heads), dq, dk, dv, dq_sum, method);
  return {to_host(out), to_host(dq), to_host(dk), to_host(dv), to_host(log_sum)};
}

// Of sums of rows weighted with probabilities, each of which may be rounded to bfloat16: off by up
// to 2⁻⁹ of itself. Gradients of scores are then too, but that is less than what they are allowed.
template <class T>
double tolerance_of_averages(AttentionMethod method) {
  return tolerance<T>() + (method == AttentionMethod::in_pairs ? 0x1p-9 : 0.0);
}

template <class T>
void compare(const reference::AttentionShape& shape, const Segments& segments) {
  const Problem<T> p(shape);
  const auto expected = reference::attention(segments, shape, p.q, p.k, p.v);
  const auto gradients = reference::attention_backward(segments, shape, p.dout, p.q, p.k, p.v);
  for (const AttentionMethod method : methods<T>()) {
    const Result<T> got = run(p, segments, method);
    const double averaged = tolerance_of_averages<T>(method);
    CHECK(deviation(got.out, expected.out) < averaged);
    CHECK(relative_difference(got.log_sum, expected.log_sum) < tolerance<T>());
    // The gradients of a query with one key are differences of equal numbers. The kernel takes
    // dout · out of the rounded out.
    constexpr double with_out = tolerance<T>() + (std::is_same_v<T, Real<T>> ? 0.0 : 0x1p-7);
    CHECK(deviation(got.dq, gradients.dq, 0.1) < with_out);
    CHECK(deviation(got.dk, gradients.dk, 0.1) < with_out);
    CHECK(deviation(got.dv, gradients.dv) < averaged);
  }
}

// The rows [begin, begin + rows) of an array whose rows have `width` elements.
template <class T>
std::vector<T> rows_of(const std::vector<T>& a, Index width, Index begin, Index rows) {
  return slice(a, begin * width, rows * width);
}

}  // namespace

TEMPLATE_TEST_CASE("attention and its adjoint agree with the reference", "", bfloat16, float,
                   double) {
  using T = TestType;
  SECTION("one sequence") {
    const Index length = GENERATE(1, 2, 31, 32, 33, 64, 65, 150, 291);
    CAPTURE(length);
    compare<T>({length, length, 2, 2, 16, 0.25}, {{0, length, 0, length}});
  }
  SECTION("head dimensions") {
    const Index head_dim = GENERATE(1, 2, 6, 7, 10, 17, 32, 48, 64, 128, 130);
    CAPTURE(head_dim);
    compare<T>({70, 70, 1, 1, head_dim, 0.2}, {{0, 70, 0, 70}});
  }
  SECTION("grouped queries") {
    const Index kv_heads = GENERATE(1, 2, 3, 6);
    CAPTURE(kv_heads);
    compare<T>({45, 45, 6, kv_heads, 8, 0.4}, {{0, 45, 0, 45}});
    compare<T>({170, 170, 6, kv_heads, 16, 0.3}, {{0, 170, 0, 170}});
  }
  SECTION("packed sequences, documents, an empty one") {
    compare<T>({100, 100, 2, 1, 8, 0.4},
               {{0, 33, 0, 33}, {33, 34, 33, 34}, {34, 34, 34, 34}, {34, 100, 34, 100}});
  }
  SECTION("a key-value cache: fewer queries than keys") {
    compare<T>({6, 140, 4, 2, 8, 0.4}, {{0, 1, 0, 35}, {1, 4, 35, 101}, {4, 6, 101, 140}});
  }
  SECTION("two texts that share their context's keys") {
    const Segments segments{{0, 40, 0, 40}, {40, 50, 0, 40}};
    const Problem<T> p({50, 40, 1, 1, 8, 0.4});
    const auto expected = reference::attention(segments, p.shape, p.q, p.k, p.v);
    const AttentionPlan plan(segments);
    const auto out = filled_matrix<T>(50, 8);
    const auto log_sum = filled_matrix<Real<T>>(50, 1);
    attention<T>(plan, to_device<T>(p.q, 50, 8), to_device<T>(p.k, 40, 8), to_device<T>(p.v, 40, 8),
                 8, 0.4, out, log_sum);
    CHECK(deviation_of(out, expected.out) < tolerance_of_averages<T>(attention_method<T>));
  }
}

TEST_CASE("attention: the reference's adjoint is its derivative") {
  const Segments segments{{0, 3, 0, 3}, {3, 5, 3, 7}};
  const Problem<double> p({5, 7, 2, 1, 4, 0.5});
  const auto loss = [&](const auto& q, const auto& k, const auto& v) {
    return dot(reference::attention(segments, p.shape, q, k, v).out, p.dout);
  };
  const auto gradients = reference::attention_backward(segments, p.shape, p.dout, p.q, p.k, p.v);
  using Z = std::vector<Complex>;
  const Z q = complex(p.q), k = complex(p.k), v = complex(p.v);
  const auto by_q = complex_step(p.q, [&](const Z& z) { return loss(z, k, v); });
  const auto by_k = complex_step(p.k, [&](const Z& z) { return loss(q, z, v); });
  const auto by_v = complex_step(p.v, [&](const Z& z) { return loss(q, k, z); });
  CHECK(relative_difference(gradients.dq, by_q) < 1e-13);
  CHECK(relative_difference(gradients.dk, by_k) < 1e-13);
  CHECK(relative_difference(gradients.dv, by_v) < 1e-13);
}

TEMPLATE_TEST_CASE("attention: a document's result does not depend on its neighbours", "", bfloat16,
                   float, double) {
  using T = TestType;
  const Index heads = 4, kv_heads = 2, head_dim = 16, length = 231;
  const Segments documents{
      {0, 51, 0, 51}, {51, 52, 51, 52}, {52, 129, 52, 129}, {129, 231, 129, 231}};
  const Problem<T> all({length, length, heads, kv_heads, head_dim, 0.25});
  const AttentionMethod method = GENERATE(from_range(methods<TestType>()));
  const Result<T> together = run(all, documents, method);
  for (const AttentionSegment& document : documents) {
    const Index begin = document.query_begin, rows = document.query_end - begin;
    Problem<T> alone({rows, rows, heads, kv_heads, head_dim, 0.25});
    alone.q = rows_of(all.q, heads * head_dim, begin, rows);
    alone.k = rows_of(all.k, kv_heads * head_dim, begin, rows);
    alone.v = rows_of(all.v, kv_heads * head_dim, begin, rows);
    alone.dout = rows_of(all.dout, heads * head_dim, begin, rows);
    const Result<T> one = run(alone, {{0, rows, 0, rows}}, method);
    CHECK(same_bits(one.out, rows_of(together.out, heads * head_dim, begin, rows)));
    CHECK(same_bits(one.log_sum, rows_of(together.log_sum, heads, begin, rows)));
    CHECK(same_bits(one.dq, rows_of(together.dq, heads * head_dim, begin, rows)));
    CHECK(same_bits(one.dk, rows_of(together.dk, kv_heads * head_dim, begin, rows)));
    CHECK(same_bits(one.dv, rows_of(together.dv, kv_heads * head_dim, begin, rows)));
  }
}

TEMPLATE_TEST_CASE("attention leaves rows outside all segments alone", "", bfloat16, float) {
  using T = TestType;
  const AttentionMethod method = GENERATE(from_range(methods<TestType>()));
  const Problem<T> p({50, 60, 1, 1, 8, 0.3});
  const Result<T> got = run(p, {{5, 41, 10, 50}}, method);
  const auto is_untouched = [](const std::vector<T>& a, Index begin, Index rows) {
    const auto part = rows_of(a, 8, begin, rows);
    return std::all_of(part.begin(), part.end(),
                       [](T x) { return x == static_cast<float>(static_cast<T>(untouched)); });
  };
  CHECK((is_untouched(got.out, 0, 5) && is_untouched(got.out, 41, 9)));
  CHECK((is_untouched(got.dq, 0, 5) && is_untouched(got.dq, 41, 9)));
  CHECK((is_untouched(got.dk, 0, 10) && is_untouched(got.dk, 50, 10)));
  CHECK((is_untouched(got.dv, 0, 10) && is_untouched(got.dv, 50, 10)));
}

TEMPLATE_TEST_CASE("attention: queries before the first key have no output and no gradient", "",
                   bfloat16, float, double) {
  using T = TestType;
  const AttentionMethod method = GENERATE(from_range(methods<TestType>()));
  const Problem<T> p({40, 3, 1, 1, 4, 0.5});
  const Result<T> got = run(p, {{0, 40, 0, 3}}, method);
  const std::vector<double> zero(37 * 4, 0.0);
  CHECK(relative_difference(rows_of(got.out, 4, 0, 37), zero) == 0);
  CHECK(relative_difference(rows_of(got.dq, 4, 0, 37), zero) == 0);
  CHECK(got.log_sum[36] == -std::numeric_limits<Real<T>>::infinity());
  const auto expected = reference::attention({{37, 40, 0, 3}}, p.shape, p.q, p.k, p.v);
  CHECK(deviation(rows_of(got.out, 4, 37, 3), rows_of(expected.out, 4, 37, 3)) <
        tolerance_of_averages<T>(method));
}

TEST_CASE("attention of an empty plan does nothing") {
  run(Problem<float>({0, 0, 2, 1, 8, 0.3}), {});
  run(Problem<float>({3, 3, 2, 1, 8, 0.3}), {{1, 1, 2, 2}});
}

TEST_CASE("attention: bits", "[.bits]") {
  const Problem<bfloat16> p({230, 230, 4, 2, 16, 0.3});
  std::uint64_t bits = 0;
  for (const AttentionMethod method : methods<bfloat16>()) {
    const auto got = run(p, {{0, 81, 0, 81}, {81, 230, 81, 230}}, method);
    for (const auto& values : {got.out, got.dq, got.dk, got.dv}) bits = combine_bits(bits, values);
    bits = combine_bits(bits, got.log_sum);
  }
  print_bits(bits);
}

TEST_CASE("attention: the bits do not depend on the number of threads") {
  const std::string one = bits_with_threads("attention: bits", 1);
  CHECK(one != "");
  CHECK(one == bits_with_threads("attention: bits", 2));
  CHECK(one == bits_with_threads("attention: bits", 5));
}
