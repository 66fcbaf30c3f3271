// The mixture of experts: route, dispatch, experts, combine. The one model file that communicates.
#pragma once

#include <optional>

#include "kernels/balance_loss.hpp"
#include "kernels/router.hpp"
#include "model/device_cell.hpp"
#include "model/diagnostics.hpp"
#include "model/feed_forward.hpp"
#include "parallel/device_exchange.hpp"

namespace hearth {

template <class T>
class MoeLayer {
 public:
  // `name`: the layer's prefix in the tensor table; `number`: among the layers with experts.
  MoeLayer(const Config& config, const Parameters<T>& parameters, const std::string& name,
           Index number, const ExpertPlacement& placement, const DeviceExchange& exchange,
           Workspace<T>& workspace);

  // y += Σ gate · expert(x) + shared(x). Every rank of the exchange calls it, also with no tokens.
  // With `sums`, losses and statistics are recorded there. x must live until backward.
  void forward(const DeviceCell& cell, const StepTokens& step, const Array2<const T>& x,
               const Array2<T>& y, StepSums* sums, IntervalCounts* counts);

  // dx = the adjoint, balance and z losses included; adds the weights' gradients to their sums.
  void backward(const DeviceCell& cell, const Array2<const T>& dy, const Array2<T>& dx);

  // The experts chosen in the last forward pass, ascending.                 (tokens, k)
  [[nodiscard]] const Array2<int>& choice() const { return choice_; }

 private:
  // Where the copies of the last forward pass went.
  struct Route {
    std::vector<Index> sent_rows, received_rows;          // (expert_ranks), padding included
    std::vector<std::vector<kernels::Segment>> segments;  // (expert_ranks): by home rank
    Index sent = 0, received = 0;                         // sums of the above
  };

  void choose_experts(const DeviceCell& cell, const StepTokens& step, StepSums* sums,
                      IntervalCounts* counts);
  void plan_exchange(Index tokens);
  void run_experts();
  void run_experts_backward(const Array2<const T>& dy, const Array2<T>& dx);
  [[nodiscard]] std::vector<kernels::Segment> all_segments() const;

  Workspace<T>& workspace_;
  const ExpertPlacement& placement_;
  const DeviceExchange& exchange_;
  MoeConfig moe_;
  Index number_;

  Array2<const T> router_;  // (experts, hidden)
  kernels::GradientSum router_gradient_;
  ExpertWeights<T> gate_, up_, down_;  // (local_experts, ffn, hidden) …, down (…, hidden, ffn)
  std::optional<FeedForward<T>> shared_;

  Array2<const T> x_;  // (tokens, hidden)
  kernels::RouterLossScale loss_scale_{};
  Array2<int> choice_, position_;       // (tokens, k)
  Array1<int> count_, segment_begin_;   // (experts)
  Array2<T> probability_, gate_value_;  // (tokens, experts), (tokens, k)
  Array1<double> slope_;                // (experts)
  kernels::RouterSums router_sums_;
  Route route_;
  GrowingArray<int> choice_rows_{"choice"}, position_rows_{"position"}, partial_counts_{"partial"};
  GrowingArray<T> logits_{"router logits"}, probability_rows_{"probability"}, gate_rows_{"gates"},
      log_sum_{"router log sum"}, dgate_{"d gates"};
  GrowingArray<double> partial_sums_{"partial sums"};
  GrowingArray<T> sent_{"sent rows"}, received_{"received rows"};  // (rows, hidden)
  GrowingArray<T> returned_{"returned rows"}, outputs_{"expert outputs"};
  GrowingArray<T> expert_gate_{"expert gate"}, expert_up_{"expert up"};  // (rows, ffn)
};

}  // namespace hearth
