#include "kernels/matmul/primitives_onednn.hpp"

#include <initializer_list>

#include "base/error.hpp"

namespace hearth::kernels::onednn {

namespace {

using dnnl::memory;

constexpr std::size_t most_products = 2048;

constexpr memory::data_type bf16 = memory::data_type::bf16, f32 = memory::data_type::f32;

// (rows, columns) of op(x), where x has `ld` elements from one row to the next.
memory::desc strided(Index rows, Index columns, Index ld, bool transposed, memory::data_type type) {
  return {{rows, columns}, type, transposed ? memory::dims{1, ld} : memory::dims{ld, 1}};
}

memory::desc plain(const WeightShape& b) {
  return strided(b.k, b.n, b.ld, b.operation == Operation::nt, bf16);
}

// The format is oneDNN's to choose.
memory::desc unsettled(const WeightShape& b) {
  return {{b.k, b.n}, bf16, memory::format_tag::any};
}

dnnl::primitive_attr attributes(bool add) {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (add) {
    dnnl::post_ops sum;
    sum.append_sum(1.0F);
    attr.set_post_ops(sum);
  }
  return attr;
}

dnnl::matmul::primitive_desc describe(const dnnl::engine& engine, const memory::desc& a,
                                      const memory::desc& b, const memory::desc& c, bool add) {
  try {
#if DNNL_VERSION_MAJOR >= 3
    return {engine, a, b, c, attributes(add)};
#else
    return {dnnl::matmul::desc(a, b, c), attributes(add), engine};
#endif
  } catch (const dnnl::error& error) {
    throw failure("oneDNN: a matrix product cannot be made on this CPU: ", error.what());
  }
}

struct Argument {
  int name;
  const memory::desc& format;
  const void* data;
};

// Without an exception, for it runs in the midst of other threads.
dnnl_status_t execute(const dnnl::primitive& primitive, dnnl_stream_t stream,
                      std::initializer_list<Argument> arguments) {
  constexpr int most = 4;
  dnnl_exec_arg_t list[most];
  int made = 0;
  dnnl_engine_t engine = nullptr;
  dnnl_status_t status = dnnl_stream_get_engine(stream, &engine);
  for (const Argument& argument : arguments) {
    if (status != dnnl_success) break;
    dnnl_memory_t object = nullptr;
#if DNNL_VERSION_MAJOR >= 3
    const auto* format = argument.format.get();
#else
    const auto* format = &argument.format.data;
#endif
    status = dnnl_memory_create(&object, format, engine, const_cast<void*>(argument.data));
    if (status == dnnl_success) list[made++] = {argument.name, object};
  }
  if (status == dnnl_success) {
    status = dnnl_primitive_execute(primitive.get(), stream, made, list);
  }
  for (int i = 0; i < made; ++i) dnnl_memory_destroy(list[i].memory);
  return status;
}

}  // namespace

Packing::Packing(const dnnl::engine& engine, const PackingShape& shape) : plain_(plain(shape.b)) {
  const auto& [rows, b] = shape;
  packed_ = describe(engine, strided(rows, b.k, b.k, false, bf16), unsettled(b),
                     strided(rows, b.n, b.n, false, f32), false)
                .weights_desc();
  const dnnl::reorder::primitive_desc description(engine, plain_, engine, packed_,
                                                  attributes(false));
  scratch_ = description.scratchpad_desc();
  reorder_ = dnnl::reorder(description);
}

dnnl_status_t Packing::run(dnnl_stream_t stream, const void* b, void* packed, void* scratch) const {
  return execute(reorder_, stream,
                 {{DNNL_ARG_FROM, plain_, b},
                  {DNNL_ARG_TO, packed_, packed},
                  {DNNL_ARG_SCRATCHPAD, scratch_, scratch}});
}

Product::Product(const dnnl::engine& engine, const ProductShape& shape, const Packing* packing)
    : a_(strided(shape.m, shape.b.k, shape.lda, shape.b.operation == Operation::tn, bf16)),
      b_(plain(shape.b)),
      c_(strided(shape.m, shape.b.n, shape.ldc, false, shape.bfloat16_output ? bf16 : f32)) {
  dnnl::matmul::primitive_desc description;
  if (packing != nullptr) {
    description = describe(engine, a_, unsettled(shape.b), c_, shape.add);
    takes_packed_ = description.weights_desc() == packing->format();
  }
  if (takes_packed_) {
    b_ = packing->format();
  } else {
    description = describe(engine, a_, b_, c_, shape.add);
  }
  scratch_ = description.scratchpad_desc();
  multiply_ = dnnl::matmul(description);
}

dnnl_status_t Product::run(dnnl_stream_t stream, const void* a, const void* b, void* c,
                           void* scratch) const {
  return execute(multiply_, stream,
                 {{DNNL_ARG_SRC, a_, a},
                  {DNNL_ARG_WEIGHTS, b_, b},
                  {DNNL_ARG_DST, c_, c},
                  {DNNL_ARG_SCRATCHPAD, scratch_, scratch}});
}

const Packing& Primitives::make(const PackingShape& shape) {
  return packings_.try_emplace(shape, engine_, shape).first->second;
}

const Product& Primitives::make(const ProductShape& shape) {
  const Packing* packing =
      shape.packed_rows > 0 ? &make(PackingShape{shape.packed_rows, shape.b}) : nullptr;
  return products_.try_emplace(shape, engine_, shape, packing).first->second;
}

void Primitives::limit() {
  if (products_.size() < most_products) return;
  products_.clear();
  packings_.clear();
}

}  // namespace hearth::kernels::onednn
