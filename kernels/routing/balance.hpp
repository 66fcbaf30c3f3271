// The load-balance loss of a cell: how its slopes follow from counts. Equation (11) of
// docs/equations.md. The counts are constants, as in FLAME-MoE.
#pragma once

#include "base/types.hpp"

namespace hearth::kernels {

// Tokens of a group that chose each destination; groups are runs of `group_tokens` tokens.
void count_groups(const Array2<const int>& choice, Index group_tokens,
                  const Array2<int>& count);  // (groups, destinations)

// Parts of the destinations: experts first, then light experts, then those of them that are null.
struct BalanceRule {
  double coefficient = 0;
  double step_tokens = 1;      // tokens of the step: the loss is a mean over them
  double copies_of_token = 0;  // that make a load of 1: k, or 0 for as many as were chosen
  Index experts = 0;
  Index first_null = 0;     // null experts share their load (AdaMoE, arXiv:2406.13233, section 3.2)
  double light_weight = 1;  // of light experts in the loss (MoE++, arXiv:2410.07348, eq. 7)
};

// slope[g][e] = coefficient · destinations · weight_e · f_e / step_tokens, with f_e the share of
// the group's token copies that chose e: the derivative of the loss by any token's affinity to e.
void balance_slopes(const BalanceRule& rule, Index group_tokens,
                    const Array2<const int>& count,  // (groups, destinations)
                    const Array2<double>& slope);    // (groups, destinations)

// The same where f is given, as of an earlier step.
void balance_slopes(const BalanceRule& rule, const Array1<const double>& share,  // (destinations)
                    const Array2<double>& slope);  // (1, destinations)

}  // namespace hearth::kernels
