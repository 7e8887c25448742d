// Attention of short sequences: a block for each entry, which holds its queries, keys, values and all scores in
// shared memory. One launch forward, one backward, whatever is asked for; sums go in a fixed order.
// `_cuda_attention.py` launches these; the tests also run them on the CPU, thread by thread.

#include "attention.cuh"

#define GROUP 8  // lanes that share the sums of one tile of TILE_I x TILE_J dot products
#define TILE_I 2
#define TILE_J 4

extern __shared__ unsigned char shared[];

struct Sizes {
    int R, T_k, D, D_v, padded, padded_v;
};

// scores[i][j] = scale * a[i] . b[j], where it is not -infinity from before if `limited`. A group of lanes reads a row
// 128 bytes at a time, so no two of its lanes meet in one bank.
__device__ inline void dots(REAL *scores, const REAL *a, const REAL *b, int I, int J, int padded, REAL scale,
                            bool limited) {
    const int lane = threadIdx.x % GROUP, columns = (J + TILE_J - 1) / TILE_J;
    const int tiles = (I + TILE_I - 1) / TILE_I * columns, per_warp = 32 / GROUP;
    for (int base = threadIdx.x / 32 * per_warp; base < tiles; base += blockDim.x / 32 * per_warp) {
        const int tile = base + threadIdx.x % 32 / GROUP, i0 = tile / columns * TILE_I, j0 = tile % columns * TILE_J;
        REAL sums[TILE_I][TILE_J] = {};
        const REAL *row_a[TILE_I], *row_b[TILE_J];
        for (int i = 0; i < TILE_I; i++) row_a[i] = a + min(i0 + i, I - 1) * padded;
        for (int j = 0; j < TILE_J; j++) row_b[j] = b + min(j0 + j, J - 1) * padded;
        for (int d = 4 * lane; d < padded; d += 4 * GROUP) {
            Four x[TILE_I], y[TILE_J];
            for (int i = 0; i < TILE_I; i++) x[i] = *(const Four *)(row_a[i] + d);
            for (int j = 0; j < TILE_J; j++) y[j] = *(const Four *)(row_b[j] + d);
            for (int i = 0; i < TILE_I; i++)
                for (int j = 0; j < TILE_J; j++) sums[i][j] = dot(x[i], y[j], sums[i][j]);
        }
        REAL own = 0;
        for (int i = 0; i < TILE_I; i++)
            for (int j = 0; j < TILE_J; j++) {
                for (int step = GROUP / 2; step > 0; step /= 2)
                    sums[i][j] += __shfl_xor_sync(EVERY_LANE, sums[i][j], step);
                if (lane == i * TILE_J + j) own = sums[i][j];
            }
        const int i = i0 + lane / TILE_J, j = j0 + lane % TILE_J;
        if (i < I && j < J && !(limited && scores[i * J + j] == -INFINITY)) scores[i * J + j] = scale * own;
    }
}

// to[m] = sum over n of weights(m, n) * x[n], and the same with weights2 and x2 on top, if any. Weights of m and n
// stand at m * by_m + n * by_n. A thread has four rows of four columns; a warp reads a row of x as it lies.
__device__ inline void combine(REAL *to, int M, int width, int N, int by_m, int by_n, const REAL *weights,
                               const REAL *x, const REAL *weights2, const REAL *x2, int padded) {
    const bool fours = in_fours(to, width, width);
    const int columns = padded / 4;
    for (int at = threadIdx.x; at < (M + 3) / 4 * columns; at += blockDim.x) {
        const int m0 = at / columns * 4, d = at % columns * 4;
        Four sums[4] = {};
        for (int n = 0; n < N; n++) {
            const Four value = *(const Four *)(x + n * padded + d);
            for (int i = 0; i < 4; i++) add_scaled(sums[i], weights[min(m0 + i, M - 1) * by_m + n * by_n], value);
        }
        for (int n = 0; x2 && n < N; n++) {
            const Four value = *(const Four *)(x2 + n * padded + d);
            for (int i = 0; i < 4; i++) add_scaled(sums[i], weights2[min(m0 + i, M - 1) * by_m + n * by_n], value);
        }
        for (int i = 0; i < 4 && m0 + i < M; i++) store(to + (long long)(m0 + i) * width, d, width, fours, sums[i]);
    }
}

__device__ inline REAL warp_sum(REAL x) {
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(EVERY_LANE, x, step);
    return x;
}

__device__ inline REAL warp_max(REAL x) {
    for (int step = 16; step > 0; step /= 2) x = max(x, __shfl_xor_sync(EVERY_LANE, x, step));
    return x;
}

// Where scores must stay -infinity, and which rows see and which keys are seen.
__device__ inline void look(const Visibility &visible, const Sizes &n, REAL *scores, unsigned char *rows,
                            unsigned char *keys) {
    for (int at = threadIdx.x; at < n.R + n.T_k; at += blockDim.x) (at < n.R ? rows : keys - n.R)[at] = 0;
    __syncthreads();
    for (int at = threadIdx.x; at < n.R * n.T_k; at += blockDim.x) {
        const int i = at / n.T_k, j = at % n.T_k;
        const bool sees = j >= visible.first(i) && j <= visible.last(i) && !visible.masked(i, j);
        scores[at] = sees ? 0 : -INFINITY;
        if (sees) rows[i] = keys[j] = 1;
    }
    __syncthreads();
}

// Draws, for each eight keys of each row, which weights are not dropped.
__device__ inline void draw(const Further &further, const Sizes &n, unsigned char *kept) {
#if DROPOUT
    const int eights = (n.T_k + 7) / 8;
    for (int at = threadIdx.x; at < n.R * eights; at += blockDim.x)
        kept[at] = further.kept(at / eights, at % eights * 8);
#endif
}

// What dropout multiplies a weight of a row by, whose bits are `kept`.
__device__ inline REAL dropped(const Further &further, const unsigned char *kept, int key) {
#if DROPOUT
    return kept[key / 8] >> key % 8 & 1 ? further.factor : 0;
#else
    return 1;
#endif
}

// `shared` holds q, k, v unless it is k, scores, a byte for each row and key, and what `draw` writes.
extern "C" __global__ void __launch_bounds__(256, 1)
    attention_small(const REAL *q, const REAL *k, const REAL *v, REAL *out, REAL *stats, VISIBILITY_PARAMETERS, int D,
                    int D_v, REAL scale FURTHER_PARAMETERS) {
    const long long b = blockIdx.x;
    const Sizes n = {R, T_k, D, D_v, (D + 3) / 4 * 4, (D_v + 3) / 4 * 4};
    const Visibility visible = VISIBILITY(b);
    REAL *const own_q = (REAL *)shared, *const own_k = own_q + R * n.padded;
    REAL *const own_v = v == k ? own_k : own_k + T_k * n.padded, *const scores = own_v + T_k * n.padded_v;
    unsigned char *const rows = (unsigned char *)(scores + R * T_k), *const keys = rows + R, *const kept = keys + T_k;
    const Further further = FURTHER(b);
    const bool limited = mask || left < Visibility::UNBOUNDED || right < Visibility::UNBOUNDED || lengths;
    if (limited) look(visible, n, scores, rows, keys);
    draw(further, n, kept);
    stage(own_q, n.padded, n.padded, q + b * R * D, D, D, R, R, limited ? rows : nullptr);
    stage(own_k, n.padded, n.padded, k + b * T_k * D, D, D, T_k, T_k, limited ? keys : nullptr);
    if (v != k) stage(own_v, n.padded_v, n.padded_v, v + b * T_k * D_v, D_v, D_v, T_k, T_k, limited ? keys : nullptr);
    __syncthreads();
    dots(scores, own_q, own_k, R, T_k, n.padded, scale, limited);
    __syncthreads();
    for (int i = threadIdx.x / 32; i < R; i += blockDim.x / 32) {
        REAL *const row = scores + i * T_k;
        REAL top = -INFINITY, sum = 0;
        for (int j = threadIdx.x % 32; j < T_k; j += 32) {
#if SOFTCAP || BIAS
            if (row[j] != -INFINITY) row[j] = further.biased(further.capped(row[j]), i, j);
#endif
            top = max(top, row[j]);
        }
        top = warp_max(top);
#if SINKS
        top = max(top, further.sinks[i]);
#endif
        if (top == -INFINITY) top = 0;
        for (int j = threadIdx.x % 32; j < T_k; j += 32) sum += row[j] = exp(row[j] - top);
        sum = warp_sum(sum);
#if SINKS
        sum += exp(further.sinks[i] - top);
#endif
        for (int j = threadIdx.x % 32; j < T_k; j += 32)
            row[j] = row[j] / (sum == 0 ? 1 : sum) * dropped(further, kept + i * ((T_k + 7) / 8), j);
        if (threadIdx.x % 32 == 0) Stats(stats, b, R).set(i, top, sum);
    }
    __syncthreads();
    combine(out + b * R * D_v, R, D_v, T_k, T_k, 1, scores, own_v, nullptr, nullptr, n.padded_v);
}

// dlse may be null; without dv, keys are the values, and dk is the sum of both gradients. `shared` holds q, dout, k,
// v unless it is k, two of scores, slopes of scores if they are capped, a byte for each row and key, and what `draw`
// writes.
extern "C" __global__ void __launch_bounds__(256, 1)
    attention_small_backward(const REAL *q, const REAL *k, const REAL *v, const REAL *stats, const REAL *dout,
                             const REAL *dlse, REAL *dq, REAL *dk, REAL *dv, VISIBILITY_PARAMETERS, int D, int D_v,
                             REAL scale, long long dout_entry, long long dout_row GRADIENT_PARAMETERS FURTHER_PARAMETERS) {
    const long long b = blockIdx.x;
    const Sizes n = {R, T_k, D, D_v, (D + 3) / 4 * 4, (D_v + 3) / 4 * 4};
    const Visibility visible = VISIBILITY(b);
    REAL *const own_q = (REAL *)shared, *const own_dout = own_q + R * n.padded;
    REAL *const own_k = own_dout + R * n.padded_v, *const own_v = v == k ? own_k : own_k + T_k * n.padded;
    REAL *const weights = own_v + T_k * n.padded_v, *const dscores = weights + R * T_k;
    const Stats known(stats, b, R);
    REAL *const slopes = dscores + R * T_k, *const end = SOFTCAP ? slopes + R * T_k : slopes;
    unsigned char *const rows = (unsigned char *)end, *const keys = rows + R, *const kept = keys + T_k;
    const Further further = FURTHER(b);
    const bool limited = mask || left < Visibility::UNBOUNDED || right < Visibility::UNBOUNDED || lengths;
    if (limited) look(visible, n, weights, rows, keys);
    draw(further, n, kept);
    stage(own_q, n.padded, n.padded, q + b * R * D, D, D, R, R, limited ? rows : nullptr);
    stage(own_dout, n.padded_v, n.padded_v, dout + b * dout_entry, dout_row, D_v, R, R, limited ? rows : nullptr);
    stage(own_k, n.padded, n.padded, k + b * T_k * D, D, D, T_k, T_k, limited ? keys : nullptr);
    if (v != k) stage(own_v, n.padded_v, n.padded_v, v + b * T_k * D_v, D_v, D_v, T_k, T_k, limited ? keys : nullptr);
    __syncthreads();
    dots(weights, own_q, own_k, R, T_k, n.padded, scale, limited);
    dots(dscores, own_dout, own_v, R, T_k, n.padded_v, 1, false);
    __syncthreads();
    for (int i = threadIdx.x / 32; i < R; i += blockDim.x / 32) {
        REAL *const row = weights + i * T_k, *const drow = dscores + i * T_k;
        const unsigned char *const bits = kept + i * ((T_k + 7) / 8);
        const REAL shift = known.shift[i], inverse = known.inverse[i];
        REAL delta = 0;
        for (int j = threadIdx.x % 32; j < T_k; j += 32) {
            const bool hidden = row[j] == -INFINITY;
            const REAL capped = further.capped(row[j]);
#if SOFTCAP
            slopes[i * T_k + j] = further.slope(capped);
#endif
            row[j] = hidden ? 0 : exp(further.biased(capped, i, j) - shift) * inverse;
            if (hidden) drow[j] = 0;
            drow[j] *= dropped(further, bits, j);
            delta += row[j] * drow[j];
        }
        delta = warp_sum(delta) - (dlse ? dlse[b * R + i] : 0);
#if SINKS
        if (dsinks && threadIdx.x % 32 == 0) dsinks[b * R + i] = further.dsink(i, shift, inverse, delta);
#endif
        for (int j = threadIdx.x % 32; j < T_k; j += 32) {
            drow[j] = scale * (row[j] * (drow[j] - delta)) * (SOFTCAP ? slopes[i * T_k + j] : 1);
            row[j] *= dropped(further, bits, j);
        }
    }
    __syncthreads();
    combine(dq + b * R * D, R, D, T_k, T_k, 1, dscores, own_k, nullptr, nullptr, n.padded);
    combine(dk + b * T_k * D, T_k, D, R, 1, T_k, dscores, own_q, weights, dv ? nullptr : own_dout, n.padded);
    if (dv) combine(dv + b * T_k * D_v, T_k, D_v, R, 1, T_k, weights, own_dout, nullptr, nullptr, n.padded_v);
}
