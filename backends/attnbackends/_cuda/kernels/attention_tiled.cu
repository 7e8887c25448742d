// Attention of long sequences in O(T) memory, forward: a softmax that is corrected from tile to tile.
// `_cuda_attention.py` launches this; the tests also run it on the CPU, thread by thread.

#include "attention_tile.cuh"

// kept gets what out gets, for backward: the caller may write to out. It may be null. `shared` holds tiles of queries times
// the scale, keys (later their weights) and values, and Edges.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    attention_tiled(const REAL *q, const REAL *k, const REAL *v, REAL *out, REAL *kept, REAL *stats,
                    VISIBILITY_PARAMETERS, int D, int D_v, REAL scale) {
    const long long b = blockIdx.x;
    const int row0 = (gridDim.y - 1 - blockIdx.y) * DOWN, count = min(R - row0, DOWN);  // causal: longest first
    const Visibility visible = VISIBILITY(b);
    const Span span(visible, row0, count);
    REAL *const own_q = (REAL *)shared, *const own_k = own_q + DOWN * PITCH;
    REAL *const own_v = own_k + max(ACROSS * PITCH, DOWN * SCORES_PITCH);
    Edges &edges = *(Edges *)(own_v + ACROSS * PITCH);
    edges.set(visible, row0, R, DOWN);
    stage_tile(own_q, DOWN, q + (b * R + row0) * D, D, D, count, nullptr, scale);
    Four sums[ROWS][PARTS] = {};
    REAL tops[ROWS], totals[ROWS];
#pragma unroll
    for (int i = 0; i < ROWS; i++) tops[i] = -INFINITY, totals[i] = 0;
    for (int key0 = span.begin / ACROSS * ACROSS; key0 < span.end; key0 += ACROSS) {
        const bool limited = mask || !span.covers(key0, ACROSS);
        __syncthreads();
        if (limited) edges.look(visible, row0, key0);
        const unsigned char *const keep = limited ? edges.keys : nullptr;
        stage_tile(own_k, ACROSS, k + (b * T_k + key0) * D, D, D, T_k - key0, keep);
        stage_tile(own_v, ACROSS, v + (b * T_k + key0) * D_v, D_v, D_v, T_k - key0, keep);
        __syncthreads();
        REAL scores[ROWS][COLUMNS];
        dots(scores, own_q, own_k);
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            REAL top = tops[i], total = 0;
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) {
                const int r = threadIdx.x / LANES + i * STEP, key = key0 + threadIdx.x % LANES + j * LANES;
                if (limited && !edges.sees(visible, row0, r, key)) scores[i][j] = -INFINITY;
                top = max(top, scores[i][j]);
            }
            top = max_of_row(top);
            const REAL shift = top == -INFINITY ? 0 : top, factor = exp(tops[i] - shift);
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) total += scores[i][j] = exp(scores[i][j] - shift);
            totals[i] = totals[i] * factor + total;  // of this thread's columns alone
            multiply(sums[i], factor);
            tops[i] = top;
        }
        __syncthreads();
        put(own_k, scores);
        __syncwarp();  // the sixteen threads of a row are in one warp
        combine(sums, own_k, own_v);
    }
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        const REAL total = sum_of_row(totals[i]);
        const int r = threadIdx.x / LANES + i * STEP;
        multiply(sums[i], 1 / (total == 0 ? 1 : total));
        if (threadIdx.x % LANES == 0 && r < count) Stats(stats, b, R).set(row0 + r, tops[i], total);
    }
    write(out + (b * R + row0) * D_v, D_v, count, sums);
    if (kept) write(kept + (b * R + row0) * D_v, D_v, count, sums);
}
