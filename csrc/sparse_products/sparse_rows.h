// Matrix products whose left operand is mostly zeros: only its live entries are visited.
//
// Such a product meets one row of the right operand per live entry. What makes it faster than the dense product is that
// the strip of rows in use stays in the L1 cache (a tile, packed so that no stride of the matrix can make its rows
// collide there), and that the sums of a row stay in kVectors registers.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <type_traits>

#include "common/dtype.h"
#include "common/parallel.h"

namespace pygan {
namespace PYGAN_SIMD_LEVEL {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif
constexpr int kVectors = 4;                  // vectors across a tile
constexpr std::int64_t kTileRows = 104;      // 26 KB at the widest; batches of 100 or 200 fill them
constexpr std::int64_t kMostTileRows = 256;  // of a group of more rows than kTileRows
constexpr std::int64_t kOutputBlock = 256;   // rows of the result in one work item

template <class C>
struct VectorOf {
  typedef C type __attribute__((vector_size(kVectorBytes)));
};
template <class C>
using Vector = typename VectorOf<C>::type;
template <class C>
constexpr std::int64_t kLanes = kVectorBytes / std::int64_t(sizeof(C));

// Part i of [0, n) cut into `parts` nearly equal parts.
struct Range {
  std::int64_t begin, end;
  Range(std::int64_t n, std::int64_t parts, std::int64_t i)
      : begin(border(n, parts, i)), end(border(n, parts, i + 1)) {}
  std::int64_t size() const { return end - begin; }
  Range operator*(std::int64_t n) const { return {begin * n, end * n}; }

 private:
  Range(std::int64_t begin, std::int64_t end) : begin(begin), end(end) {}
  static std::int64_t border(std::int64_t n, std::int64_t parts, std::int64_t i) {
    return n / parts * i + std::min(i, n % parts);
  }
};

// A matrix in memory, by the distance between its rows and between its columns, in elements.
template <class T>
struct Matrix {
  const T* data;
  std::int64_t rows, columns, row_stride, column_stride;
  const T* at(std::int64_t r, std::int64_t c) const { return data + r * row_stride + c * column_stride; }
};

// An entry of the left operand, and the row of the right operand that it meets, counted from the tile's first.
template <class C>
struct Live {
  C value;
  std::int32_t row;
};

// The live entries of a left operand [rows, columns]. Its columns are cut into tiles: span(t, r) has the entries of row
// r in tile t, in the order of the columns.
//
// group: how many rows of the right operand a column stands for; each of its entries meets one of them.
// sharing: how many neighbouring rows have at most one entry together in each column; it divides `rows`.
template <class C>
class SparseRows {
 public:
  struct Span {
    Live<C>*begin, *end;
  };

  SparseRows(std::int64_t rows, std::int64_t columns, std::int64_t group, std::int64_t sharing)
      : rows_(rows),
        columns_(columns),
        group_(group),
        sharing_(sharing),
        tiles_(std::max<std::int64_t>(1, ceil_div(columns, std::max<std::int64_t>(1, kTileRows / group)))),
        live_(new Live<C>[rows / sharing * columns + rows * tiles_]),
        spans_(new Span[rows * tiles_]) {}

  std::int64_t rows() const { return rows_; }
  std::int64_t tiles() const { return tiles_; }
  Range columns(std::int64_t t) const { return {columns_, tiles_, t}; }
  Range right_rows(std::int64_t t) const { return columns(t) * group_; }
  Span& span(std::int64_t t, std::int64_t r) const { return spans_[t * rows_ + r]; }

  // Where the entries of row r and of those that share with it may stand, r being the first of them. A slot more than
  // entries for each row lets whoever fills a span write every entry, and step over those that live: which ones do is
  // hard to predict.
  Live<C>* place(std::int64_t t, std::int64_t r) const {
    const Range tile = columns(t);
    return live_.get() + (tile.begin * rows_ + r * tile.size()) / sharing_ + t * rows_ + r;
  }

 private:
  std::int64_t rows_, columns_, group_, sharing_, tiles_;
  std::unique_ptr<Live<C>[]> live_;
  std::unique_ptr<Span[]> spans_;
};

// Adds an entry to the end of a span, if it lives.
template <class C>
void append(typename SparseRows<C>::Span& span, C value, std::int64_t row) {
  *span.end = {value, static_cast<std::int32_t>(row)};
  span.end += value != 0;
}

// Calls run with the number of vectors across a tile as a compile-time constant.
template <int n>
using Count = std::integral_constant<int, n>;
template <class Run>
void with_count(std::int64_t vectors, const Run& run) {
  static_assert(kVectors == 4, "one line per count");
  if (vectors == 1) return run(Count<1>{});
  if (vectors == 2) return run(Count<2>{});
  if (vectors == 3) return run(Count<3>{});
  if (vectors == 4) return run(Count<4>{});
}

// The columns of one work item: at most kVectors vectors.
template <class C>
struct Columns {
  std::int64_t begin, size, vectors;
  static std::int64_t count(std::int64_t n) { return ceil_div(ceil_div(n, kLanes<C>), kVectors); }
  Columns(std::int64_t n, std::int64_t i) {
    const Range range(ceil_div(n, kLanes<C>), count(n), i);
    begin = range.begin * kLanes<C>;
    size = std::min(range.end * kLanes<C>, n) - begin;
    vectors = range.size();
  }
};

// n numbers in the compute type, and the reverse, rounded once.
template <class C, class T>
void load_row(const T* row, std::int64_t n, C* to) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = load(row[i]);
}
template <class C, class T>
void store_row(const C* row, std::int64_t n, T* to) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = store<T>(row[i]);
}

// Brings n neighbouring numbers to the cache: the processor does not foresee rows that are far apart.
template <class T>
void prefetch(const T* numbers, std::int64_t n) {
  for (std::int64_t i = 0; i < n; i += 64 / std::int64_t(sizeof(T))) __builtin_prefetch(numbers + i, 0, 2);
}

// Rows of a matrix, from column `first` on, side by side in the compute type, filled up with zeros to `width`.
template <std::int64_t width, class C, class T>
void pack(const Matrix<T>& matrix, const Range& rows, std::int64_t first, std::int64_t columns, C* tile) {
  constexpr std::int64_t kAhead = 16;
  if (matrix.column_stride != 1) {  // along the columns of the tile, which are rows of memory
    for (std::int64_t c = 0; c < width; ++c) {
      if (first + c + kAhead < matrix.columns) prefetch(matrix.at(rows.begin, first + c + kAhead), rows.size());
      for (std::int64_t r = 0; r < rows.size(); ++r) {
        tile[r * width + c] = c < columns ? load(*matrix.at(rows.begin + r, first + c)) : C(0);
      }
    }
    return;
  }
  for (std::int64_t r = 0; r < rows.size(); ++r, tile += width) {
    const std::int64_t in_next_tile = rows.end + r;
    if (in_next_tile < matrix.rows) prefetch(matrix.at(in_next_tile, first), columns);
    if (columns == width) {
      load_row(matrix.at(rows.begin + r, first), width, tile);
    } else {
      load_row(matrix.at(rows.begin + r, first), columns, tile);
      std::fill(tile + columns, tile + width, C(0));
    }
  }
}

// sum = start + sum of value * tile row over live entries. No more than one chain of additions per vector: the
// processor works ahead on the next rows, whose lengths no second chain makes harder to predict.
template <int vectors, class C>
void add_live(const Live<C>* live, const Live<C>* end, const C* tile, const C* start, C* sum) {
  constexpr std::int64_t width = vectors * kLanes<C>;
  const auto* in = reinterpret_cast<const Vector<C>*>(start);
  auto* out = reinterpret_cast<Vector<C>*>(sum);
  Vector<C> total[vectors];
  for (int v = 0; v < vectors; ++v) total[v] = in[v];
  for (; live < end; ++live) {
    const auto* row = reinterpret_cast<const Vector<C>*>(tile + live->row * width);
    for (int v = 0; v < vectors; ++v) total[v] += live->value * row[v];
  }
  for (int v = 0; v < vectors; ++v) out[v] = total[v];
}

// out [rows, columns] = left [rows, inner] right [inner, columns], plus bias [columns] if there is one.
template <class T, class C>
void multiply(const SparseRows<C>& left, const Matrix<T>& right, const T* bias, T* out, int threads) {
  const std::int64_t columns = right.columns;
  const std::int64_t blocks = ceil_div(left.rows(), kOutputBlock);
  parallel_chunks(Columns<C>::count(columns) * blocks, threads, [&](std::int64_t item) {
    const Columns<C> strip(columns, item / blocks);
    const Range rows(left.rows(), blocks, item % blocks);
    alignas(kVectorBytes) C tile[kMostTileRows * kVectors * kLanes<C>];
    alignas(kVectorBytes) C sums[kOutputBlock * kVectors * kLanes<C>];
    with_count(strip.vectors, [&](auto count) {
      constexpr int vectors = decltype(count)::value;
      constexpr std::int64_t width = vectors * kLanes<C>;
      alignas(kVectorBytes) C start[width] = {};
      if (bias != nullptr) load_row(bias + strip.begin, strip.size, start);
      for (std::int64_t t = 0; t < left.tiles(); ++t) {
        if (right.rows > 0) pack<width>(right, left.right_rows(t), strip.begin, strip.size, tile);
        const bool last = t + 1 == left.tiles();
        for (std::int64_t r = rows.begin; r < rows.end; ++r) {
          const auto& span = left.span(t, r);
          C* sum = sums + (r - rows.begin) * width;
          add_live<vectors>(span.begin, span.end, tile, t == 0 ? start : sum, sum);
          if (!last) continue;
          T* to = out + r * columns + strip.begin;  // at once: the processor fetches these lines while it adds
          strip.size == width ? store_row(sum, width, to) : store_row(sum, strip.size, to);
        }
      }
    });
  });
}

}  // namespace PYGAN_SIMD_LEVEL
}  // namespace pygan
