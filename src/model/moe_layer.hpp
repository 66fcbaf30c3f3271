// The mixture of experts: route, dispatch, experts, combine. The one model file that communicates.
#pragma once

#include <optional>

#include "kernels/permutation.hpp"
#include "model/feed_forward.hpp"
#include "model/light_experts.hpp"
#include "model/routing_layer.hpp"
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

  // y += Σ gate · expert(x) + shared(x), or gates before the experts where the router wants it.
  // Every rank of the exchange calls it, also with no tokens. `choice` gets the destinations of the
  // tokens' copies, ascending, then -1. With `sums`, losses and statistics are recorded
  // there. x and choice must live until backward, which may follow a second forward pass of the
  // same cell without `sums`.
  void forward(const DeviceCell& cell, const StepTokens& step, const Array2<const T>& x,
               const Array2<T>& y, const Array2<int>& choice,  // (tokens, slots)
               StepSums* sums, IntervalCounts* counts);

  // dx = the adjoint, balance and z losses included; adds the weights' gradients to their sums.
  void backward(const DeviceCell& cell, const Array2<const T>& dy, const Array2<T>& dx);

  [[nodiscard]] RoutingLayer<T>& routing() { return routing_; }

  // Rows of the last forward pass.
  [[nodiscard]] ExchangeRows exchange_rows() const {
    return {route_.sent, route_.received, exchange_.communicator().size()};
  }

  // Take from a counting stack what the above take.
  static void count_forward(Activations& activations, const Config& config, Index number,
                            Index tokens, const ExchangeRows& rows);
  static void count_backward(Activations& activations, const Config& config, Index number,
                             Index tokens, const ExchangeRows& rows, Index local_experts);

 private:
  // Where the copies of the last forward pass went.
  struct Route {
    std::vector<Index> sent_rows, received_rows;          // (expert_ranks), padding included
    std::vector<std::vector<kernels::Segment>> segments;  // (expert_ranks): by home rank
    Index sent = 0, received = 0;                         // sums of the above
    Index copies = 0, copies_kept = 0;  // of this rank's tokens, and to its experts
  };

  // Kept for backward.
  struct Rows {
    Array2<T> received, returned;  // (received, hidden), (sent, hidden)
    Array2<T> gate, up;            // (received, ffn)
  };
  static Rows take_rows(Activations& activations, const ExchangeRows& rows, Index hidden,
                        Index ffn);
  // What the experts make of the received rows, or its gradient and then theirs.
  static Array2<T> take_outputs(Activations& activations, const ExchangeRows& rows, Index hidden,
                                const Array2<T>& returned = {});
  static Array2<T> take_inner(Activations& activations, Index rows, Index ffn);
  static Array2<Real<T>> take_gate_gradient(Activations& activations, Index tokens, Index slots);
  static Array1<Real<T>> take_stack_gradient(Activations& activations, Index elements);

  // Copies to each destination, before and after some were dropped.
  struct Copies {
    Array1<int> wanted, sent;  // (destinations)
    Index slots;               // that every token fills; 0: their number varies
    Index least_rows;          // of a segment
  };
  // Of the chosen experts: which ranks they are on.
  void count_exchange(const Array2<const int>& choice, StepSums& sums) const;
  void plan_exchange(const Copies& copies, Index tokens, StepSums* sums);
  // For workspace_.observer, after the forward pass; what backward needs of that is lost.
  void show_experts(Index tokens);
  // What every expert makes of every row of x, in rows_.returned, at segment_begin_.
  void run_all_experts(const Array2<const T>& x);
  [[nodiscard]] kernels::CopyPlaces places() const;
  // Gates on either side of the experts; empty on the one where there are none.
  [[nodiscard]] Array2<const Real<T>> gate_before() const;  // (tokens, slots)
  [[nodiscard]] Array2<const Real<T>> gate_behind() const;  // (tokens, slots)
  // Rows to their experts' ranks, or what became of them back home.
  DeviceExchange::Transfer send(const Array2<const T>& rows, const Array2<T>& received);
  DeviceExchange::Transfer send_back(const Array2<const T>& rows, const Array2<T>& returned);
  // The wait for rows, and for slower ranks.
  void finish(DeviceExchange::Transfer& transfer);
  void route_backward(const DeviceCell& cell, const Array2<const T>& dy,
                      const Array2<Real<T>>& dgate, const Array2<T>& dx, kernels::Output output);
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
  Index number_;
  Index most_tokens_;  // of a cell

  RoutingLayer<T> routing_;
  ExpertWeights<T> gate_, up_, down_;  // (local_experts, ffn, hidden) …, down (…, hidden, ffn)
  std::optional<FeedForward<T>> shared_;
  std::optional<LightExperts<T>> light_;

  Array2<const T> x_;                         // (tokens, hidden)
  Array1<int> segment_begin_, segment_rows_;  // (experts)
  Array1<int> owner_;                         // (experts): expert ranks
  Route route_;
  Rows rows_;
};

}  // namespace hearth
