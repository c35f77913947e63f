#include "sparse_products/sparse_products.h"

#include <atomic>

#include "sparse_products/sparse_rows.h"

namespace pygan {
namespace PYGAN_SIMD_LEVEL {
namespace {

using std::int64_t;

// ---- live entries -------------------------------------------------------------------------------------------------

template <class T>
int64_t count_live(const T* values, int64_t n, int threads) {
  constexpr int64_t kChunk = 16384;
  std::atomic<int64_t> total{0};
  parallel_chunks(ceil_div(n, kChunk), threads, [&](int64_t chunk) {
    const int64_t end = std::min(n, (chunk + 1) * kChunk);
    std::int32_t live = 0;
    for (int64_t i = chunk * kChunk; i < end; ++i) live += load(values[i]) != 0;
    total.fetch_add(live, std::memory_order_relaxed);
  });
  return total;
}

// Those of each row of `values`.
template <class T>
SparseRows<compute_t<T>> live_in_rows(const SparseOperand& op, int threads) {
  SparseRows<compute_t<T>> sparse(op.n, op.m, 1, 1);
  parallel_chunks(sparse.tiles(), threads, [&](int64_t t) {
    const Range tile = sparse.columns(t);
    for (int64_t r = 0; r < op.n; ++r) {
      const T* row = static_cast<const T*>(op.values) + r * op.m + tile.begin;
      auto& span = sparse.span(t, r);
      span.begin = span.end = sparse.place(t, r);
      for (int64_t c = 0; c < tile.size(); ++c) append(span, load(row[c]), c);
    }
  });
  return sparse;
}

// Those of each column of `values`: the rows of its transpose.
template <class T>
SparseRows<compute_t<T>> live_in_columns(const SparseOperand& op, int threads) {
  constexpr int64_t kBlock = 64;
  SparseRows<compute_t<T>> sparse(op.m, op.n, 1, 1);
  const int64_t blocks = ceil_div(op.m, kBlock);
  parallel_chunks(sparse.tiles() * blocks, threads, [&](int64_t item) {
    const int64_t t = item / blocks;
    const Range tile = sparse.columns(t), columns(op.m, blocks, item % blocks);
    for (int64_t c = columns.begin; c < columns.end; ++c) {
      sparse.span(t, c).begin = sparse.span(t, c).end = sparse.place(t, c);
    }
    for (int64_t r = tile.begin; r < tile.end; ++r) {
      const T* row = static_cast<const T*>(op.values) + r * op.m;
      for (int64_t c = columns.begin; c < columns.end; ++c) append(sparse.span(t, c), load(row[c]), r - tile.begin);
    }
  });
  return sparse;
}

// ---- products -----------------------------------------------------------------------------------------------------

template <class T>
void times(const SparseOperand& left, const Strided& right, const T* bias, int64_t columns, T* out, int threads) {
  const Matrix<T> matrix{static_cast<const T*>(right.data), left.m, columns, right.row_stride, right.column_stride};
  multiply(live_in_rows<T>(left, threads), matrix, bias, out, threads);
}

template <class T>
void outer(const SparseOperand& left, const T* x, int64_t columns, T* out, int threads) {
  const Matrix<T> matrix{x, left.n, columns, columns, 1};
  multiply<T>(live_in_columns<T>(left, threads), matrix, nullptr, out, threads);
}

}  // namespace

int64_t count_live_cpu(DType dtype, const void* values, int64_t n, int threads) {
  int64_t live = 0;
  with_type<float, double, bfloat16>(
      dtype, [&](auto element) { live = count_live(static_cast<const decltype(element)*>(values), n, threads); });
  return live;
}

void sparse_times_cpu(DType dtype, const SparseOperand& left, const Strided& matrix, const void* bias, int64_t columns,
                      void* out, int threads) {
  with_type<float, double, bfloat16>(dtype, [&](auto element) {
    using T = decltype(element);
    times(left, matrix, static_cast<const T*>(bias), columns, static_cast<T*>(out), threads);
  });
}

void sparse_outer_cpu(DType dtype, const SparseOperand& left, const void* x, int64_t columns, void* out, int threads) {
  with_type<float, double, bfloat16>(dtype, [&](auto element) {
    using T = decltype(element);
    outer(left, static_cast<const T*>(x), columns, static_cast<T*>(out), threads);
  });
}

}  // namespace PYGAN_SIMD_LEVEL
}  // namespace pygan
