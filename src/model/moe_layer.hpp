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

// Token copies of one pass, padding included.
struct ExchangeRows {
  Index sent = 0;      // of this rank's cell, to all experts
  Index received = 0;  // of all cells of the exchange, for this rank's experts
  int ranks = 1;       // of the exchange

  // A rank without others works on its rows where dispatch has put them.
  [[nodiscard]] bool alone() const { return ranks == 1; }
};

template <class T>
class MoeLayer {
 public:
  // `name`: the layer's prefix in the tensor table; `number`: among the layers with experts.
  MoeLayer(const Config& config, const Parameters<T>& parameters, const std::string& name,
           Index number, const ExpertPlacement& placement, const DeviceExchange& exchange,
           Workspace<T>& workspace);

  // y += Σ gate · expert(x) + shared(x). Every rank of the exchange calls it, also with no tokens.
  // `choice` gets the experts chosen, ascending. With `sums`, losses and statistics are recorded
  // there. x and choice must live until backward, which may follow a second forward pass of the
  // same cell without `sums`.
  void forward(const DeviceCell& cell, const StepTokens& step, const Array2<const T>& x,
               const Array2<T>& y, const Array2<int>& choice,  // (tokens, k)
               StepSums* sums, IntervalCounts* counts);

  // dx = the adjoint, balance and z losses included; adds the weights' gradients to their sums.
  void backward(const DeviceCell& cell, const Array2<const T>& dy, const Array2<T>& dx);

  // Rows of the last forward pass.
  [[nodiscard]] ExchangeRows exchange_rows() const {
    return {route_.sent, route_.received, exchange_.communicator().size()};
  }

  // Take from a counting stack what the above take.
  static void count_forward(Activations& activations, const Config& config, Index tokens,
                            const ExchangeRows& rows);
  static void count_backward(Activations& activations, const Config& config, Index tokens,
                             const ExchangeRows& rows, Index local_experts);

 private:
  // Where the copies of the last forward pass went.
  struct Route {
    std::vector<Index> sent_rows, received_rows;          // (expert_ranks), padding included
    std::vector<std::vector<kernels::Segment>> segments;  // (expert_ranks): by home rank
    Index sent = 0, received = 0;                         // sums of the above
  };

  // Kept for backward.
  struct Routing {
    Array2<Real<T>> probability;  // (tokens, experts)
    Array2<Real<T>> gate_value;   // (tokens, k)
    Array2<int> position;         // (tokens, k)
    Array1<Real<T>> log_sum;      // (tokens)
  };
  struct Rows {
    Array2<T> received, returned;  // (received, hidden), (sent, hidden)
    Array2<T> gate, up;            // (received, ffn)
  };
  // Not kept.
  struct RouterScratch {
    Array2<Real<T>> logits;       // (tokens, experts)
    Array2<int> partial_counts;   // (row blocks, experts)
    Array2<double> partial_sums;  // (row blocks, experts + 2)
  };
  static Routing take_routing(Activations& activations, const MoeConfig& moe, Index tokens);
  static Rows take_rows(Activations& activations, const ExchangeRows& rows, Index hidden,
                        Index ffn);
  static RouterScratch take_router_scratch(Activations& activations, const MoeConfig& moe,
                                           Index tokens);
  static Array2<Real<T>> take_router_logits(Activations& activations, const MoeConfig& moe,
                                            Index tokens);
  // What the experts make of the received rows, or its gradient and then theirs.
  static Array2<T> take_outputs(Activations& activations, const ExchangeRows& rows, Index hidden,
                                const Array2<T>& returned = {});
  static Array2<T> take_inner(Activations& activations, Index rows, Index ffn);
  static Array2<Real<T>> take_gate_gradient(Activations& activations, const MoeConfig& moe,
                                            Index tokens);
  static Array1<Real<T>> take_stack_gradient(Activations& activations, Index elements);

  void choose_experts(const DeviceCell& cell, const StepTokens& step, StepSums* sums);
  void count_choices(const DeviceCell& cell, const IntervalCounts& counts) const;
  void plan_exchange(Index tokens, StepSums* sums);
  // Rows to their experts' ranks, or what became of them back home.
  DeviceExchange::Transfer send(const Array2<const T>& rows, const Array2<T>& received);
  DeviceExchange::Transfer send_back(const Array2<const T>& rows, const Array2<T>& returned);
  // The wait for rows, and for slower ranks.
  void finish(DeviceExchange::Transfer& transfer);
  void run_experts(const Array2<T>& y);
  void check_experts(const Array2<const T>& outputs) const;
  // `dx` may be `dy`.
  void run_experts_backward(const Array2<const T>& dy, const Array2<T>& dx);
  void add_weight_gradient(const Array2<const T>& d_out, const Array2<const T>& in,
                           const ExpertWeights<T>& weights);
  // Experts whose weights' gradients are made at a time.
  static Index gradient_experts(Index stride, Index experts);
  [[nodiscard]] std::vector<kernels::Segment> all_segments() const;

  Workspace<T>& workspace_;
  const ExpertPlacement& placement_;
  const DeviceExchange& exchange_;
  MoeConfig moe_;
  Index number_;

  Array2<const T> router_;  // (experts, hidden)
  kernels::GradientSum<Real<T>> router_gradient_;
  ExpertWeights<T> gate_, up_, down_;  // (local_experts, ffn, hidden) …, down (…, hidden, ffn)
  std::optional<FeedForward<T>> shared_;

  Array2<const T> x_;  // (tokens, hidden)
  kernels::RouterLossScale loss_scale_{};
  Array2<int> choice_;                 // (tokens, k)
  Array1<int> count_, segment_begin_;  // (experts)
  Array1<double> slope_;               // (experts)
  kernels::RouterSums router_sums_;
  Route route_;
  Routing routing_;
  Rows rows_;
};

}  // namespace hearth
