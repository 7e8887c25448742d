// Attention of long sequences in O(T) memory, backward: weights are made again from the statistics of their rows. One
// launch makes all gradients, each sum in a fixed order.
// `_cuda_attention.py` launches this; the tests also run it on the CPU, thread by thread.

#include "attention_tile.cuh"

// One tile of rows as backward needs it, and what it makes of a tile of keys.
struct Backward {
    const REAL *q, *out, *stats, *dout, *dlse;
    int R, D, D_v;
    long long b, dout_entry, dout_row;
    REAL scale;
    REAL *own_q, *own_dout, *own_k, *own_v, *weights, *dscores, *shifts, *inverses, *deltas;  // shared
    Edges &edges;

    // Stages a tile of `full` queries, times the scale, and gradients, with the statistics and rowsum(dout * out) - dlse
    // of each row; what sees nothing comes as 0.
    __device__ void stage_rows(const Visibility &visible, int row0, int full) const {
        const int count = min(R - row0, full);
        const Stats known(stats, b, R);
        edges.set(visible, row0, R, full);
        for (int r = threadIdx.x; r < full; r += THREADS) {
            shifts[r] = r < count ? known.shift[row0 + r] : 0;
            inverses[r] = r < count ? known.inverse[row0 + r] : 0;
            edges.rows[r] = inverses[r] != 0;
        }
        __syncthreads();
        stage_tile(own_q, full, q + (b * R + row0) * D, D, D, count, edges.rows, scale);
        stage_tile(own_dout, full, dout + b * dout_entry + row0 * dout_row, dout_row, D_v, count, edges.rows);
        __syncthreads();
        const REAL *const rows = out + (b * R + row0) * D_v;
        const bool fours = in_fours(rows, D_v, D_v);
        for (int r = threadIdx.x / LANES; r < full; r += STEP) {
            REAL sum = 0;
            for (int d = threadIdx.x % LANES * 4; r < count && d < D_v; d += LANES * 4)
                sum = dot(*(const Four *)(own_dout + r * PITCH + d), load(rows + r * D_v, d, D_v, fours), sum);
            sum = sum_of_row(sum);
            if (threadIdx.x % LANES == 0) deltas[r] = sum - (dlse && r < count ? dlse[b * R + row0 + r] : 0);
        }
        __syncthreads();
    }
    // A score to its weight, where row r and key meet. The score is bit for bit that of the forward pass.
    __device__ REAL weight(const Visibility &visible, bool limited, int row0, int r, int key, REAL score) const {
        return limited && !edges.sees(visible, row0, r, key) ? 0 : exp(score - shifts[r]) * inverses[r];
    }
    // The gradient of a weight to that of its score; what is hidden has a weight of 0.
    __device__ REAL through(int r, REAL weight, REAL dweight) const {
        return weight == 0 ? 0 : weight * (dweight - deltas[r]);
    }
    // Weights and gradients of scores where the staged rows and keys meet: one row of them for each row, or each key.
    template <bool ROWS_DOWN> __device__ void meet(const Visibility &visible, bool limited, int row0, int key0) const {
        const int r0 = threadIdx.x / LANES, c0 = threadIdx.x % LANES;
        REAL tile[ROWS][COLUMNS];
        dots(tile, ROWS_DOWN ? own_q : own_k, ROWS_DOWN ? own_k : own_q);
#pragma unroll
        for (int i = 0; i < ROWS; i++)
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) {
                const int down = r0 + i * STEP, across = c0 + j * LANES;
                const int r = ROWS_DOWN ? down : across, key = ROWS_DOWN ? across : down;
                tile[i][j] = weight(visible, limited, row0, r, key0 + key, tile[i][j]);
            }
        put(weights, tile);
        dots(tile, ROWS_DOWN ? own_dout : own_v, ROWS_DOWN ? own_v : own_dout);
#pragma unroll
        for (int i = 0; i < ROWS; i++)
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) {
                const int down = r0 + i * STEP, across = c0 + j * LANES;
                tile[i][j] = through(ROWS_DOWN ? down : across, weights[down * SCORES_PITCH + across], tile[i][j]);
            }
        put(dscores, tile);
        __syncwarp();
    }
};

// Blocks with y below the number of tiles of keys make dk and dv, the others dq. dlse may be null; without dv, keys are
// the values, and dk is the sum of both. `shared` holds DOWN rows of k and v and ACROSS of q and dout, or the other way
// round, weights and gradients of scores, three values for each row, and Edges.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    attention_tiled_backward(const REAL *q, const REAL *k, const REAL *v, const REAL *out, const REAL *stats,
                             const REAL *dout, const REAL *dlse, REAL *dq, REAL *dk, REAL *dv, VISIBILITY_PARAMETERS, int D,
                             int D_v, REAL scale, long long dout_entry, long long dout_row) {
    const long long b = blockIdx.x;
    const Visibility visible = VISIBILITY(b);
    REAL *const down = (REAL *)shared, *const down_v = down + DOWN * PITCH, *const across = down_v + DOWN * PITCH;
    REAL *const across_v = across + ACROSS * PITCH, *const weights = across_v + ACROSS * PITCH;
    REAL *const dscores = weights + DOWN * SCORES_PITCH, *const shifts = dscores + DOWN * SCORES_PITCH;
    Edges &edges = *(Edges *)(shifts + 3 * DOWN);
    const bool of_keys = blockIdx.y < (T_k + DOWN - 1) / DOWN;
    REAL *const own_q = of_keys ? across : down, *const own_dout = of_keys ? across_v : down_v;
    REAL *const own_k = of_keys ? down : across, *const own_v = of_keys ? down_v : across_v;
    const Backward rows = {q,       out,      stats,  dout,          dlse,              R,     D,     D_v,
                           b,       dout_entry, dout_row, scale,     own_q,             own_dout, own_k, own_v,
                           weights, dscores,  shifts, shifts + DOWN, shifts + 2 * DOWN, edges};
    const REAL *const keys = k + b * T_k * D, *const values = v + b * T_k * D_v;
    if (of_keys) {
        const int key0 = blockIdx.y * DOWN, count = min(T_k - key0, DOWN);
        Four dkeys[ROWS][PARTS] = {}, dvalues[ROWS][PARTS] = {};
        stage_tile(own_k, DOWN, keys + (long long)key0 * D, D, D, count, nullptr);
        stage_tile(own_v, DOWN, values + (long long)key0 * D_v, D_v, D_v, count, nullptr);
        for (int row0 = 0; row0 < R; row0 += ACROSS) {
            const Span span(visible, row0, min(R - row0, ACROSS));
            if (!span.meets(key0, DOWN)) continue;
            const bool limited = mask || !span.covers(key0, DOWN);
            __syncthreads();
            rows.stage_rows(visible, row0, ACROSS);
            rows.meet<false>(visible, limited, row0, key0);
            combine(dkeys, dscores, own_q);
            if (dv)
                combine(dvalues, weights, own_dout);
            else
                combine(dkeys, weights, own_dout);
        }
        write(dk + (b * T_k + key0) * D, D, count, dkeys);
        if (dv) write(dv + (b * T_k + key0) * D_v, D_v, count, dvalues);
    } else {
        const int row0 = (gridDim.y - 1 - blockIdx.y) * DOWN, count = min(R - row0, DOWN);
        const Span span(visible, row0, count);
        Four dqueries[ROWS][PARTS] = {};
        rows.stage_rows(visible, row0, DOWN);
        for (int key0 = span.begin / ACROSS * ACROSS; key0 < span.end; key0 += ACROSS) {
            const bool limited = mask || !span.covers(key0, ACROSS);
            __syncthreads();
            if (limited) edges.look(visible, row0, key0);
            const unsigned char *const keep = limited ? edges.keys : nullptr;
            stage_tile(own_k, ACROSS, keys + (long long)key0 * D, D, D, T_k - key0, keep);
            stage_tile(own_v, ACROSS, values + (long long)key0 * D_v, D_v, D_v, T_k - key0, keep);
            __syncthreads();
            rows.meet<true>(visible, limited, row0, key0);
            combine(dqueries, dscores, own_k);
        }
#pragma unroll
        for (int i = 0; i < ROWS; i++) multiply(dqueries[i], scale);
        write(dq + (b * R + row0) * D, D, count, dqueries);
    }
}
