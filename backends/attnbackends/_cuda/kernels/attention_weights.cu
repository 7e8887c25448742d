// What stands between the products of attention: weights from scores, and the gradient of the scores from that of the
// weights. A row is read once and written once; its sums go in a fixed order. REAL is what is computed in, VALUE what
// the arguments hold.

#include "attention.cuh"

#ifndef THREADS
#define THREADS 32  // that share a row: a warp, or the whole block
#endif
#define BLOCK 256
#define HELD (sizeof(REAL) == 8 ? 2 : 4)  // times eight keys of a row that a thread holds in registers
#define SPAN (HELD * 8 * THREADS)         // keys that all of them hold; a longer row is read again

template <class T> struct alignas(16) Eight {
    T at[8];
};

// Keys key ... key + 7 of a row of T_k; beyond its end they are 0.
template <class T> __device__ inline void load(REAL *to, const T *row, int key, int T_k) {
    if (T_k % 8 == 0) {
        const Eight<T> found = *(const Eight<T> *)(row + key);
        for (int j = 0; j < 8; j++) to[j] = found.at[j];
    } else {
        for (int j = 0; j < 8; j++) to[j] = key + j < T_k ? (REAL)row[key + j] : 0;
    }
}

template <class T> __device__ inline void store(T *row, int key, int T_k, const REAL *from) {
    if (T_k % 8 == 0) {
        Eight<T> made;
        for (int j = 0; j < 8; j++) made.at[j] = (T)from[j];
        *(Eight<T> *)(row + key) = made;
    } else {
        for (int j = 0; j < 8; j++)
            if (key + j < T_k) row[key + j] = (T)from[j];
    }
}

// The sum of what all threads of a row have, or the largest of it; each of them gets it.
__device__ inline REAL of_row(REAL x, bool largest) {
    for (int step = 16; step > 0; step /= 2) {
        const REAL other = __shfl_xor_sync(EVERY_LANE, x, step);
        x = largest ? max(x, other) : x + other;
    }
#if THREADS > 32
    __shared__ REAL parts[THREADS / 32];
    __syncthreads();  // what stood there has been read
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    x = parts[0];
    for (int i = 1; i < THREADS / 32; i++) x = largest ? max(x, parts[i]) : x + parts[i];
#endif
    return x;
}

// What dropout makes of the weights of eight keys, or of their gradients: `bits` tell which of them stay.
__device__ inline void drop(REAL *values, unsigned int bits, REAL factor) {
    for (int j = 0; j < 8; j++) values[j] = bits >> j & 1 ? factor * values[j] : 0;
}

// The scores of keys key ... key + 7 of a row, -infinity where it does not see them.
__device__ inline void scores_of(REAL *to, const REAL *products, int row, int key, int T_k, int first, int last,
                                 REAL scale, const Visibility &visible, const Further &further) {
    const bool any = key <= last && key + 7 >= first;
    if (any) load(to, products, key, T_k);
    for (int j = 0; j < 8; j++) {
        const bool sees = any && key + j >= first && key + j <= last && !visible.masked(row, key + j);
        to[j] = sees ? further.biased(further.capped(scale * to[j]), row, key + j) : -INFINITY;
    }
}

// products (B, R, T_k) become weights, which may be the same memory; `used`, unless null, gets them after dropout.
// With `seen_q`, q, k and v are copied with 0 for queries that see nothing and keys that no query sees: there they may
// hold NaN, which a weight of 0 would not keep out of a product. `seen_v` may be null.
extern "C" __global__ void __launch_bounds__(BLOCK, 1)
    attention_weights(const REAL *products, VALUE *weights, VALUE *used, REAL *stats, const VALUE *q, const VALUE *k,
                      const VALUE *v, VALUE *seen_q, VALUE *seen_k, VALUE *seen_v, VISIBILITY_PARAMETERS, int D,
                      int D_v, REAL scale, int B FURTHER_PARAMETERS) {
    const int lane = threadIdx.x % THREADS;
    const long long rows = (long long)B * R, item = blockIdx.x * (long long)(BLOCK / THREADS) + threadIdx.x / THREADS;
    if (item >= rows + (seen_q ? (long long)B * T_k : 0)) return;
    const bool is_row = item < rows;
    const long long b = is_row ? item / R : (item - rows) / T_k;
    const Visibility visible = VISIBILITY(b);
    if (!is_row) {
        const long long at = item - rows;
        const int key = at % T_k;
        bool seen = false;
        for (int row = lane; row < R && !seen; row += THREADS)
            seen = key >= visible.first(row) && key <= visible.last(row) && !visible.masked(row, key);
        seen = of_row(seen, true) > 0;
        for (int d = lane; d < D; d += THREADS) seen_k[at * D + d] = seen ? k[at * D + d] : (VALUE)REAL(0);
        for (int d = lane; seen_v && d < D_v; d += THREADS)
            seen_v[at * D_v + d] = seen ? v[at * D_v + d] : (VALUE)REAL(0);
        return;
    }
    const int row = item % R, first = visible.first(row), last = visible.last(row);
    const Further further = FURTHER(b);
    const REAL *const own = products + item * T_k;
    REAL held[HELD][8], top = -INFINITY, sum = 0;
    for (int from = 0; from < T_k; from += SPAN)
#pragma unroll
        for (int i = 0; i < HELD; i++) {
            const int key = from + 8 * (i * THREADS + lane);
            if (key >= T_k) continue;
            scores_of(held[i], own, row, key, T_k, first, last, scale, visible, further);
            REAL higher = top;
            for (int j = 0; j < 8; j++) higher = max(higher, held[i][j]);
            if (higher > top) sum *= exp(top - higher);
            top = higher;
            for (int j = 0; j < 8; j++) sum += exp(held[i][j] - (top == -INFINITY ? 0 : top));
        }
    REAL shift = of_row(top, true);
    if (SINKS) shift = max(shift, further.sinks[row]);
    if (shift == -INFINITY) shift = 0;
    sum = of_row(sum * exp(top - shift), false);
    const bool sees = sum != 0;
    if (SINKS) sum += exp(further.sinks[row] - shift);
    const REAL inverse = sum == 0 ? 0 : 1 / sum;
    if (lane == 0) Stats(stats, rows).set(item, shift, sum);
    for (int from = 0; from < T_k; from += SPAN)
#pragma unroll
        for (int i = 0; i < HELD; i++) {
            const int key = from + 8 * (i * THREADS + lane);
            if (key >= T_k) continue;
            if (T_k > SPAN) scores_of(held[i], own, row, key, T_k, first, last, scale, visible, further);
            for (int j = 0; j < 8; j++) held[i][j] = exp(held[i][j] - shift) * inverse;
            store(weights + item * T_k, key, T_k, held[i]);
            if (!DROPOUT) continue;
            drop(held[i], further.kept(row, key), further.factor);
            store(used + item * T_k, key, T_k, held[i]);
        }
    for (int d = lane; seen_q && d < D; d += THREADS) seen_q[item * D + d] = sees ? q[item * D + d] : (VALUE)REAL(0);
}

// dweights (B, R, T_k), of the weights after dropout, to dscores, of the products: they may be the same memory. `used`,
// unless null, gets the weights after dropout; `products` are read where there is a cap, stats for dsinks; dlse (B, R) may
// be null.
extern "C" __global__ void __launch_bounds__(BLOCK, 1)
    attention_weights_backward(const REAL *dweights, const VALUE *weights, VALUE *dscores, VALUE *used,
                               const REAL *products, const REAL *stats, const REAL *dlse, int B, int R, int T_k,
                               REAL scale GRADIENT_PARAMETERS FURTHER_PARAMETERS) {
    const int lane = threadIdx.x % THREADS;
    const long long item = blockIdx.x * (long long)(BLOCK / THREADS) + threadIdx.x / THREADS, at = item * T_k;
    if (item >= (long long)B * R) return;
    const long long b = item / R;
    const int row = item % R;
    const Further further = FURTHER(b);
    REAL w[HELD][8], dw[HELD][8], delta = 0;
    unsigned int kept[HELD];
    auto read = [&](int i, int key) {
        load(w[i], weights + at, key, T_k);
        load(dw[i], dweights + at, key, T_k);
        if (DROPOUT) {
            kept[i] = further.kept(row, key);
            drop(dw[i], kept[i], further.factor);
        }
        for (int j = 0; j < 8; j++)
            if (w[i][j] == 0) dw[i][j] = 0;  // a hidden key; what it holds may be too large for a product
    };
    for (int from = 0; from < T_k; from += SPAN)
#pragma unroll
        for (int i = 0; i < HELD; i++) {
            const int key = from + 8 * (i * THREADS + lane);
            if (key >= T_k) continue;
            read(i, key);
            for (int j = 0; j < 8; j++) delta += w[i][j] * dw[i][j];
        }
    delta = of_row(delta, false) - (dlse ? dlse[item] : 0);
    if (SINKS && dsinks && lane == 0) {
        const Stats known(stats, b, R, B);
        dsinks[item] = further.dsink(row, known.shift[row], known.inverse[row], delta);
    }
    for (int from = 0; from < T_k; from += SPAN)
#pragma unroll
        for (int i = 0; i < HELD; i++) {
            const int key = from + 8 * (i * THREADS + lane);
            if (key >= T_k) continue;
            if (T_k > SPAN) read(i, key);
            for (int j = 0; j < 8; j++) dw[i][j] = scale * (w[i][j] * (dw[i][j] - delta));
            if (SOFTCAP) {
                REAL scores[8];
                load(scores, products + at, key, T_k);
                for (int j = 0; j < 8; j++)
                    dw[i][j] = w[i][j] == 0 ? 0 : dw[i][j] * further.slope(further.capped(scale * scores[j]));
            }
            store(dscores + at, key, T_k, dw[i]);
            if (!DROPOUT) continue;
            drop(w[i], kept[i], further.factor);
            store(used + at, key, T_k, w[i]);
        }
}
