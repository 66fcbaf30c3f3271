#include <algorithm>
#include <cmath>

#include "bench/cases.hpp"
#include "bench/random_array.hpp"
#include "kernels/adam.hpp"
#include "kernels/attention.hpp"
#include "kernels/cross_entropy.hpp"
#include "kernels/fixed_point.hpp"
#include "kernels/matmul/matmul.hpp"
#include "kernels/permutation.hpp"
#include "kernels/rms_norm.hpp"
#include "kernels/routing/gates.hpp"
#include "kernels/routing/selection.hpp"
#include "kernels/routing/sums.hpp"
#include "kernels/statistics.hpp"
#include "kernels/swiglu.hpp"
#include "model/transformer.hpp"

namespace hearth::bench {

namespace {

using namespace hearth::kernels;

template <class T>
void attention_pass(const Config& config, const Measure& measure) {
  const ModelConfig& m = config.model;
  const Index tokens = config.cell_tokens(), heads = m.heads, head_dim = m.head_width();
  const Index width = heads * head_dim, kv_width = m.key_value_heads() * head_dim;
  std::vector<AttentionSegment> segments;
  for (Index begin = 0; begin < tokens; begin += m.sequence_length) {
    const Index end = begin + m.sequence_length;
    segments.push_back({begin, end, begin, end});
  }
  const AttentionPlan plan(segments);
  const auto q = random_array<T>("q", tokens, width), k = random_array<T>("k", tokens, kv_width),
             v = random_array<T>("v", tokens, kv_width),
             dout = random_array<T>("dout", tokens, width);
  const auto out = uninitialized<Array2<T>>("out", tokens, width),
             dq = uninitialized<Array2<T>>("dq", tokens, width),
             dk = uninitialized<Array2<T>>("dk", tokens, kv_width),
             dv = uninitialized<Array2<T>>("dv", tokens, kv_width);
  const auto log_sum = uninitialized<Array2<Real<T>>>("log_sum", tokens, heads),
             delta = uninitialized<Array2<Real<T>>>("delta", tokens, heads),
             dq_sum = uninitialized<Array2<Real<T>>>("dq_sum",
                                                     attention_needs_dq_sum<T> ? tokens : 0, width);
  const double scale = 1 / std::sqrt(static_cast<double>(head_dim));
  const double pairs = 0.5 * static_cast<double>(tokens * (m.sequence_length + 1));
  const double product = 2.0 * pairs * static_cast<double>(width);
  measure("attention", 2 * product,
          [&] { attention<T>(plan, q, k, v, head_dim, scale, out, log_sum); });
  measure("attention backward", 5 * product, [&] {
    attention_backward<T>(plan, dout, q, k, v, out, log_sum, head_dim, scale, delta, dq, dk, dv,
                          dq_sum);
  });
}

template <class T>
void rows_pass(const Config& config, const Measure& measure) {
  const Index tokens = config.cell_tokens(), hidden = config.model.hidden;
  const auto x = random_array<T>("x", tokens, hidden), dy = random_array<T>("dy", tokens, hidden);
  const auto y = uninitialized<Array2<T>>("y", tokens, hidden);
  const auto weight = random_array<T>("weight", 1, hidden);
  const Array1<const T> w(weight.data(), hidden);
  const auto inverse_rms = uninitialized<Array1<Real<T>>>("inverse_rms", tokens);
  const auto dweight = uninitialized<Array1<Real<T>>>("dweight", hidden);
  const auto partial = uninitialized<Array2<Real<T>>>("partial", row_blocks(tokens), hidden);
  measure("norm", 0, [&] { rms_norm<T>(x, w, 1e-6, y, inverse_rms); });
  measure("norm backward", 0,
          [&] { rms_norm_backward<T>(dy, x, w, inverse_rms, y, dweight, partial); });
  const Index ffn = config.model.dense_ffn;
  const auto gate = random_array<T>("gate", tokens, ffn), up = random_array<T>("up", tokens, ffn);
  const auto inner = uninitialized<Array2<T>>("inner", tokens, ffn);
  measure("SwiGLU", 0, [&] { swiglu<T>(gate, up, inner); });
  measure("SwiGLU backward", 0, [&] { swiglu_backward<T>(inner, gate, up, inner, inner); });
}

// What `train` counts of a layer's choices beside what the losses need.
void statistics_pass(const Config& config, const Measure& measure, const Array2<const int>& choice,
                     const Array1<const int>& count) {
  const Index tokens = config.cell_tokens(), experts = config.moe.experts.at(0);
  const Index vocabulary = config.model.vocabulary;
  // Token ids about as uneven as text: Zipf's law.
  const auto deviate = random_array<double>("token", 1, tokens);
  const auto host_deviate = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), deviate);
  const Array1<int> token("token", tokens), source("source", tokens);
  const auto host_token = Kokkos::create_mirror_view(token);
  for (Index t = 0; t < tokens; ++t) {
    const double uniform = 0.5 * std::erfc(host_deviate(0, t) / std::sqrt(2.0));
    const double id = std::pow(static_cast<double>(vocabulary), uniform) - 1;
    host_token(t) = static_cast<int>(std::min<Index>(static_cast<Index>(id), vocabulary - 1));
  }
  Kokkos::deep_copy(token, host_token);
  const Array1<std::int64_t> total("total", experts);
  const Array2<std::int64_t> pairs("pairs", experts, experts), by_source("by source", 1, experts),
      by_token("by token", vocabulary, experts);
  measure("routing statistics", 0, [&] {
    add_counts(count, total);
    count_pairs(choice, pairs);
    count_labelled(source, choice, by_source);
    count_labelled(token, choice, by_token);
  });
}

// The router and the permutation; returns the rows of each expert.
template <class T>
std::vector<Index> router_pass(const Config& config, const Measure& measure) {
  using R = Real<T>;
  const Index tokens = config.cell_tokens(), hidden = config.model.hidden;
  const Index experts = config.moe.experts.at(0), k = config.moe.top_k.at(0);
  const Index blocks = row_blocks(tokens);
  const auto logits = random_array<R>("logits", tokens, experts),
             dlogits = uninitialized<Array2<R>>("dlogits", tokens, experts),
             affinity = uninitialized<Array2<R>>("affinity", tokens, experts),
             gate = uninitialized<Array2<R>>("gate", tokens, k),
             dgate = uninitialized<Array2<R>>("dgate", tokens, k);
  const auto log_sum = uninitialized<Array1<R>>("log_sum", tokens);
  const auto choice = uninitialized<Array2<int>>("choice", tokens, k),
             position = uninitialized<Array2<int>>("position", tokens, k),
             counts = uninitialized<Array2<int>>("partial counts", blocks, experts);
  const auto sums =
      uninitialized<Array2<double>>("partial sums", blocks, router_sum_columns(experts));
  const Array1<int> count("count", experts), segment_begin("segment begin", experts),
      segment_rows("segment rows", experts);
  const AffinitySlope slope{Array2<double>("slope", 1, experts), tokens};
  const RouterSums totals(experts);
  const GateRule rule{Score::softmax, false, 1, static_cast<int>(experts)};
  measure("router: softmax and top-k", 0, [&] {
    score<R>(rule.score, logits, affinity, log_sum);
    select_top_k<R>(affinity, {}, gate, choice);
    take_gates<R>(rule, logits, affinity, choice, choice, gate);
  });
  measure("router: counts and sums", 0, [&] {
    count_copies(choice, counts, count, position);
    sum_router<R>(logits, affinity, log_sum, choice, gate, slope, sums, totals);
  });
  statistics_pass(config, measure, choice, count);
  measure("router backward", 0, [&] {
    gates_backward<R>(rule, logits, affinity, choice, choice, gate, dgate, dgate);
    score_backward<R>(rule.score, logits, affinity, log_sum, choice, dgate, slope, 1e-3, dlogits);
  });

  const auto host_count = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), count);
  const auto host_begin = Kokkos::create_mirror_view(segment_begin),
             host_rows = Kokkos::create_mirror_view(segment_rows);
  std::vector<Index> segments;
  Index rows = 0;
  for (Index e = 0; e < experts; ++e) {
    host_begin(e) = static_cast<int>(rows);
    rows += segments.emplace_back(padded_rows(host_count(e)));
    host_rows(e) = static_cast<int>(segments.back());
  }
  Kokkos::deep_copy(segment_begin, host_begin);
  Kokkos::deep_copy(segment_rows, host_rows);
  const CopyPlaces places{choice, position, segment_begin, segment_rows, count};
  const auto x = random_array<T>("x", tokens, hidden);
  const auto y = uninitialized<Array2<T>>("y", tokens, hidden);
  const auto copies = uninitialized<Array2<T>>("copies", rows, hidden);
  measure("dispatch", 0, [&] { dispatch<T>(x, places, {}, copies); });
  measure("combine", 0, [&] { combine<T>(copies, places, gate, y); });
  measure("combine backward", 0,
          [&] { combine_backward<T>(x, copies, places, gate, copies, dgate); });
  measure("dispatch backward", 0, [&] { dispatch_backward<T>(copies, places, {}, y); });
  return segments;
}

template <class T>
void experts_pass(const Config& config, const Measure& measure, const std::vector<Index>& rows_of) {
  const Index hidden = config.model.hidden, ffn = config.moe.expert_ffn;
  const Index experts = config.moe.experts.at(0);
  std::vector<Segment> segments;
  Index rows = 0;
  for (Index e = 0; e < experts; ++e) {
    segments.push_back({rows, rows_of[static_cast<std::size_t>(e)], e});
    rows += segments.back().rows;
  }
  const auto x = random_array<T>("x", rows, hidden);
  const auto y = uninitialized<Array2<T>>("y", rows, ffn);
  const auto weights = random_array<T>("weights", experts * ffn, hidden, 0.02);
  const auto gradients = uninitialized<Array2<Real<T>>>("gradients", experts * ffn, hidden);
  const MatrixStack<const T> stack{weights.data(), ffn * hidden, ffn, hidden};
  const MatrixStack<Real<T>> sums{gradients.data(), ffn * hidden, ffn, hidden};
  // Of the copies: rows of padding cost time, but are no work.
  const Index copies = config.cell_tokens() * config.moe.top_k.at(0);
  const double flops = 2.0 * static_cast<double>(copies * hidden * ffn);
  Matmul matmul;
  measure("experts: one product", flops, [&] { matmul.grouped_nt<T>(x, stack, y, segments); });
  measure("experts: one input gradient", flops,
          [&] { matmul.grouped_nn<T>(y, stack, x, segments); });
  measure("experts: one weight gradient", flops,
          [&] { matmul.grouped_tn<T>(y, x, sums, segments); });
  const Array1<std::int64_t> fixed("sum", gradients.size());
  const Array2<std::int64_t> overflow("overflow", 1, 2);
  measure("gradient sum of one stack", 0, [&] {
    add_gradient<Real<T>>(Array1<const Real<T>>(gradients.data(), gradients.size()),
                          GradientSum<Real<T>>{{fixed, {}}, overflow, 1});
  });
}

// The head's work for one chunk of rows and one block of the vocabulary.
template <class T>
void head_pass(const Config& config, const Measure& measure) {
  const Index rows = head_chunk_rows, hidden = config.model.hidden;
  const Index columns = std::min(config.model.vocabulary, head_block_tokens);
  const auto x = random_array<T>("x", rows, hidden);
  const auto head = random_array<T>("head", columns, hidden, 0.02);
  const auto logits = uninitialized<Array2<Real<T>>>("logits", rows, columns),
             dhead = uninitialized<Array2<Real<T>>>("dhead", columns, hidden),
             dx = uninitialized<Array2<Real<T>>>("dx", rows, hidden);
  const auto exponential = uninitialized<Array2<T>>("exponential", rows, columns);
  const Array1<int> target("target", rows);
  const Array1<double> loss("loss", rows);
  const SoftmaxSums<Real<T>> sums{
      uninitialized<Array2<Real<T>>>("largest", rows, 1), Array2<double>("sum", rows, 1),
      Array1<double>("target logit", rows), Array1<double>("log sum", rows)};
  const double flops = 2.0 * static_cast<double>(rows * hidden * columns);
  Matmul matmul;
  measure("head: logits of a block", flops, [&] { matmul.multiply_nt<T>(x, head, logits); });
  measure("cross-entropy of a block", 0, [&] {
    softmax_block<T>(logits, target, 0, 0, sums, exponential);
    cross_entropy(sums, Array1<const int>(target), loss);
    cross_entropy_gradient<T>(sums, target, 0, 0, 1e-3, exponential);
  });
  measure("head: input gradient of a block", flops,
          [&] { matmul.multiply_nn<T>(exponential, head, dx, Output::add); });
  measure("head: weight gradient of a block", flops,
          [&] { matmul.multiply_tn<T>(exponential, x, dhead, Output::add); });
}

template <class T>
void update_pass(const Config& config, const Measure& measure) {
  const Index elements =
      whole_blocks(config.model.vocabulary * config.model.hidden) * block_elements;
  const Array1<std::int64_t> gradient("gradient", elements);
  const Array1<std::uint8_t> decay("decay", elements / block_elements);
  const Array1<Real<T>> weight("weight", elements), first("first", elements),
      second("second", elements);
  Array1<T> rounded;
  if constexpr (!std::is_same_v<T, Real<T>>) rounded = Array1<T>("rounded", elements);
  measure("squared norm of one embedding", 0, [&] { (void)squared_norm<std::int64_t>(gradient); });
  measure("Adam of one embedding", 0, [&] {
    adam<T, std::int64_t>({1e-3, 0.9, 0.99, 1e-8, 0.1, 0.1, 0.01, 1}, gradient, decay, weight,
                          first, second, rounded);
  });
}

}  // namespace

template <class T>
void kernels(const Config& config, const Measure& measure) {
  attention_pass<T>(config, measure);
  rows_pass<T>(config, measure);
  if (config.moe_layers() > 0) {
    const std::vector<Index> rows = router_pass<T>(config, measure);
    experts_pass<T>(config, measure, rows);
  }
  head_pass<T>(config, measure);
  update_pass<T>(config, measure);
}

template void kernels<float>(const Config&, const Measure&);
template void kernels<double>(const Config&, const Measure&);
template void kernels<bfloat16>(const Config&, const Measure&);

}  // namespace hearth::bench
