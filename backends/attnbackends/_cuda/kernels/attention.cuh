// What the attention kernels share. REAL is float or double, VALUE what arrays hold: the same or half precision.
// Rows of queries, keys, values and outputs are contiguous;
// only the gradient of the output may have gaps between its rows.

#include "real.cuh"
#ifndef VALUE
#define VALUE REAL
#endif
#define EVERY_LANE 0xffffffffu

// What is done to scores and weights beyond scaling and softmax, by the bits of OPTIONS; without a bit there is none of its
// code, and without any none of its parameters.
#ifndef OPTIONS
#define OPTIONS 0
#endif
#define SOFTCAP (OPTIONS & 1)
#define BIAS (OPTIONS & 2)
#define SINKS (OPTIONS & 4)
#define DROPOUT (OPTIONS & 8)

#include "random.cuh"

struct alignas(16) Four {
    REAL x, y, z, w;
};

__device__ inline REAL dot(const Four &a, const Four &b, REAL sum) {
    return sum + a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
}

__device__ inline void add_scaled(Four &sum, REAL factor, const Four &x) {
    sum.x += factor * x.x, sum.y += factor * x.y, sum.z += factor * x.z, sum.w += factor * x.w;
}

// Rows (count, width), each `gap` after the one before, may be read and written four values at a time.
__device__ inline bool in_fours(const REAL *rows, long long gap, int width) {
    return width % 4 == 0 && gap % 4 == 0 && (unsigned long long)rows % 16 == 0;
}

// Values d to d + 3 of a row; past its width they are 0.
__device__ inline Four load(const REAL *row, int d, int width, bool fours) {
    if (fours && d < width) return *(const Four *)(row + d);
    return {d < width ? row[d] : 0, d + 1 < width ? row[d + 1] : 0, d + 2 < width ? row[d + 2] : 0,
            d + 3 < width ? row[d + 3] : 0};
}

__device__ inline void store(REAL *row, int d, int width, bool fours, const Four &value) {
    if (fours && d < width) {
        *(Four *)(row + d) = value;
        return;
    }
    if (d < width) row[d] = value.x;
    if (d + 1 < width) row[d + 1] = value.y;
    if (d + 2 < width) row[d + 2] = value.z;
    if (d + 3 < width) row[d + 3] = value.w;
}

// A whole block copies `count` rows times `factor` into shared memory, `pitch` apart there, with zeros up to `padded` (a
// multiple of four), for rows that `keep` leaves out (null: none), and up to `full` rows.
__device__ inline void stage(REAL *to, int pitch, int padded, const REAL *from, long long gap, int width, int count,
                             int full, const unsigned char *keep, REAL factor = 1) {
    const bool fours = in_fours(from, gap, width);
    for (int at = threadIdx.x; at < full * (padded / 4); at += blockDim.x) {
        const int r = at / (padded / 4), d = at % (padded / 4) * 4;
        Four value = {0, 0, 0, 0};
        if (r < count && (!keep || keep[r])) value = load(from + r * gap, d, width, fours);
        *(Four *)(to + r * pitch + d) = {factor * value.x, factor * value.y, factor * value.z, factor * value.w};
    }
}

// What makes weights again from scores, exp(score - shift) * inverse: stats (2, B, R) hold the largest score of each row
// and one over the sum that belongs to it, or 0 and 0 where a row sees nothing. One number for both, the log-sum-exp,
// would lose the sum in rounding where scores are large.
struct Stats {
    REAL *shift, *inverse;  // of one entry

    __device__ Stats(const REAL *stats, long long b, int R, long long B = gridDim.x)
        : shift((REAL *)stats + b * R), inverse((REAL *)stats + (B + b) * R) {}
    __device__ Stats(REAL *stats, long long rows) : shift(stats), inverse(stats + rows) {}  // of all entries
    __device__ void set(long long row, REAL top, REAL sum) const {
        shift[row] = sum == 0 ? 0 : top;
        inverse[row] = sum == 0 ? 0 : 1 / sum;
    }
};

// Which keys the rows of one entry see. Query heads that share keys stand as further rows, T_q each.
struct Visibility {
    static constexpr int UNBOUNDED = 1 << 30;  // `left` or `right` of a window without an end there

    const bool *mask;  // null, or read at row % period; `mask_each` entries share one of the `mask_count`, then come others
    long long mask_row, mask_key;
    int period, T_q, start, left, right, length;

    __device__ bool masked(int row, int key) const {
        return mask && !mask[row % period * mask_row + key * mask_key];
    }
    __device__ int first(int row) const { return max(start + row % T_q - left, 0); }
    __device__ int last(int row) const { return min(start + row % T_q + right, length - 1); }
};

#define VISIBILITY_PARAMETERS                                                                                             \
    const bool *mask, const int *starts, const int *lengths, int T_q, int R, int T_k, int start, int left, int right, \
        long long mask_entry, long long mask_row, long long mask_key, int period, int mask_each, int mask_count
#define VISIBILITY(b)                                                                                             \
    {mask ? mask + (int)(b) / mask_each % mask_count * mask_entry : mask, mask_row, mask_key, period, T_q,        \
     starts ? starts[b] : start, left, right, lengths ? lengths[b] : T_k}

// Options of one entry. Scores are scale * q . k, capped, and then biased.
struct Further {
#if OPTIONS
    const VALUE *bias;  // of all entries, read at row % period
    const REAL *sinks;  // a logit for each row, which takes weight and adds nothing
    int number;         // of the entry's bias
    long long bias_entry, bias_row, bias_key;
    int period;
    REAL cap;
    float dropout;
    REAL factor;  // of weights that are not dropped
    long long entry;  // among those that dropout draws for
    Stream stream;

    __device__ REAL capped(REAL score) const { return SOFTCAP ? cap * tanh(score / cap) : score; }
    // The derivative of a score that is capped.
    __device__ REAL slope(REAL capped) const { return 1 - capped / cap * (capped / cap); }
    __device__ REAL biased(REAL capped, int row, int key) const {
        return BIAS ? capped + REAL(bias[number * bias_entry + row % period * bias_row + key * bias_key]) : capped;
    }
    // A bit for each of the keys t ... t + 7 whose weight is not dropped; t is a multiple of eight.
    __device__ unsigned int kept(int row, int t) const {
        float numbers[8];
        unsigned int bits = 0;
        stream.draw(entry, row, t, numbers);
        for (int i = 0; i < 8; i++) bits |= (unsigned int)(numbers[i] >= dropout) << i;
        return bits;
    }
    // The gradient of a row's sink; `delta` is the sum of the row's weights times their gradients.
    __device__ REAL dsink(int row, REAL shift, REAL inverse, REAL delta) const {
        return -exp(sinks[row] - shift) * inverse * delta;
    }
    __device__ REAL of_kept() const { return DROPOUT ? factor : 1; }
#else
    __device__ REAL capped(REAL score) const { return score; }
    __device__ REAL biased(REAL capped, int, int) const { return capped; }
    __device__ REAL of_kept() const { return 1; }
#endif
};

#if OPTIONS
#define FURTHER_PARAMETERS                                                                                               \
    , const VALUE *bias, const REAL *sinks, long long first_entry, long long stream0, long long stream1,                 \
        long long bias_entry, long long bias_row, long long bias_key, int bias_period, int bias_each, int bias_count,    \
        REAL softcap, float dropout, REAL dropout_factor
// Of backward: the gradient of the sinks (B, R), which the caller sums over what was broadcast; null: not asked for.
#define GRADIENT_PARAMETERS , REAL *dsinks
#define FURTHER(b)                                                                                                     \
    {bias, sinks ? sinks + (b) * R : sinks, (int)(b) / bias_each % bias_count, bias_entry, bias_row, bias_key,           \
     bias_period, softcap, dropout, dropout_factor, first_entry + (b), Stream::of(stream0, stream1, R, T_k)}
#else
#define FURTHER_PARAMETERS
#define GRADIENT_PARAMETERS
#define FURTHER(b) {}
#endif
