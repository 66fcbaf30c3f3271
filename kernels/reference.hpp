// The kernels' mathematics as plain loops over std::vector, templated on the scalar: the oracle
// that every kernel is tested against. With std::complex<double> the forward functions give
// complex-step derivatives, which test the adjoints. No kernel includes this file.
#pragma once

#include "kernels/reference/adam.hpp"
#include "kernels/reference/attention.hpp"
#include "kernels/reference/cross_entropy.hpp"
#include "kernels/reference/embedding.hpp"
#include "kernels/reference/fixed_point.hpp"
#include "kernels/reference/matmul.hpp"
#include "kernels/reference/permutation.hpp"
#include "kernels/reference/rms_norm.hpp"
#include "kernels/reference/rotary.hpp"
#include "kernels/reference/routing.hpp"
#include "kernels/reference/swiglu.hpp"
