// The kernels' mathematics as plain loops over std::vector, templated on the scalar: the oracle
// that every kernel is tested against. With std::complex<double> the forward functions give
// complex-step derivatives, which test the adjoints. No kernel includes this file.
#pragma once
