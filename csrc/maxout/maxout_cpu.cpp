#include <algorithm>
#include <type_traits>
#include <utility>

#include "common/parallel.h"
#include "maxout/maxout.h"
#include "maxout/maxout_math.h"

// The gradients meet one live weight row per (example, unit): a matrix product with holes. What makes it faster than
// the dense product is that the strip of rows in use stays in the L1 cache (a Tile, packed so that no stride of the
// matrix can make its rows collide there), and that sums of kVectors registers, in two chains, hide the latency of the
// adders.

namespace pygan {
namespace PYGAN_SIMD_LEVEL {
namespace {

using std::int64_t;

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif
constexpr int kVectors = 4;  // vectors across a tile
constexpr int64_t kTileRows = kMaxoutTileRows;
constexpr int64_t kExampleBlock = 128;  // examples per work item of the input gradient
constexpr int64_t kPoolBlock = 64;      // units or positions whose maximum is formed at once

template <class C>
struct VectorOf {
  typedef C type __attribute__((vector_size(kVectorBytes)));
};
template <class C>
using Vector = typename VectorOf<C>::type;
template <class C>
constexpr int64_t kLanes = kVectorBytes / int64_t(sizeof(C));

// Part i of [0, n) cut into `parts` nearly equal parts.
struct Range {
  int64_t begin, end;
  Range(int64_t n, int64_t parts, int64_t i) : begin(border(n, parts, i)), end(border(n, parts, i + 1)) {}
  int64_t size() const { return end - begin; }

 private:
  static int64_t border(int64_t n, int64_t parts, int64_t i) { return n / parts * i + std::min(i, n % parts); }
};

// ---- the maximum --------------------------------------------------------------------------------------------------

// n results; result i is the maximum over p of z[i * step + p * piece_step].
template <class T>
void pool_block(const T* z, int64_t step, int64_t piece_step, int64_t pieces, int64_t n, T* y, std::uint8_t* index) {
  using C = compute_t<T>;
  C best[kPoolBlock], value[kPoolBlock];
  std::int32_t winner[kPoolBlock] = {};
  for (int64_t i = 0; i < n; ++i) best[i] = load(z[i * step]);
  for (int64_t p = 1; p < pieces; ++p) {
    const T* piece = z + p * piece_step;
    for (int64_t i = 0; i < n; ++i) value[i] = load(piece[i * step]);
    const auto number = static_cast<std::int32_t>(p);
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      const bool wins = beats(value[i], best[i]);
      best[i] = wins ? value[i] : best[i];
      winner[i] = wins ? number : winner[i];
    }
  }
  for (int64_t i = 0; i < n; ++i) y[i] = store<T>(best[i]);
  for (int64_t i = 0; i < n; ++i) index[i] = static_cast<std::uint8_t>(winner[i]);
}

template <class T>
void pool(const MaxoutPool& op, int threads) {
  const bool flat = op.inner == 1;  // then neighbouring results are units, else positions of one unit
  const int64_t rows = flat ? op.outer : op.outer * op.units;
  const int64_t row = flat ? op.units : op.inner;
  const int64_t step = flat ? op.pieces : 1;
  const int64_t piece_step = flat ? 1 : op.inner;
  const int64_t rows_at_once = std::max<int64_t>(1, 8192 / std::max<int64_t>(1, row * op.pieces));
  parallel_chunks(ceil_div(rows, rows_at_once), threads, [&](int64_t chunk) {
    const int64_t end = std::min(rows, (chunk + 1) * rows_at_once);
    for (int64_t r = chunk * rows_at_once; r < end; ++r) {
      const T* z = static_cast<const T*>(op.z) + r * row * op.pieces;
      for (int64_t i = 0; i < row; i += kPoolBlock) {
        const int64_t at = r * row + i;
        pool_block(z + i * step, step, piece_step, op.pieces, std::min(kPoolBlock, row - i), static_cast<T*>(op.y) + at,
                   op.index + at);
      }
    }
  });
}

template <class T>
void spread(const MaxoutSpread& op, int threads) {
  const int64_t rows = op.outer * op.units, inner = op.inner;
  const int64_t rows_at_once = std::max<int64_t>(1, 8192 / std::max<int64_t>(1, inner * op.pieces));
  parallel_chunks(ceil_div(rows, rows_at_once), threads, [&](int64_t chunk) {
    const int64_t end = std::min(rows, (chunk + 1) * rows_at_once);
    for (int64_t r = chunk * rows_at_once; r < end; ++r) {
      const T* grad = static_cast<const T*>(op.grad) + r * inner;
      const std::uint8_t* index = op.index + r * inner;
      T* out = static_cast<T*>(op.grad_z) + r * op.pieces * inner;
      for (int64_t i = 0; i < op.pieces * inner; ++i) out[i] = T{};
      for (int64_t i = 0; i < inner; ++i) out[index[i] * inner + i] = grad[i];
    }
  });
}

// ---- tiles --------------------------------------------------------------------------------------------------------

// Calls run with the number of vectors across a tile as a compile-time constant.
template <int n>
using Count = std::integral_constant<int, n>;
template <class Run>
void with_count(int64_t vectors, const Run& run) {
  static_assert(kVectors == 4, "one line per count");
  if (vectors == 1) return run(Count<1>{});
  if (vectors == 2) return run(Count<2>{});
  if (vectors == 3) return run(Count<3>{});
  if (vectors == 4) return run(Count<4>{});
}

// The columns of one work item: at most kVectors vectors.
template <class C>
struct Columns {
  int64_t begin, size, vectors;
  static int64_t count(int64_t in) { return ceil_div(ceil_div(in, kLanes<C>), kVectors); }
  Columns(int64_t in, int64_t i) {
    const Range range(ceil_div(in, kLanes<C>), count(in), i);
    begin = range.begin * kLanes<C>;
    size = std::min(range.end * kLanes<C>, in) - begin;
    vectors = range.size();
  }
};

// Rows of a matrix in the compute type, side by side, filled up with zeros to whole vectors.
template <int vectors, class C, class T>
void pack(const T* matrix, int64_t stride, int64_t rows, int64_t columns, C* tile) {
  constexpr int64_t width = vectors * kLanes<C>;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) tile[r * width + c] = load(matrix[r * stride + c]);
    for (int64_t c = columns; c < width; ++c) tile[r * width + c] = 0;
  }
}

// The reverse: rows of sums into a matrix, rounded once to its type.
template <int vectors, class C, class T>
void unpack(const C* tile, int64_t rows, int64_t columns, int64_t stride, T* matrix) {
  constexpr int64_t width = vectors * kLanes<C>;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) matrix[r * stride + c] = store<T>(tile[r * width + c]);
  }
}

template <int vectors, class C>
void add_scaled(Vector<C> (&sum)[vectors], C factor, const C* row) {
  const auto* v = reinterpret_cast<const Vector<C>*>(row);
  for (int i = 0; i < vectors; ++i) sum[i] += factor * v[i];
}

// ---- gradient with respect to x -----------------------------------------------------------------------------------

// sums[e] += sum_u grad[e, u] * tile[u, index[e, u]] for `examples` examples, over `units` units.
template <int examples, int vectors, class T, class C>
void add_live_rows(const T* grad, const std::uint8_t* index, int64_t stride, int64_t units, int64_t pieces,
                   const C* tile, C* sums) {
  constexpr int64_t width = vectors * kLanes<C>;
  auto* out = reinterpret_cast<Vector<C>*>(sums);
  Vector<C> sum[examples][vectors];
  for (int e = 0; e < examples; ++e) {
    for (int v = 0; v < vectors; ++v) sum[e][v] = Vector<C>{};
  }
  for (int64_t u = 0; u < units; ++u, tile += pieces * width) {
    for (int e = 0; e < examples; ++e) {
      add_scaled(sum[e], load(grad[e * stride + u]), tile + index[e * stride + u] * width);
    }
  }
  for (int e = 0; e < examples; ++e) {
    for (int v = 0; v < vectors; ++v) out[e * vectors + v] += sum[e][v];
  }
}

template <class T>
void input_gradient(const MaxoutBackward& op, const T* weight, T* grad_x, int threads) {
  using C = compute_t<T>;
  const int64_t column_tiles = Columns<C>::count(op.in);
  const int64_t example_blocks = ceil_div(op.batch, kExampleBlock);
  const int64_t groups = ceil_div(op.units, std::max<int64_t>(1, kTileRows / op.pieces));
  parallel_chunks(column_tiles * example_blocks, threads, [&](int64_t item) {
    const Columns<C> columns(op.in, item / example_blocks);
    const Range examples(op.batch, example_blocks, item % example_blocks);
    alignas(kVectorBytes) C tile[kMaxPieces * kVectors * kLanes<C>];
    alignas(kVectorBytes) C sums[kExampleBlock * kVectors * kLanes<C>];
    with_count(columns.vectors, [&](auto count) {
      constexpr int vectors = decltype(count)::value;
      constexpr int64_t width = vectors * kLanes<C>;
      std::fill_n(sums, examples.size() * width, C(0));
      for (int64_t g = 0; g < groups; ++g) {
        const Range units(op.units, groups, g);
        pack<vectors>(weight + units.begin * op.pieces * op.in + columns.begin, op.in, units.size() * op.pieces,
                      columns.size, tile);
        int64_t e = 0;
        const T* grad = static_cast<const T*>(op.grad) + examples.begin * op.units + units.begin;
        const std::uint8_t* index = op.index + examples.begin * op.units + units.begin;
        const auto add = [&](auto at_once) {
          constexpr int n = decltype(at_once)::value;
          for (; e + n <= examples.size(); e += n) {
            add_live_rows<n, vectors>(grad + e * op.units, index + e * op.units, op.units, units.size(), op.pieces,
                                      tile, sums + e * width);
          }
        };
        add(Count<2>{});
        add(Count<1>{});
      }
      unpack<vectors>(sums, examples.size(), columns.size, op.in, grad_x + examples.begin * op.in + columns.begin);
    });
  });
}

// ---- gradient with respect to weight and bias ---------------------------------------------------------------------

// The live examples of each piece. Examples are cut into tiles; within tile and unit they are sorted by winning piece.
template <class C>
struct Live {
  C grad;
  std::int32_t row;  // of the tile
};

template <class C>
struct Sorted {
  Live<C>* examples;     // [batch * units]: for each tile, [units, rows of the tile]
  std::int32_t* starts;  // [tiles, units, pieces + 1]: where each piece begins among the rows

  explicit Sorted(const MaxoutBackward& op)
      : examples(static_cast<Live<C>*>(op.scratch)),
        starts(reinterpret_cast<std::int32_t*>(examples + op.batch * op.units)) {}

  // The live examples of one piece within tile t, whose rows are given.
  const Live<C>* begin(const MaxoutBackward& op, int64_t t, const Range& rows, int64_t u, int64_t p) const {
    return examples + rows.begin * op.units + u * rows.size() + starts[(t * op.units + u) * (op.pieces + 1) + p];
  }
};

// Counting sort for the units of one block within the tile `rows`. starts and examples are those of the tile.
template <class T, class C>
void sort_by_piece(const MaxoutBackward& op, const Range& rows, const Range& units, Live<C>* examples,
                   std::int32_t* starts) {
  const int64_t bins = op.pieces + 1;
  const T* grad = static_cast<const T*>(op.grad);
  std::fill(starts + units.begin * bins, starts + units.end * bins, 0);
  for (int64_t b = rows.begin; b < rows.end; ++b) {
    for (int64_t u = units.begin; u < units.end; ++u) ++starts[u * bins + op.index[b * op.units + u]];
  }
  for (int64_t u = units.begin; u < units.end; ++u) {  // counts -> where each piece begins
    std::int32_t begin = 0;
    for (int64_t p = 0; p < bins; ++p) begin += std::exchange(starts[u * bins + p], begin);
  }
  for (int64_t b = rows.begin; b < rows.end; ++b) {
    for (int64_t u = units.begin; u < units.end; ++u) {
      const int64_t at = b * op.units + u;
      const std::int32_t slot = starts[u * bins + op.index[at]]++;
      examples[u * rows.size() + slot] = {load(grad[at]), static_cast<std::int32_t>(b - rows.begin)};
    }
  }
  for (int64_t u = units.begin; u < units.end; ++u) {  // each start has moved to the next piece's: move back
    std::copy_backward(starts + u * bins, starts + u * bins + op.pieces, starts + (u + 1) * bins);
    starts[u * bins] = 0;
  }
}

// sum += sum of grad * tile row over the live examples of one piece.
template <int vectors, class C>
void add_live_examples(const Live<C>* live, const Live<C>* end, const C* tile, C* sum) {
  constexpr int64_t width = vectors * kLanes<C>;
  auto* out = reinterpret_cast<Vector<C>*>(sum);
  Vector<C> chain[2][vectors];
  for (int i = 0; i < 2; ++i) {
    for (int v = 0; v < vectors; ++v) chain[i][v] = Vector<C>{};
  }
  for (; live + 2 <= end; live += 2) {
    for (int i = 0; i < 2; ++i) add_scaled(chain[i], live[i].grad, tile + live[i].row * width);
  }
  if (live < end) add_scaled(chain[0], live->grad, tile + live->row * width);
  for (int v = 0; v < vectors; ++v) out[v] += chain[0][v] + chain[1][v];
}

template <class T>
void weight_gradient(const MaxoutBackward& op, const T* x, T* grad_weight, T* grad_bias, int threads) {
  using C = compute_t<T>;
  const Sorted<C> sorted(op);
  const int64_t tiles = ceil_div(op.batch, kTileRows), bins = op.pieces + 1;
  const int64_t unit_blocks = ceil_div(op.units, kMaxPieces / op.pieces), column_tiles = Columns<C>::count(op.in);

  parallel_chunks(tiles * unit_blocks, threads, [&](int64_t item) {
    const Range rows(op.batch, tiles, item / unit_blocks);
    const Range units(op.units, unit_blocks, item % unit_blocks);
    sort_by_piece<T>(op, rows, units, sorted.examples + rows.begin * op.units,
                     sorted.starts + item / unit_blocks * op.units * bins);
  });

  if (grad_bias != nullptr) {
    parallel_chunks(unit_blocks, threads, [&](int64_t item) {
      const Range units(op.units, unit_blocks, item);
      for (int64_t u = units.begin; u < units.end; ++u) {
        for (int64_t p = 0; p < op.pieces; ++p) {
          C sum = 0;
          for (int64_t t = 0; t < tiles; ++t) {
            const Range rows(op.batch, tiles, t);
            const Live<C>* end = sorted.begin(op, t, rows, u, p + 1);
            C of_tile = 0;
            for (const Live<C>* live = sorted.begin(op, t, rows, u, p); live < end; ++live) of_tile += live->grad;
            sum += of_tile;
          }
          grad_bias[u * op.pieces + p] = store<T>(sum);
        }
      }
    });
  }

  parallel_chunks(column_tiles * unit_blocks, threads, [&](int64_t item) {
    const Columns<C> columns(op.in, item / unit_blocks);
    const Range units(op.units, unit_blocks, item % unit_blocks);
    alignas(kVectorBytes) C tile[kTileRows * kVectors * kLanes<C>];
    alignas(kVectorBytes) C sums[kMaxPieces * kVectors * kLanes<C>];  // of the rows [units, pieces] of the weight
    with_count(columns.vectors, [&](auto count) {
      constexpr int vectors = decltype(count)::value;
      constexpr int64_t width = vectors * kLanes<C>;
      std::fill_n(sums, units.size() * op.pieces * width, C(0));
      for (int64_t t = 0; t < tiles; ++t) {
        const Range rows(op.batch, tiles, t);
        pack<vectors>(x + rows.begin * op.in + columns.begin, op.in, rows.size(), columns.size, tile);
        for (int64_t u = units.begin; u < units.end; ++u) {
          for (int64_t p = 0; p < op.pieces; ++p) {
            add_live_examples<vectors>(sorted.begin(op, t, rows, u, p), sorted.begin(op, t, rows, u, p + 1), tile,
                                       sums + ((u - units.begin) * op.pieces + p) * width);
          }
        }
      }
      unpack<vectors>(sums, units.size() * op.pieces, columns.size, op.in,
                      grad_weight + units.begin * op.pieces * op.in + columns.begin);
    });
  });
}

}  // namespace

void maxout_pool_cpu(DType dtype, const MaxoutPool& op, int threads) {
  with_type<float, double, bfloat16>(dtype, [&](auto element) { pool<decltype(element)>(op, threads); });
}

void maxout_spread_cpu(DType dtype, const MaxoutSpread& op, int threads) {
  with_type<float, double, bfloat16>(dtype, [&](auto element) { spread<decltype(element)>(op, threads); });
}

void maxout_grad_input_cpu(DType dtype, const MaxoutBackward& op, const void* weight, void* grad_x, int threads) {
  with_type<float, double, bfloat16>(dtype, [&](auto element) {
    using T = decltype(element);
    input_gradient(op, static_cast<const T*>(weight), static_cast<T*>(grad_x), threads);
  });
}

void maxout_grad_weight_cpu(DType dtype, const MaxoutBackward& op, const void* x, void* grad_weight, void* grad_bias,
                            int threads) {
  with_type<float, double, bfloat16>(dtype, [&](auto element) {
    using T = decltype(element);
    weight_gradient(op, static_cast<const T*>(x), static_cast<T*>(grad_weight), static_cast<T*>(grad_bias), threads);
  });
}

}  // namespace PYGAN_SIMD_LEVEL
}  // namespace pygan
