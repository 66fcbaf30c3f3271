// Oracle of kernels/adam.hpp, for one element.
#pragma once

#include "kernels/adam.hpp"
#include "kernels/reference/scalar.hpp"

namespace hearth::kernels::reference {

template <class S>
struct AdamElement {
  S weight, first_moment, second_moment;
};

template <class S>
AdamElement<S> adam(const AdamStep& step, const S& gradient, bool decay, AdamElement<S> e) {
  using std::sqrt;
  const S g = gradient * step.gradient_scale;
  e.first_moment = step.beta1 * e.first_moment + (1 - step.beta1) * g;
  e.second_moment = step.beta2 * e.second_moment + (1 - step.beta2) * g * g;
  const S mean = e.first_moment / step.correction1;
  const S deviation = sqrt(e.second_moment / step.correction2);
  S change = mean / (deviation + step.epsilon);
  if (decay) change += step.weight_decay * e.weight;
  e.weight -= step.learning_rate * change;
  return e;
}

}  // namespace hearth::kernels::reference
