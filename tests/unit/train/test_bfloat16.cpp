// Training in bfloat16 beside single precision: the same weights, the same cell.
#include "catch.hpp"
#include "unit/train/small_model.hpp"

using namespace hearth;

namespace {

template <class T>
std::vector<double> gradient(const SmallModel<T>& model, const TensorInfo& info) {
  const kernels::GradientSum<Real<T>> sum = model.parameters.gradient(info.name);
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), sum.sum.fixed);
  std::vector<double> values;
  for (std::size_t i = 0; i < host.size(); ++i) {
    values.push_back(static_cast<double>(host(i)) * kernels::gradient_unit);
  }
  return values;
}

// |a - b| / |b|
double relative_error(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    size += b[i] * b[i];
  }
  return std::sqrt(difference / size);
}

}  // namespace

// Every token goes to every expert: a router's rounded input can then not choose others, and what
// is left are the errors of arithmetic.
TEST_CASE("gradients in bfloat16 are those in single precision, with experts too") {
  Config config = small_config();
  config.moe.top_k = config.moe.experts;
  config.model.init_std = 0.1;
  SmallModel<float> single(config);
  SmallModel<bfloat16> brief(config);
  single.train();
  brief.train();
  CHECK(brief.loss() == Approx(single.loss()).epsilon(5e-3));
  for (const TensorInfo& info : single.parameters.table()) {
    if (!info.alias_of.empty()) continue;
    INFO(info.name);
    // A few times 2^-8, for a chain of about thirty roundings.
    CHECK(relative_error(gradient(brief, info), gradient(single, info)) < 0.05);
  }
}
