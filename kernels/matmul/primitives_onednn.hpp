// oneDNN's matrix products of bfloat16: made for a shape once and kept, executed on any thread.
#pragma once

#include <compare>
#include <cstddef>
#include <dnnl.hpp>
#include <map>

#include "kernels/matmul/backend.hpp"

namespace hearth::kernels::onednn {

// op(b) (k, n); b has ld elements from one row to the next.
struct WeightShape {
  Index n, k, ld;
  Operation operation;

  auto operator<=>(const WeightShape&) const = default;
};

// The weight, packed as products of so many rows want it.
struct PackingShape {
  Index rows;
  WeightShape b;

  auto operator<=>(const PackingShape&) const = default;
};

// c (m, n) = or += op(a) · op(b)
struct ProductShape {
  Index m, lda, ldc;
  WeightShape b;
  Index packed_rows;     // b is packed for products of so many rows; 0: it is not packed
  bool bfloat16_output;  // float otherwise
  bool add;

  auto operator<=>(const ProductShape&) const = default;
};

// The format in which oneDNN multiplies by b fastest.
class Packing {
 public:
  Packing(const dnnl::engine& engine, const PackingShape& shape);

  [[nodiscard]] const dnnl::memory::desc& format() const { return packed_; }
  [[nodiscard]] std::size_t bytes() const { return packed_.get_size(); }
  [[nodiscard]] std::size_t scratch_bytes() const { return scratch_.get_size(); }

  dnnl_status_t run(dnnl_stream_t stream, const void* b, void* packed, void* scratch) const;

 private:
  dnnl::memory::desc plain_, packed_, scratch_;
  dnnl::primitive reorder_;
};

class Product {
 public:
  Product(const dnnl::engine& engine, const ProductShape& shape, const Packing* packing);

  [[nodiscard]] std::size_t scratch_bytes() const { return scratch_.get_size(); }
  // Whether b must be packed. Where the library wants another format than it wants for the rows
  // that b is packed for, it takes b as it stands: in a foreign format it can be very slow.
  [[nodiscard]] bool takes_packed() const { return takes_packed_; }

  dnnl_status_t run(dnnl_stream_t stream, const void* a, const void* b, void* c,
                    void* scratch) const;

 private:
  dnnl::memory::desc a_, b_, c_, scratch_;
  bool takes_packed_ = false;
  dnnl::primitive multiply_;
};

// Everything runs on the calling thread, with scratch memory of the caller's: oneDNN's own would
// be shared by the threads that execute one primitive.
class Primitives {
 public:
  Primitives() : engine_(dnnl::engine::kind::cpu, 0) {}

  [[nodiscard]] const dnnl::engine& engine() const { return engine_; }

  // Makes what is missing, a few tenths of a millisecond each; not while others read.
  const Product& make(const ProductShape& shape);
  const Packing& make(const PackingShape& shape);

  // What has been made; by any number of threads at once.
  [[nodiscard]] const Product& find(const ProductShape& shape) const {
    return products_.find(shape)->second;
  }
  [[nodiscard]] const Packing& find(const PackingShape& shape) const {
    return packings_.find(shape)->second;
  }

  // Forgets all where there are very many, as a program whose shapes vary without end makes them.
  void limit();

 private:
  dnnl::engine engine_;
  std::map<PackingShape, Packing> packings_;
  std::map<ProductShape, Product> products_;
};

}  // namespace hearth::kernels::onednn
