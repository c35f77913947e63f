"""The mistakes that mutate.py plants in the kernels, and the build of the SIMT suite that must notice each.

The build "cpp" stands for the C++ tests of the mutated header in tests/cpp.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """`old`, found exactly once in `file` (relative to the family's folder in csrc/), becomes `new`."""

    what: str
    old: str
    new: str
    file: str
    build: str = "plain"


def in_file(file: str, *rows: tuple[str, str, str] | tuple[str, str, str, str]) -> list[Mutation]:
    """rows: (what, old, new) or (what, old, new, build)."""
    return [Mutation(what, old, new, file, *build) for what, old, new, *build in rows]


MUTATIONS = {
    "adversarial_loss": in_file(
        "adversarial_loss_cuda.cu",
        ("reads one logit too many", "logit[k] = i < term.size", "logit[k] = i <= term.size", "asan"),
        ("omits the last logit", "if (i >= term.size) break;", "if (i + 1 >= term.size) break;"),
        (
            "stride without the grid",
            "static_cast<std::int64_t>(gridDim.x) * kThreads",
            "std::int64_t(kThreads)",
            "tsan",
        ),
        (
            "index in 32 bits",
            "for (std::int64_t begin = first;",
            "for (int begin = int(first);",
        ),
        ("gradient written where none is wanted", "if (gradient != nullptr) gradient[i]", "gradient[i]"),
        (
            "gradient without its sign",
            "static_cast<double>(term.sign * term.weight)",
            "static_cast<double>(term.weight)",
        ),
        ("sums overflow", "return is_finite(part) ? part :", "return true ? part :"),
        ("the small unit stays in the loss", "static_cast<double>(term.size) / unit", "static_cast<double>(term.size)"),
        ("an absent term is divided by its size", "return term.size > 0 ? term.weight", "return true ? term.weight"),
        ("all blocks' sums in one place", "partials[blockIdx.x] = sum", "partials[0] = sum", "tsan"),
        ("each of several blocks writes the loss", "if (gridDim.x == 1) *loss", "*loss", "tsan"),
        ("every thread writes the final loss", "if (threadIdx.x == 0) *loss", "*loss", "tsan"),
        ("the last partial sum is omitted", "i < count; i += kThreads", "i + 1 < count; i += kThreads"),
        ("the second kernel is not launched", "if (blocks == 1) return", "if (blocks >= 1) return"),
        ("the first kernel's error is not looked at", 'check_launch("adversarial_loss loss_kernel")', "(void)0"),
        ("the second kernel's error is not looked at", 'check_launch("adversarial_loss finish_kernel")', "(void)0"),
        ("the wrong device", "DeviceGuard guard(device)", "DeviceGuard guard(0)"),
        ("the default stream", "reinterpret_cast<cudaStream_t>(stream)", "cudaStream_t(nullptr)"),
    )
    + in_file(
        "adversarial_loss_math.h",
        ("the slope of the wrong side", "(t < 0 ? e : T(1))", "(t > 0 ? e : T(1))"),
        ("NaN does not stay in the slope", "t == t ? slope : t", "slope"),
    ),
    "dropout": in_file(
        "dropout_cuda.cu",
        (
            "elements before the first are written",
            "if (i >= 0 && i < last - first) y",
            "if (i < last - first) y",
            "asan",
        ),
        ("one element too many", "if (i >= 0 && i < last - first) y", "if (i >= 0 && i <= last - first) y", "asan"),
        ("offset of the mask left out", "c % kDropoutLanes - first", "c % kDropoutLanes", "asan"),
        ("the last counters are omitted", "end = ceil_div(last, kDropoutGroup)", "end = last / kDropoutGroup"),
        (
            "starts at the wrong counter",
            "first / kDropoutGroup * kDropoutLanes",
            "first / kDropoutGroup * kDropoutLanes + 1",
        ),
        ("two words swapped", "{w.w0, w.w1, w.w2, w.w3}", "{w.w0, w.w2, w.w1, w.w3}"),
        ("elements 4 apart instead of 16", "i = base + k * kDropoutLanes;\n      if", "i = base + k * 4;\n      if"),
        (
            "only three words are used",
            "k < 4; ++k) {\n      const std::int64_t i = base + k * kDropoutLanes;\n      if",
            "k < 3; ++k) {\n      const std::int64_t i = base + k * kDropoutLanes;\n      if",
        ),
        (
            "stride without the grid",
            "static_cast<std::int64_t>(gridDim.x) * kThreads",
            "std::int64_t(kThreads)",
            "tsan",
        ),
        ("counter in 32 bits", "for (std::int64_t c = begin", "for (int c = begin"),
        ("launch error not looked at", 'check_launch("dropout_kernel")', "(void)0"),
        ("the wrong device", "DeviceGuard guard(device)", "DeviceGuard guard(0)"),
        ("the default stream", "reinterpret_cast<cudaStream_t>(stream)", "cudaStream_t(nullptr)"),
    )
    + in_file(
        "dropout_math.h",
        ("the limit off by one", "static_cast<std::uint32_t>(count) - 1u", "static_cast<std::uint32_t>(count)", "cpp"),
        ("a dropped element is multiplied by 0", "compute_t<T>(0))", "load(x) * compute_t<T>(0))"),
    )
    + in_file(
        "../common/philox.h",
        ("nine rounds", "round < 10", "round < 9"),
        ("the key's upper half is lost", "static_cast<std::uint32_t>(key >> 32)", "0"),
    ),
    "momentum": in_file(
        "momentum_cuda.cu",
        ("one element too many", "i < t.size; i += stride", "i <= t.size; i += stride", "asan"),
        ("the last element is omitted", "i < t.size; i += stride", "i + 1 < t.size; i += stride"),
        (
            "stride without the grid",
            "static_cast<std::int64_t>(gridDim.x) * kThreads",
            "std::int64_t(kThreads)",
            "tsan",
        ),
        (
            "index in 32 bits",
            "for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x)",
            "for (int i = int(blockIdx.x)",
        ),
        ("every block updates the first tensor", "table.tensors[blockIdx.y]", "table.tensors[0]", "tsan"),
        ("parameter moves by the old velocity", "parameter[i] + v", "parameter[i] + velocity[i]"),
        ("copy written where none is wanted", "if (copy != nullptr) copy[i]", "copy[i]"),
        ("rate and momentum swapped", "rate = rates[0], momentum = rates[1]", "rate = rates[1], momentum = rates[0]"),
        ("the second table repeats the first", "tensors[begin + i]", "tensors[i]"),
        (
            "tensors beyond the table are left out",
            "begin < count; begin += kTableSize",
            "begin < 1; begin += kTableSize",
        ),
        ("an empty list is launched", "if (wanted == 0) continue", "if (wanted < 0) continue"),
        ("launch error not looked at", 'check_launch("momentum_kernel")', "(void)0"),
        ("the wrong device", "DeviceGuard guard(device)", "DeviceGuard guard(0)"),
        ("the default stream", "reinterpret_cast<cudaStream_t>(stream)", "cudaStream_t(nullptr)"),
    )
    + in_file(
        "momentum_math.h",
        ("gradient ascent", "momentum * velocity - rate", "momentum * velocity + rate"),
    )
    + in_file(
        "../common/dtype.h",
        ("bfloat16 truncates", "u + 0x7fffu + ((u >> 16) & 1u)", "u"),
        ("bfloat16 ties away from even", "0x7fffu + ((u >> 16) & 1u)", "0x8000u", "cpp"),
    ),
    "maxout": in_file(
        "maxout_cuda.cu",
        ("the first piece is left out", "T best = first[0]", "T best = first[op.pieces > 1 ? op.inner : 0]"),
        (
            "the last piece is left out",
            "p < op.pieces; ++p) {\n      const T value",
            "p + 1 < op.pieces; ++p) {\n      const T value",
        ),
        (
            "reads one piece too many",
            "p < op.pieces; ++p) {\n      const T value",
            "p <= op.pieces; ++p) {\n      const T value",
            "asan",
        ),
        ("pieces and inner swapped", "first[p * op.inner]", "first[p * op.pieces]"),
        ("the winner is not kept", "winner = p;", ";"),
        (
            "one output too many",
            "const int64_t size = op.outer * op.units * op.inner;",
            "const int64_t size = op.outer * op.units * op.inner + 1;",
            "asan",
        ),
        (
            "thread index in 32 bits",
            "static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x",
            "int(blockIdx.x * kThreads + threadIdx.x) / 2",
        ),
        ("stride without the grid", "static_cast<int64_t>(gridDim.x) * kThreads", "int64_t(kThreads)", "tsan"),
        ("spread to all pieces", "op.index[at] == piece ? grad[at] : T{}", "grad[at]"),
        ("spread reads the piece of the neighbour", "i / op.inner % op.pieces", "(i + 1) / op.inner % op.pieces"),
        ("no check of the last columns", "if (column >= op.in) return;", "", "asan"),
        ("one row too many", "b < op.batch; b += gridDim.x", "b <= op.batch; b += gridDim.x", "asan"),
        ("every piece takes the first weight", "u * op.pieces + index[u]", "u * op.pieces"),
        ("the last unit is omitted", "u < op.units; ++u", "u + 1 < op.units; ++u"),
        ("an index beyond the pieces is followed", "if (index[u] >= op.pieces) continue;", ""),
        (
            "float64 is summed in float32",
            "    C sum = 0;",
            "    typename std::conditional<sizeof(T) == 4, C, float>::type sum = 0;",
        ),
        ("the bias column is left out", "column > op.in || (is_bias", "column >= op.in || (is_bias"),
        ("a bias is written where none is wanted", "(is_bias && grad_bias == nullptr)", "false"),
        ("shared memory one piece short", "sums, [kSums][kColumns]", "sums, [kSums - 1][kColumns]", "asan"),
        ("shared memory one column short", "sums, [kSums][kColumns]", "sums, [kSums][kColumns - 1]", "tsan"),
        ("sums are not cleared", "sums[p][threadIdx.x] = 0", "(void)p"),
        ("all threads share one sum", "sums[piece][threadIdx.x] += load", "sums[piece][0] += load", "tsan"),
        ("pieces of other groups are not skipped", "if (piece < 0 || piece >= pieces) continue;", "", "asan"),
        ("groups of pieces overlap", "item % groups * kSums", "item % groups * (kSums - 1)", "tsan"),
        (
            "the last group of pieces is omitted",
            "groups = ceil_div(op.pieces, kSums)",
            "groups = op.pieces < kSums ? 1 : op.pieces / kSums",
        ),
        (
            "grid without the bias column",
            "op.units * ceil_div(op.pieces, kSums), op.in + 1)",
            "op.units * ceil_div(op.pieces, kSums), op.in)",
        ),
        ("pool's launch error is not looked at", 'check_launch("maxout pool_kernel")', "(void)0"),
        ("a wrong kernel is named", 'check_launch("maxout spread_kernel")', 'check_launch("maxout pool_kernel")'),
    )
    + in_file(
        "maxout_math.h",
        ("ties go to the last piece", "!(value <= best)", "!(value < best)"),
        ("the last NaN wins", "& (best == best)", ""),
        ("a NaN never wins", "!(value <= best)", "(value > best)"),
    ),
    "parzen": in_file(
        "parzen_cuda.cu",
        (
            "ragged lanes do not come to the vote",
            "base < row.n; base += kThreads",
            "base + lane < row.n; base += kThreads",
        ),
        ("lanes beyond the row vote", "i < row.n && wanted(i)", "wanted(i)", "asan"),
        ("the neighbour's sample is taken", "(base + owner) * row.d", "(base + owner + 1) * row.d", "asan"),
        ("every lane keeps the distance", "if (lane == owner) row.d2[i]", "if (i < row.n) row.d2[i]"),
        (
            "the distance of a row in one lane only",
            "if (lane == owner) row.d2[i] = static_cast<T>(sum)",
            "if (lane == 0) row.d2[base + owner] = static_cast<T>(sum)",
            "tsan",
        ),
        ("differences without the scale", "static_cast<double>(s[k])) * row.scale", "static_cast<double>(s[k]))"),
        ("products without their unit", "static_cast<T>(2 * product_unit)", "static_cast<T>(2)"),
        ("overflowed distances stay", "if (block_sum<kThreads>(zero) == 0) return", "if (true) return"),
        ("NaN stays unseen", "d2[i] != d2[i]; }) != 0) return", "d2[i] != d2[i]; }) < 0) return"),
        ("small bandwidths see the distances of large ones", "sigmas = is_same_for_all ?", "sigmas = true ?"),
        (
            "one column too many in centre",
            "k < d; k += kThreads) {\n    const T value = (rows",
            "k <= d; k += kThreads) {\n    const T value = (rows",
            "asan",
        ),
        ("row offset in 32 bits", "static_cast<std::int64_t>(blockIdx.x) * d", "int(blockIdx.x * unsigned(d))"),
        (
            "every thread writes the norm",
            "if (threadIdx.x == 0) norms[blockIdx.x] = norm",
            "norms[blockIdx.x] = norm",
            "tsan",
        ),
        (
            "sigmas beyond the first group are left out",
            "group < tile.sigmas; group += sigmas",
            "group < 1; group += sigmas",
        ),
        (
            "the group ends too late",
            "if (s >= sigmas) break;",
            "if (s >= kSigmaGroup) break;",
            "asan",
        ),
        ("the tile replaces the earlier ones", "merge({peak[at], sum[at]}, {", "merge({-infinity<double>(), 0}, {"),
        ("every thread merges", "if (threadIdx.x != 0) continue;", "", "tsan"),
        ("stride and rows swapped", "(group + s) * tile.stride + j", "(group + s) + j * tile.stride"),
        ("mean squares replace the earlier ones", "mean_square[at] +=", "mean_square[at] ="),
        ("weights of one sigma", "weight += static_cast<T>", "weight = static_cast<T>"),
        ("split: the low half everywhere", "section == low_section ? low : high", "low"),
        ("split: rows of one section", "i / d * d * sections", "i / d * d", "tsan"),
        ("split: without the unit", "moved[i] * unit", "moved[i]"),
        ("split: one number too many", "i < size; i += stride", "i <= size; i += stride", "asan"),
        ("a name is wrong in an error", 'check_launch("parzen weights_kernel")', 'check_launch("parzen kernel")'),
    )
    + in_file(
        "../common/block.h",
        (
            "no barrier between a warp's value and its reading",
            "value;\n  __syncthreads();\n  value = of_warp[0]",
            "value;\n  value = of_warp[0]",
            "tsan",
        ),
        ("no barrier before the next fold", "  __syncthreads();  // before the next fold writes\n", "", "tsan"),
        (
            "the warps' fold omits the last warp",
            "for (int warp = 1; warp < kThreads / kWarp; ++warp)",
            "for (int warp = 1; warp < kThreads / kWarp - 1; ++warp)",
        ),
        (
            "the warps' fold reads one warp too many",
            "for (int warp = 1; warp < kThreads / kWarp; ++warp)",
            "for (int warp = 1; warp <= kThreads / kWarp; ++warp)",
            "asan",
        ),
        ("shared memory one warp short", "of_warp, [kThreads / kWarp]", "of_warp, [kThreads / kWarp - 1]", "asan"),
        (
            "a shuffle of half a warp",
            "fold(value, __shfl_xor_sync(kAllLanes, value, offset))",
            "fold(value, __shfl_xor_sync(0xffffu, value, offset))",
        ),
        (
            "the shuffles omit a level",
            "offset = kWarp / 2; offset > 0; offset /= 2) value",
            "offset = kWarp / 4; offset > 0; offset /= 2) value",
        ),
        ("every lane writes its warp's value", "if (threadIdx.x % kWarp == 0) of_warp", "of_warp", "tsan"),
        ("the minimum of a fold is a maximum", "return b < a ? b : a;", "return b < a ? a : b;"),
    )
    + in_file(
        "parzen_fused_cuda.cu",
        (
            "fused: no barrier before the rates are read",
            "group + threadIdx.x]);\n  __syncthreads();",
            "group + threadIdx.x]);",
            "tsan",
        ),
        ("fused: no barrier after the load", "samples);\n      __syncthreads();", "samples);", "tsan"),
        (
            "fused: no barrier before the next load",
            "      __syncthreads();  // before the next values are loaded\n",
            "",
            "tsan",
        ),
        ("fused: rows beyond the points are read", "top + row < end && k + column < d", "k + column < d", "asan"),
        ("fused: values beyond the row are taken", "top + row < end && k + column < d", "top + row < end"),
        ("fused: the last value is left out", "k + column < d;", "k + column + 1 < d;"),
        (
            "fused: row offset in 32 bits",
            "matrix[(top + row) * d + k + column]",
            "matrix[int((top + row) * d) + k + column]",
        ),
        (
            "fused: not all rows are loaded",
            "row < rows; row += kThreads / kDepth",
            "row + 1 < rows; row += kThreads / kDepth",
        ),
        ("fused: a stride too small, so that rows are loaded twice", "row += kThreads / kDepth", "row += 1", "tsan"),
        ("fused: the last values of a row are left out", "ceil_div(op.d - k, 4)", "(op.d - k) / 4"),
        ("fused: later values are left out", "k < op.d; k += kDepth", "k < op.d && k == 0; k += kDepth"),
        ("fused: rows of a thread overlap", "points[row + i * kRowStep]", "points[row + i]"),
        ("fused: columns of a thread overlap", "samples[column + j * kLanes]", "samples[column + j]"),
        ("fused: NaN loses the minimum", "b < a || b != b ? b : a", "b < a ? b : a"),
        (
            "fused: the fold gives away what it should keep",
            "kept = is_upper ? values[i + half] : values[i]",
            "kept = is_upper ? values[i] : values[i + half]",
        ),
        (
            "fused: the fold omits its last step",
            "return fold(values[0], __shfl_xor_sync(kAllLanes, values[0], 1));",
            "return values[0];",
        ),
        (
            "fused: a shuffle of half a warp",
            "__shfl_xor_sync(kAllLanes, given, 2 * half)",
            "__shfl_xor_sync(0xffffu, given, 2 * half)",
        ),
        (
            "fused: shuffles cross the rows' half warps",
            "__shfl_sync(kAllLanes, least, 2 * i, kLanes)",
            "__shfl_sync(kAllLanes, least, 2 * i, 32)",
        ),
        ("fused: the minimum of the neighbouring row", "least, 2 * i, kLanes)", "least, 2 * i + 2, kLanes)"),
        ("fused: samples beyond the part count", "left + lane + j * kLanes < end ?", "true ?"),
        (
            "fused: a part reads the next one's samples",
            "begin + share < op.count ? begin + share : op.count",
            "op.count",
        ),
        (
            "fused: parts leave samples out",
            "ceil_div(ceil_div(op.count, kColumns<T>), gridDim.y)",
            "op.count / kColumns<T> / gridDim.y",
        ),
        (
            "fused: the minimum of earlier tiles is forgotten",
            "least = minimum(least, fold_rows",
            "least = minimum(infinity<T>(), fold_rows",
        ),
        (
            "fused: sums are not made smaller when the minimum falls",
            "      sums[s][row].scale(exp2_nonpositive(fall * rate));\n",
            "",
        ),
        ("fused: the tile replaces the earlier ones", "sums[s][row].add(total)", "sums[s][row] = {total, 0}"),
        ("fused: both threads of a row add", "if (!keeps) continue;", "", "tsan"),
        ("fused: sums are not cleared", "sums[s][row] = {0, 0}", "(void)s"),
        (
            "fused: shared memory one sigma short",
            "Sum<T>, sums, [kSigmas][kRows]",
            "Sum<T>, sums, [kSigmas - 1][kRows]",
            "asan",
        ),
        (
            "fused: shared memory one row short",
            "TileRow<T>, points, [kRows]",
            "TileRow<T>, points, [kRows - 1]",
            "asan",
        ),
        (
            "fused: rates of the first group for all",
            "binary_rate<T>(op.rates[group + threadIdx.x])",
            "binary_rate<T>(op.rates[threadIdx.x])",
        ),
        (
            "fused: more rates than there are",
            "threadIdx.x < static_cast<unsigned>(sigmas)",
            "threadIdx.x < kSigmas",
            "asan",
        ),
        (
            "fused: rows beyond the points are written",
            "if (!keeps || top + row >= op.n) return;",
            "if (!keeps) return;",
            "asan",
        ),
        (
            "fused: every part writes to the first",
            "(blockIdx.y * op.sigmas + group + s) * op.n",
            "(group + s) * op.n",
            "tsan",
        ),
        (
            "fused: sigmas and points swapped",
            "(blockIdx.y * op.sigmas + group + s) * op.n + top + row",
            "(blockIdx.y * op.n + top + row) * op.sigmas + group + s",
        ),
        ("fused: numbers are scaled up before the difference", "*op.scale < 1 ? *op.scale : 1", "*op.scale"),
        (
            "fused: numbers are not scaled down",
            "load(static_cast<const T*>(op.x), top, op.n, k, op.d, shrink",
            "load(static_cast<const T*>(op.x), top, op.n, k, op.d, T(1)",
        ),
        ("fused: differences are not scaled up", "if (kMagnify) difference *= magnify;", ""),
        ("fused: the grid lacks the last points", "ceil_div(op.n, kRows))", "op.n / kRows + (op.n < kRows))"),
        (
            "fused: sigmas beyond the first group are left out",
            "static_cast<unsigned>(ceil_div(op.sigmas, kSigmas))",
            "1u",
        ),
        ("fused: too many parts", "wanted < most ? wanted : most", "wanted"),
        ("fused: the wrong device", "DeviceGuard guard(device)", "DeviceGuard guard(0)"),
        (
            "fused: values swapped in the samples only",
            "samples[column + j * kLanes][k]",
            "samples[column + j * kLanes][fours - 1 - k]",
        ),
        ("fused: the default stream", "reinterpret_cast<cudaStream_t>(stream)", "cudaStream_t(nullptr)"),
        ("fused: launch error not looked at", 'check_launch("parzen fused_kernel")', "(void)0"),
    )
    + in_file(
        "../common/sum.h",
        ("fused: rounding errors are lost", "lost += value - (next - total)", "lost += 0 * (next - total)"),
        ("fused: infinity minus infinity", "total < static_cast<T>(HUGE_VAL) ? total + lost : total", "total + lost"),
    )
    + in_file(
        "parzen_math.h",
        ("a rate that overflows", "rate * kLog2e > largest ? largest : rate * kLog2e", "rate * kLog2e"),
        ("exponent of an infinite rate at distance 0", "d2 == 0 && rate > 0 ? 0 : -rate * d2", "-rate * d2"),
        (
            "NaN is taken for an empty sum",
            "if (a.peak == -infinity<double>()) return b;",
            "if (a.sum == 0) return b;",
            "cpp",
        ),
        (
            "a row's offset in 32 bits",
            "static_cast<T*>(tile.products) + j * tile.columns",
            "static_cast<T*>(tile.products) + int(j * tile.columns)",
        ),
        ("a merge keeps the lower peak", "return {high.peak", "return {low.peak"),
        ("negative distances stay", "d2 < 0 ? T(0) : d2", "d2", "cpp"),
        (
            "the nearest samples' distances stay lossy",
            "    loops_.replace(lossy(kNone, kQuarter, -largest<T>(), covered_));\n",
            "",
        ),
        (
            "a bandwidth's distances stay lossy",
            "    loops_.replace(lossy(kNone, kQuarter, covered_, farthest(rate)));\n",
            "",
        ),
        ("the error of products is ignored", "return d2[i] - error * norms(i);", "return d2[i];"),
        ("distances of half the norms stay lossy", "      loops_.replace(few);\n", ""),
    ),
}
