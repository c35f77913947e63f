#include <algorithm>
#include <type_traits>
#include <utility>

#include "common/parallel.h"
#include "maxout/maxout.h"
#include "maxout/maxout_math.h"
#include "sparse_products/sparse_rows.h"

namespace pygan {
namespace PYGAN_SIMD_LEVEL {
namespace {

using std::int64_t;

static_assert(kMaxPieces <= kMostTileRows, "the pieces of a unit are in one tile");
constexpr int64_t kPoolBlock = 64;  // units or positions whose maximum is formed at once

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

// ---- gradients ------------------------------------------------------------------------------------------------------

// The gradient of the pieces, [batch, units * pieces], has one entry that is not zero for each example and unit, and
// none where dropout has taken the unit. It is not formed: only its live entries are.

template <class T>
SparseRows<compute_t<T>> live_pieces_of_examples(const MaxoutBackward& op, int threads) {
  SparseRows<compute_t<T>> sparse(op.batch, op.units, op.pieces, 1);
  parallel_chunks(sparse.tiles(), threads, [&](int64_t t) {
    const Range units = sparse.columns(t);
    for (int64_t b = 0; b < op.batch; ++b) {
      const int64_t first = b * op.units + units.begin;
      auto& span = sparse.span(t, b);
      span.begin = span.end = sparse.place(t, b);
      for (int64_t u = 0; u < units.size(); ++u) {
        append(span, load(static_cast<const T*>(op.grad)[first + u]), u * op.pieces + op.index[first + u]);
      }
    }
  });
  return sparse;
}

// The transpose: within a tile of examples and a unit, they are sorted by winning piece.
template <class T>
SparseRows<compute_t<T>> live_examples_of_pieces(const MaxoutBackward& op, int threads) {
  SparseRows<compute_t<T>> sparse(op.units * op.pieces, op.batch, 1, op.pieces);
  const int64_t unit_blocks = ceil_div(op.units, kMaxPieces / op.pieces);
  parallel_chunks(sparse.tiles() * unit_blocks, threads, [&](int64_t item) {
    const int64_t t = item / unit_blocks;
    const Range examples = sparse.columns(t), units(op.units, unit_blocks, item % unit_blocks);
    const auto each_unit_of_each_example = [&](const auto& visit) {
      for (int64_t b = examples.begin; b < examples.end; ++b) {
        for (int64_t u = units.begin; u < units.end; ++u) {
          const int64_t at = b * op.units + u;
          visit(u * op.pieces + op.index[at], load(static_cast<const T*>(op.grad)[at]), b - examples.begin);
        }
      }
    };
    const int64_t first = units.begin * op.pieces;
    std::int32_t live[kMaxPieces] = {};
    each_unit_of_each_example([&](int64_t piece, auto grad, int64_t) { live[piece - first] += grad != 0; });
    for (int64_t u = units.begin; u < units.end; ++u) {
      auto* place = sparse.place(t, u * op.pieces);
      for (int64_t piece = u * op.pieces; piece < (u + 1) * op.pieces; ++piece) {
        sparse.span(t, piece).begin = sparse.span(t, piece).end = place;
        place += live[piece - first] + 1;
      }
    }
    each_unit_of_each_example([&](int64_t piece, auto grad, int64_t row) { append(sparse.span(t, piece), grad, row); });
  });
  return sparse;
}

template <class T>
void input_gradient(const MaxoutBackward& op, const T* weight, T* grad_x, int threads) {
  const Matrix<T> matrix{weight, op.units * op.pieces, op.in, op.in, 1};
  multiply<T>(live_pieces_of_examples<T>(op, threads), matrix, nullptr, grad_x, threads);
}

// The sums of each piece's gradients: of those of a tile first, then of the tiles.
template <class T, class C>
void bias_gradient(const SparseRows<C>& live, T* grad_bias, int threads) {
  const int64_t blocks = ceil_div(live.rows(), kOutputBlock);
  parallel_chunks(blocks, threads, [&](int64_t block) {
    const Range pieces(live.rows(), blocks, block);
    for (int64_t piece = pieces.begin; piece < pieces.end; ++piece) {
      C sum = 0;
      for (int64_t t = 0; t < live.tiles(); ++t) {
        const auto& span = live.span(t, piece);
        C of_tile = 0;
        for (const Live<C>* entry = span.begin; entry < span.end; ++entry) of_tile += entry->value;
        sum += of_tile;
      }
      grad_bias[piece] = store<T>(sum);
    }
  });
}

template <class T>
void weight_gradient(const MaxoutBackward& op, const T* x, T* grad_weight, T* grad_bias, int threads) {
  const auto live = live_examples_of_pieces<T>(op, threads);
  if (grad_bias != nullptr) bias_gradient(live, grad_bias, threads);
  multiply<T>(live, Matrix<T>{x, op.batch, op.in, op.in, 1}, nullptr, grad_weight, threads);
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
