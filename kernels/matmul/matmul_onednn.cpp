// The products on the CPU through oneDNN: each tile is a call on one thread, or several in order.
#include <omp.h>

#include <algorithm>
#include <mutex>
#include <type_traits>

#include "base/error.hpp"
#include "kernels/matmul/backend.hpp"
#include "kernels/matmul/matmul_pairs.hpp"
#include "kernels/matmul/portable.hpp"
#include "kernels/matmul/primitives_onednn.hpp"
#include "kernels/matmul/tiling.hpp"
#include "kernels/processor.hpp"

namespace hearth::kernels {

namespace {

using onednn::Packing;
using onednn::PackingShape;
using onednn::Primitives;
using onednn::Product;
using onednn::ProductShape;

// Tiles of c. Large enough that a call runs as fast as one for the whole product (within 5 %,
// measured on the shapes of FLAME-MoE models on AVX-512), small enough that there is one for every
// thread; least so in weight gradients, which are small and have a long inner sum. Segments come in
// multiples of 32 rows, and so do tiles: each shape costs oneDNN a moment.
constexpr TileShape tile_shape(Operation operation) {
  return operation == Operation::tn ? TileShape{128, 256, 16, 16} : TileShape{256, 256, 32, 16};
}
// Terms of the inner dimension that one call on bfloat16 numbers adds up: what a core's cache holds
// of copies of both operands, and in weight gradients, whose inner dimension is any number of rows,
// a bound on the number of shapes.
constexpr Index most_depth = 1024;

// A weight is packed where it serves this many tiles of rows, by then cheaper than what each call
// does to read it as it stands; a longer one would take too much of a thread's memory.
constexpr Index packing_tiles = 4, packing_depth = 16 * most_depth;

// The most tiles of rows for which a thread converts or packs a weight once.
constexpr Index most_tiles = 16;

// oneDNN would take all threads where Kokkos runs on a single one, for then its calls do not
// stand in an active parallel region; and its sums may depend on the number of threads.
class OneThread {
 public:
  OneThread() : threads_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(threads_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int threads_;
};

template <class From, class To>
void convert(const From* from, Index ld_from, To* to, Index ld_to, Index rows, Index columns) {
  for (Index i = 0; i < rows; ++i) {
    for (Index j = 0; j < columns; ++j) {
      to[i * ld_to + j] = static_cast<To>(static_cast<float>(from[i * ld_from + j]));
    }
  }
}

constexpr std::size_t aligned(std::size_t bytes) {
  return (bytes + 63) / 64 * 64;
}

// Bytes of the parts of a thread's memory.
struct Scratch {
  std::size_t library = 0;   // oneDNN's
  std::size_t a = 0, b = 0;  // operands in float, where they were bfloat16
  std::size_t packed = 0;    // b in oneDNN's format, for all of the inner dimension
  std::size_t sums = 0;      // a tile of c in float

  [[nodiscard]] std::size_t bytes() const { return library + a + b + packed + sums; }
};

// Part of an operand: where it begins, its rows and columns as they stand.
struct Block {
  Index begin, rows, columns, ld;

  // Of its copy in float. Not a power of two, for the cache.
  [[nodiscard]] Index copy_ld() const { return (columns + 15) / 16 * 16 + 16; }
  [[nodiscard]] std::size_t copy_bytes() const {
    return aligned(static_cast<std::size_t>(rows * copy_ld()) * sizeof(float));
  }
};

// A problem and how it is computed, by its shape alone: for each tile of c the inner dimension goes
// in chunks, in order. E is the type of the operands that oneDNN is given.
template <class T, class C, class E>
struct Plan {
  static constexpr bool widened = !std::is_same_v<T, E>, native = !std::is_same_v<E, float>;

  Problem<T, C> problem;
  Operation operation;
  Output output;
  Cut rows, columns;
  Index depth;
  bool packed;
  bool summed_apart;  // in float beside c, which is rounded at the end
  Index group = 1;    // tiles of rows in a unit of work
  Index first = 0;    // number of the first unit

  Plan(const Problem<T, C>& p, Operation op, Output out)
      : problem(p),
        operation(op),
        output(out),
        rows(p.m, tile_shape(op).rows, tile_shape(op).rows_multiple),
        columns(p.n, tile_shape(op).columns, tile_shape(op).columns_multiple),
        depth(std::is_same_v<T, float> ? p.k : std::min(p.k, most_depth)),
        packed(native && op != Operation::tn && rows.parts >= packing_tiles &&
               p.k <= packing_depth),
        summed_apart(std::is_same_v<C, bfloat16> && (widened || p.k > depth)) {}

  [[nodiscard]] Index groups() const { return (rows.parts + group - 1) / group; }
  [[nodiscard]] Index units() const { return groups() * columns.parts; }
  [[nodiscard]] Index chunks() const { return (problem.k + depth - 1) / depth; }
  [[nodiscard]] Index chunk_size(Index chunk) const {
    return std::min(depth, problem.k - chunk * depth);
  }

  [[nodiscard]] Block block_of_a(Index row, Index chunk) const {
    const Index m0 = rows.begin(row), m = rows.size(row), k0 = chunk * depth, ld = problem.lda;
    const Index k = chunk_size(chunk);
    return operation == Operation::tn ? Block{k0 * ld + m0, k, m, ld}
                                      : Block{m0 * ld + k0, m, k, ld};
  }
  [[nodiscard]] Block block_of_b(Index column, Index chunk) const {
    const Index n0 = columns.begin(column), n = columns.size(column), k0 = chunk * depth;
    const Index k = chunk_size(chunk), ld = problem.ldb;
    return operation == Operation::nt ? Block{n0 * ld + k0, n, k, ld}
                                      : Block{k0 * ld + n0, k, n, ld};
  }

  // Whether a chunk's product is added to what stands where it goes.
  [[nodiscard]] bool adds(Index chunk) const {
    return chunk > 0 || (output == Output::add && !summed_apart);
  }
  [[nodiscard]] Index target_ld() const { return summed_apart ? columns.part : problem.ldc; }

  [[nodiscard]] PackingShape packing_shape(Index column, Index chunk) const {
    return {rows.part, {columns.size(column), chunk_size(chunk), problem.ldb, operation}};
  }
  [[nodiscard]] ProductShape shape(Index row, Index column, Index chunk) const {
    const PackingShape packing = packing_shape(column, chunk);
    return {rows.size(row),
            problem.lda,
            target_ld(),
            packing.b,
            packed ? packing.rows : 0,
            std::is_same_v<C, bfloat16> && !summed_apart,
            adds(chunk)};
  }

  // Makes all primitives of the problem and enlarges `scratch` to what a thread needs.
  void prepare(Primitives& primitives, Scratch& scratch) const {
    const auto enlarge = [](std::size_t& part, std::size_t bytes) {
      part = std::max(part, aligned(bytes));
    };
    if (summed_apart) {
      enlarge(scratch.sums, static_cast<std::size_t>(rows.part * columns.part) * sizeof(float));
    }
    if (widened) {
      enlarge(scratch.a, block_of_a(0, 0).copy_bytes());
      enlarge(scratch.b, block_of_b(0, 0).copy_bytes());
    }
    if (!native) return;
    // Only the last part of an axis differs from the others, and only the first chunk may assign.
    const Index last = chunks() - 1;
    for (Index column = 0; column < columns.parts;
         column += std::max<Index>(columns.parts - 1, 1)) {
      for (Index chunk = 0; chunk <= last; chunk = chunk == 0 ? 1 : std::max(chunk + 1, last)) {
        for (Index row = 0; row < rows.parts; row += std::max<Index>(rows.parts - 1, 1)) {
          const Product& product = primitives.make(shape(row, column, chunk));
          enlarge(scratch.library, product.scratch_bytes());
        }
        if (!packed) continue;
        const Packing& packing = primitives.make(packing_shape(column, chunk));
        enlarge(scratch.library, packing.scratch_bytes());
        enlarge(scratch.packed, static_cast<std::size_t>(chunks()) * aligned(packing.bytes()));
      }
    }
  }
};

// One thread's memory and what it runs on.
class Worker {
 public:
  Worker(const Primitives& primitives, dnnl_stream_t stream, const Scratch& scratch, char* memory)
      : primitives_(primitives),
        stream_(stream),
        library_(memory),
        a_(reinterpret_cast<float*>(memory + scratch.library)),
        b_(reinterpret_cast<float*>(memory + scratch.library + scratch.a)),
        packed_(memory + scratch.library + scratch.a + scratch.b),
        sums_(reinterpret_cast<float*>(packed_ + scratch.packed)) {}

  template <class T, class C, class E>
  dnnl_status_t run(const Plan<T, C, E>& plan, Index unit) const {
    const OneThread one_thread;
    const Index column = unit % plan.columns.parts, group = unit / plan.columns.parts;
    const Index begin = group * plan.group, end = std::min(begin + plan.group, plan.rows.parts);
    dnnl_status_t status = plan.packed ? pack(plan, column) : dnnl_success;
    for (Index row = begin; row < end && status == dnnl_success; ++row) {
      if constexpr (plan.native) {
        status = multiply_native(plan, row, column);
      } else {
        status = multiply_single(plan, row, column, row == begin);
      }
      if constexpr (std::is_same_v<C, bfloat16>) {
        if (plan.summed_apart) round(plan, row, column);
      }
    }
    return status;
  }

 private:
  template <class T, class C, class E>
  static C* tile_of_c(const Plan<T, C, E>& plan, Index row, Index column) {
    return plan.problem.c + plan.rows.begin(row) * plan.problem.ldc + plan.columns.begin(column);
  }

  template <class T, class C, class E>
  void* target(const Plan<T, C, E>& plan, Index row, Index column) const {
    return plan.summed_apart ? static_cast<void*>(sums_) : tile_of_c(plan, row, column);
  }

  // A block as oneDNN's single precision reads it.
  struct Operand {
    const float* data;
    Index ld;
  };
  static Operand single(const float* data, const Block& block, float* /*copy*/, bool /*fresh*/) {
    return {data + block.begin, block.ld};
  }
  static Operand single(const bfloat16* data, const Block& block, float* copy, bool fresh) {
    if (fresh) {
      convert(data + block.begin, block.ld, copy, block.copy_ld(), block.rows, block.columns);
    }
    return {copy, block.copy_ld()};
  }

  // `fresh`: the copy of b does not hold its only chunk yet.
  template <class T, class C>
  dnnl_status_t multiply_single(const Plan<T, C, float>& plan, Index row, Index column,
                                bool fresh) const {
    const Problem<T, C>& p = plan.problem;
    auto* c = static_cast<float*>(target(plan, row, column));
    for (Index chunk = 0; chunk < plan.chunks(); ++chunk) {
      const Operand a = single(p.a, plan.block_of_a(row, chunk), a_, true);
      const Operand b = single(p.b, plan.block_of_b(column, chunk), b_, fresh || plan.chunks() > 1);
      const dnnl_status_t status = dnnl_sgemm(
          plan.operation == Operation::tn ? 'T' : 'N', plan.operation == Operation::nt ? 'T' : 'N',
          plan.rows.size(row), plan.columns.size(column), plan.chunk_size(chunk), 1.0F, a.data,
          a.ld, b.data, b.ld, plan.adds(chunk) ? 1.0F : 0.0F, c, plan.target_ld());
      if (status != dnnl_success) return status;
    }
    return dnnl_success;
  }

  template <class Plan>
  dnnl_status_t pack(const Plan& plan, Index column) const {
    char* packed = packed_;
    for (Index chunk = 0; chunk < plan.chunks(); ++chunk) {
      const Packing& packing = primitives_.find(plan.packing_shape(column, chunk));
      const dnnl_status_t status = packing.run(
          stream_, plan.problem.b + plan.block_of_b(column, chunk).begin, packed, library_);
      if (status != dnnl_success) return status;
      packed += aligned(packing.bytes());
    }
    return dnnl_success;
  }

  template <class Plan>
  dnnl_status_t multiply_native(const Plan& plan, Index row, Index column) const {
    const auto& p = plan.problem;
    void* c = target(plan, row, column);
    const char* packed = packed_;
    for (Index chunk = 0; chunk < plan.chunks(); ++chunk) {
      const Product& product = primitives_.find(plan.shape(row, column, chunk));
      const void* a = p.a + plan.block_of_a(row, chunk).begin;
      const void* b = p.b + plan.block_of_b(column, chunk).begin;
      const dnnl_status_t status =
          product.run(stream_, a, product.takes_packed() ? packed : b, c, library_);
      if (status != dnnl_success) return status;
      if (plan.packed) {
        packed += aligned(primitives_.find(plan.packing_shape(column, chunk)).bytes());
      }
    }
    return dnnl_success;
  }

  // c = or += the sums, rounded once.
  template <class Plan>
  void round(const Plan& plan, Index row, Index column) const {
    const Index m = plan.rows.size(row), n = plan.columns.size(column);
    const Index ldc = plan.problem.ldc, ld = plan.target_ld();
    bfloat16* c = tile_of_c(plan, row, column);
    if (plan.output == Output::add) {
      for (Index i = 0; i < m; ++i) {
        for (Index j = 0; j < n; ++j) sums_[i * ld + j] += c[i * ldc + j];
      }
    }
    convert(sums_, ld, c, ldc, m, n);
  }

  const Primitives& primitives_;
  dnnl_stream_t stream_;
  char* library_;
  float *a_, *b_;
  char* packed_;
  float* sums_;
};

bool is_amd() {
#if defined(__x86_64__)
  return __builtin_cpu_is("amd") != 0;
#else
  return false;
#endif
}

// What is fastest on this CPU, or what comes next where it has not what is wanted. oneDNN
// multiplies bfloat16 with AMX, or with AVX-512's instructions, where those have twice the rate of
// single precision, as on AMD's CPUs; programs that were compiled for these have products of pairs,
// which are faster. On Intel's without AMX they have half of it, and what oneDNN puts in their
// place on older CPUs a fifth.
Bfloat16Products available(Bfloat16Products products) {
  using dnnl::cpu_isa;
  if (products == Bfloat16Products::fastest && pairs_are_fast) return Bfloat16Products::pairs;
  if (products == Bfloat16Products::pairs || products == Bfloat16Products::widened) return products;
  cpu_isa wanted = is_amd() ? cpu_isa::avx512_core_bf16 : cpu_isa::avx512_core_amx;
  if (products == Bfloat16Products::native) wanted = cpu_isa::avx512_core;
  const auto bits = static_cast<unsigned>(wanted);
  const bool native = (static_cast<unsigned>(dnnl::get_effective_cpu_isa()) & bits) == bits;
  return native ? Bfloat16Products::native : Bfloat16Products::widened;
}

}  // namespace

struct Matmul::Vendor::Library {
  using Tokens = Kokkos::Experimental::UniqueToken<HostExec>;

  explicit Library(Bfloat16Products products) : bfloat16_products(available(products)) {
    for (int i = 0; i < tokens.size(); ++i) streams.emplace_back(primitives.engine());
  }

  template <class E, class T, class C>
  void run(const std::vector<Problem<T, C>>& problems, Operation operation, Output output);

  Bfloat16Products bfloat16_products;
  PairProducts pairs;
  std::mutex one_call;  // of all that is here, by whoever calls
  Primitives primitives;
  Tokens tokens;
  std::vector<dnnl::stream> streams;              // by token
  Kokkos::View<char*, Kokkos::HostSpace> memory;  // of all tokens
};

template <class E, class T, class C>
void Matmul::Vendor::Library::run(const std::vector<Problem<T, C>>& problems, Operation operation,
                                  Output output) {
  const std::lock_guard lock(one_call);
  primitives.limit();
  Scratch scratch;
  std::vector<Plan<T, C, E>> plans;
  plans.reserve(problems.size());
  Index tiles = 0;
  {
    const OneThread one_thread;  // the number of threads is part of what oneDNN makes
    for (const Problem<T, C>& p : problems) {
      const auto& plan = plans.emplace_back(p, operation, output);
      plan.prepare(primitives, scratch);
      tiles += plan.rows.parts * plan.columns.parts;
    }
  }
  // Tiles that share a packed or converted weight go together, as far as there is work for all
  // threads. This changes who computes a tile, not what.
  const Index together = std::clamp(tiles / (4 * Index{tokens.size()}), Index{1}, most_tiles);
  Index units = 0;
  for (auto& plan : plans) {
    if (plan.packed || plan.widened) plan.group = together;
    plan.first = units;
    units += plan.units();
  }
  const std::size_t bytes = scratch.bytes() + 64;
  if (memory.size() < bytes * static_cast<std::size_t>(tokens.size())) {
    memory = {};
    memory = uninitialized<Kokkos::View<char*, Kokkos::HostSpace>>(
        "matmul_scratch", bytes * static_cast<std::size_t>(tokens.size()));
  }

  const auto* list = plans.data();
  const Index count = static_cast<Index>(plans.size());
  HostArray1<int> failed("matmul_failed", 1);
  using Policy =
      Kokkos::RangePolicy<HostExec, Kokkos::Schedule<Kokkos::Dynamic>, Kokkos::IndexType<Index>>;
  Kokkos::parallel_for(
      "matmul_onednn", Policy(0, units, Kokkos::ChunkSize(1)), [=, this](const Index unit) {
        const auto& plan = problem_of_tile(list, count, unit);
        const auto token = tokens.acquire();
        const Worker worker(primitives, streams[static_cast<std::size_t>(token)].get(), scratch,
                            memory.data() + bytes * static_cast<std::size_t>(token));
        const dnnl_status_t status = worker.run(plan, unit - plan.first);
        tokens.release(token);
        if (status != dnnl_success) Kokkos::atomic_store(&failed(0), static_cast<int>(status));
      });
  if (failed(0) != 0) throw failure("oneDNN: a matrix product failed with status ", failed(0));
}

Matmul::Vendor::Vendor(Bfloat16Products products) : library(std::make_unique<Library>(products)) {}
Matmul::Vendor::~Vendor() = default;

template <class T, class C>
void Matmul::Vendor::run(const std::vector<Problem<T, C>>& problems, Operation operation,
                         Output output, Grouping /*grouping*/) {
  if constexpr (std::is_same_v<T, double>) {
    run_portable<T, C>(problems, operation, output);
  } else if constexpr (std::is_same_v<T, bfloat16>) {
    switch (library->bfloat16_products) {
      case Bfloat16Products::pairs:
        library->pairs.run(problems, operation, output);
        break;
      case Bfloat16Products::native:
        library->run<T>(problems, operation, output);
        break;
      default:
        library->run<float>(problems, operation, output);
    }
  } else {
    library->run<T>(problems, operation, output);
  }
}

#define HEARTH_INSTANTIATE(T, C)                                                                \
  template void Matmul::Vendor::run<T, C>(const std::vector<Problem<T, C>>&, Operation, Output, \
                                          Grouping)
HEARTH_FOR_PRODUCT_TYPES(HEARTH_INSTANTIATE)
#undef HEARTH_INSTANTIATE

}  // namespace hearth::kernels
