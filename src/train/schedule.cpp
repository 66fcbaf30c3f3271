#include "train/schedule.hpp"

#include <cmath>

namespace hearth {

double learning_rate(const Config& config, std::int64_t step) {
  const OptimizerConfig& o = config.optimizer;
  // Counted in steps; Megatron-LM counts in samples, of which every step has as many.
  const auto now = static_cast<double>(step), steps = static_cast<double>(config.run.steps);
  const double warmup = o.warmup_fraction * steps;
  const double decay = std::floor(steps * o.decay_fraction);
  if (warmup > 0 && now <= warmup) return o.learning_rate * now / warmup;
  if (now > steps) return o.min_learning_rate;
  if (now <= steps - decay) return o.learning_rate;
  const double progress = (now - (steps - decay)) / decay;
  const double coefficient = 2.0 * std::pow(0.5, progress) - 1.0;
  return o.min_learning_rate + coefficient * (o.learning_rate - o.min_learning_rate);
}

}  // namespace hearth
