// Attention of long sequences in O(T) memory, forward: a softmax that is corrected from tile to tile.
// `_cuda_attention.py` launches this; the tests also run it on the CPU, thread by thread.

#include "attention_tile.cuh"

// `shared` holds tiles of queries, keys (later their weights) and values, and Edges.
extern "C" __global__ void __launch_bounds__(THREADS)
    attention_tiled(const REAL *q, const REAL *k, const REAL *v, REAL *out, REAL *lse, SIGHT_PARAMETERS, int D, int D_v,
                    REAL scale) {
    const long long b = blockIdx.x;
    const int row0 = (gridDim.y - 1 - blockIdx.y) * TILE, count = min(R - row0, TILE);  // causal: longest first
    const Sight sight = SIGHT(b);
    const Span span(sight, row0, count);
    REAL *const own_q = (REAL *)shared, *const own_k = own_q + TILE * PITCH, *const own_v = own_k + TILE * PITCH;
    Edges &edges = *(Edges *)(own_v + TILE * PITCH);
    edges.set(sight, row0, R);
    stage_tile(own_q, q + (b * R + row0) * D, D, D, count, nullptr);
    Four sums[ROWS][PARTS] = {};
    REAL tops[ROWS], totals[ROWS] = {};
    for (int i = 0; i < ROWS; i++) tops[i] = -INFINITY;
    for (int key0 = span.begin / TILE * TILE; key0 < span.end; key0 += TILE) {
        const bool limited = mask || !span.covers(key0);
        __syncthreads();
        if (limited) edges.look(sight, row0, key0);
        stage_tile(own_k, k + (b * T_k + key0) * D, D, D, T_k - key0, limited ? edges.keys : nullptr);
        stage_tile(own_v, v + (b * T_k + key0) * D_v, D_v, D_v, T_k - key0, limited ? edges.keys : nullptr);
        __syncthreads();
        REAL scores[ROWS][COLUMNS];
        dots(scores, own_q, own_k);
        for (int i = 0; i < ROWS; i++) {
            REAL top = tops[i], total = 0;
            for (int j = 0; j < COLUMNS; j++) {
                const int r = threadIdx.x / LANES + i * STEP, key = key0 + threadIdx.x % LANES + j * LANES;
                scores[i][j] = limited && !edges.sees(sight, row0, r, key) ? -INFINITY : scale * scores[i][j];
                top = max(top, scores[i][j]);
            }
            top = max_of_row(top);
            const REAL shift = top == -INFINITY ? 0 : top, factor = exp(tops[i] - shift);
            for (int j = 0; j < COLUMNS; j++) total += scores[i][j] = exp(scores[i][j] - shift);
            totals[i] = totals[i] * factor + total;  // of this thread's columns alone
            for (int part = 0; part < PARTS; part++) {
                Four &s = sums[i][part];
                s.x *= factor, s.y *= factor, s.z *= factor, s.w *= factor;
            }
            tops[i] = top;
        }
        __syncthreads();
        put(own_k, scores);
        __syncwarp();  // the sixteen threads of a row are in one warp
        combine(sums, own_k, own_v);
    }
    for (int i = 0; i < ROWS; i++) {
        const REAL total = sum_of_row(totals[i]), inverse = 1 / (total == 0 ? 1 : total);
        const int r = threadIdx.x / LANES + i * STEP;
        for (int part = 0; part < PARTS; part++) {
            Four &s = sums[i][part];
            s.x *= inverse, s.y *= inverse, s.z *= inverse, s.w *= inverse;
        }
        if (threadIdx.x % LANES == 0 && r < count)
            lse[b * R + row0 + r] = total == 0 ? EMPTY_ROW : tops[i] + log(total);
    }
    write(out + (b * R + row0) * D_v, D_v, count, sums, 1);
}
