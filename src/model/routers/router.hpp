// A router: which destinations a token is sent to, and with which gates. docs/adding_a_router.md
// walks through writing one.
#pragma once

#include <memory>
#include <span>

#include "config/config.hpp"
#include "kernels/routing/scores.hpp"
#include "model/device_cell.hpp"
#include "model/diagnostics.hpp"

namespace hearth {

// What a router is made for: one layer with experts.
struct RouterPlace {
  RouterPlace(const Config& c, Index moe_layer)
      : config(c),
        layer(moe_layer),
        experts(c.moe.experts.at(moe_layer)),
        destinations(c.destinations(moe_layer)),
        top_k(c.moe.top_k.at(moe_layer)) {}

  // Destinations from here on give nothing.
  [[nodiscard]] Index first_empty() const {
    return destinations - config.moe.zero_experts - config.moe.null_experts;
  }

  Config config;
  Index layer;         // among the layers with experts
  Index experts;       // those with matrices
  Index destinations;  // experts, then copy, constant, zero and null experts
  Index top_k;
};

// What the layer must know of its router.
struct RouterTraits {
  Index slots = 0;             // the most destinations of a token
  bool fills_slots = true;     // every token chooses so many
  bool has_logits = true;      // scores come from a weight (destinations, hidden)
  bool trains_weight = true;   // and training changes it
  bool drops = false;          // a copy that was chosen may not be sent
  bool scales_input = false;   // gates multiply an expert's input, not its output
  Index states = 0;            // integers that training hands on from step to step
  Index scratch_bytes = 0;     // of RouterInput::scratch, for each token
  double copies_of_token = 0;  // that are a load of 1 to the balance loss; 0: as many as are chosen
};

template <class R>
struct RouterInput {
  const DeviceCell& cell;
  Array2<const R> logits;  // (tokens, destinations); empty for a router without
  Array2<char> scratch;    // (tokens, scratch_bytes)

  // The scratch as (tokens, width) of U.
  template <class U>
  [[nodiscard]] Array2<U> scratch_of(Index width) const {
    return Array2<U>(reinterpret_cast<U*>(scratch.data()), cell.tokens, width);
  }
};

// What a router decides. Choices ascend; -1 stands in the slots after them.
template <class R>
struct Routing {
  Array2<R> affinity;  // (tokens, destinations): what balance and statistics read
  Array1<R> log_sum;   // (tokens): log Σ exp(logits)
  Array2<int> wanted;  // (tokens, slots): before copies were dropped; the array `choice` where none
                       // are
  Array2<int> choice;  // (tokens, slots)
  Array2<R> gate;      // (tokens, slots): of choice
};

template <class R>
struct RoutingGradient {
  Array2<R> dgate;               // (tokens, slots); may be overwritten
  kernels::AffinitySlope slope;  // of the balance loss
  double z_scale;                // d(loss)/d(log_sum) over log_sum
  double entropy_scale;          // d(loss)/d(entropy of a token)
};

template <class R>
class Router {
 public:
  explicit Router(const RouterPlace& place) : place_(place) {}
  Router(const Router&) = delete;
  Router& operator=(const Router&) = delete;
  virtual ~Router() = default;

  [[nodiscard]] virtual RouterTraits traits() const = 0;

  virtual void choose(const RouterInput<R>& input, const Routing<R>& routing) const = 0;
  // dlogits, of a router that has logits.
  virtual void backward(const RouterInput<R>& input, const Routing<R>& routing,
                        const RoutingGradient<R>& gradient, const Array2<R>& dlogits) const = 0;

  // Rows that each (cell, expert) segment of a cell has at least.
  [[nodiscard]] virtual Index least_rows(Index /*tokens*/) const { return 0; }

  // Coefficients of its losses, at present: of balance, and of the affinities' entropy.
  [[nodiscard]] virtual double balance_coefficient() const {
    return place_.config.moe.balance_loss;
  }
  [[nodiscard]] virtual double entropy_coefficient() const { return 0; }

  // What the integers become by a step whose sums over all ranks are given, and taking them up: the
  // same on every rank.
  virtual void advance(const StepSums& /*layout*/, const HostArray1<std::int64_t>& /*sums*/,
                       std::int64_t /*tokens*/, std::span<std::int64_t> /*state*/) const {}
  virtual void set_state(std::span<const std::int64_t> /*state*/) {}

 protected:
  [[nodiscard]] const RouterPlace& place() const { return place_; }

 private:
  RouterPlace place_;
};

}  // namespace hearth
