// The fixed probe set: validation sequences whose routing is recorded at every checkpoint.
#pragma once

#include "data/corpus.hpp"
#include "train/trainer.hpp"

namespace hearth {

class Probe {
 public:
  // At least `tokens` tokens in whole sequences (fewer where the split is shorter), taken from the
  // sources in equal parts; this rank's share is uploaded. `corpus` may be null: no probe.
  Probe(const Config& config, const Corpus* corpus, const Communicator& world);

  // Token ids of the whole set, on every rank.
  [[nodiscard]] const std::vector<std::int32_t>& tokens() const { return tokens_; }

  // (moe layers, tokens, slots of the layer with the most): where the present weights send each
  // token, best first as in rank_choices, then -1; empty except on the first rank. Collective.
  template <class T>
  [[nodiscard]] std::vector<std::int32_t> choices(Trainer<T>& trainer) const;

 private:
  struct Part {
    DeviceCell cell;
    Index begin = 0;  // first token within the set
  };
  Config config_;
  Communicator world_;
  std::vector<Part> parts_;  // as many on every rank, the last ones perhaps empty
  std::vector<std::int32_t> tokens_;
};

}  // namespace hearth
