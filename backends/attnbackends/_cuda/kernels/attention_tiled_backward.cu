// Attention of long sequences in O(T) memory, backward: weights are made again from the statistics of their rows. One
// launch makes all gradients, each sum in a fixed order.
// `attention.py` launches this; the tests also run it on the CPU, thread by thread.

#include "attention_tile.cuh"

#define APART (WIDTH > 128)  // dk and dv by blocks of their own: the sums of both are too many for a thread

// One entry as backward sees it, and the tiles in shared memory.
struct Backward {
    const Visibility visible;
    const Further further;
    const REAL *q, *k, *v, *out, *stats, *dout, *dlse;  // dlse may be null
    long long b, dout_entry, dout_row;
    int R, T_k, D, D_v;
    REAL scale;
    REAL *down, *down_v, *across, *across_v, *scratch, *shifts, *inverses, *deltas;
    Edges &edges;

    // Stages a tile of FULL queries and gradients with the statistics and rowsum(dout * out) - dlse of each row; what sees
    // nothing comes as 0.
    template <int FULL, bool OF_KEYS>
    __device__ void stage_rows(REAL *own_q, REAL *own_dout, bool limited, int row0, int key0) const {
        const int count = min(R - row0, FULL);
        const Stats known(stats, b, R);
        edges.set(visible, row0, R, FULL);
        for (int r = threadIdx.x; r < FULL; r += THREADS) {
            shifts[r] = r < count ? known.shift[row0 + r] : 0;
            inverses[r] = r < count ? known.inverse[row0 + r] : 0;
            edges.rows[r] = inverses[r] != 0;
        }
        __syncthreads();
#if SINKS
        if (OF_KEYS && limited) edges.look_at_rows(visible, row0, key0);
#endif
        const REAL *const gradients = dout + b * dout_entry + row0 * dout_row, *const rows = out + (b * R + row0) * D_v;
        stage_tile<FULL>(own_q, q + (b * R + row0) * D, D, D, count, edges.rows);
        stage_tile<FULL>(own_dout, gradients, dout_row, D_v, count, edges.rows);
        commit();
        const bool fours = in_fours(rows, D_v, D_v) && in_fours(gradients, dout_row, D_v);
#pragma unroll 4
        for (int r = threadIdx.x / 16; r < FULL; r += THREADS / 16) {
            REAL sum = 0;
            for (int d = threadIdx.x % 16 * 4; edges.rows[r] && d < D_v; d += 64)
                sum = dot(load(gradients + r * dout_row, d, D_v, fours), load(rows + (long long)r * D_v, d, D_v, fours), sum);
#pragma unroll
            for (int step = 8; step > 0; step /= 2) sum += __shfl_xor_sync(EVERY_LANE, sum, step);
            if (threadIdx.x % 16 == 0) deltas[r] = sum - (dlse && r < count ? dlse[b * R + row0 + r] : 0);
        }
#if DROPOUT
        if (OF_KEYS) edges.draw<true>(further, row0, key0);
#endif
        await<0>();
        __syncthreads();
    }
    // Products of queries and keys to weights. The scores are bit for bit those of the forward pass. With a cap the tile
    // gets weights times the slopes of scores, which is all that `through` takes; `used` gets weights after dropout.
    // Without these options both are one.
    template <bool OF_KEYS> __device__ void weigh(Scores &tile, Scores &used, bool limited, int row0, int key0) const {
        const unsigned hidden = limited ? edges.hidden<OF_KEYS>(visible, row0, key0) : 0;
        const auto hides = [&](int i, int j) { return hidden >> (i * COLUMNS + j) & 1; };
#if DROPOUT
        const unsigned dropped = edges.dropped<OF_KEYS>();
#endif
#pragma unroll
        for (int i = 0; i < ROWS; i++)
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) {
                const int r = OF_KEYS ? column_of(j) : row_of(i);
                REAL score = score_of(tile[i][j], scale);
#if SOFTCAP
                const REAL capped = score = further.capped(score);
#endif
#if BIAS
                const int key = hides(i, j) ? 0 : key0 + (OF_KEYS ? row_of(i) : column_of(j));  // there is such a key
                score = further.biased(score, again(row0) + r, key);
#endif
                const REAL weight = weight_of(score, shifts[r]) * inverses[r];
#if DROPOUT
                used[i][j] = hides(i, j) || dropped >> (i * COLUMNS + j) & 1 ? 0 : further.factor * weight;
#elif SOFTCAP
                used[i][j] = hides(i, j) ? 0 : weight;
#endif
#if SOFTCAP
                tile[i][j] = hides(i, j) ? 0 : weight * further.slope(capped);
#else
                tile[i][j] = hides(i, j) ? 0 : weight;
#endif
            }
    }
    // Gradients of the weights after dropout to those of products of queries and keys; `weights` are what `weigh` left.
    template <bool OF_KEYS> __device__ void through(Scores &dproducts, const Scores &weights) const {
#if DROPOUT
        const unsigned dropped = edges.dropped<OF_KEYS>();
#endif
#pragma unroll
        for (int i = 0; i < ROWS; i++)
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) {
#if DROPOUT
                dproducts[i][j] = dropped >> (i * COLUMNS + j) & 1 ? 0 : further.factor * dproducts[i][j];
#endif
                dproducts[i][j] = through(OF_KEYS ? column_of(j) : row_of(i), weights[i][j], dproducts[i][j]);
            }
    }
    // The gradient of a weight to that of its product of query and key; what is hidden has a weight of 0.
    __device__ REAL through(int r, REAL weight, REAL dweight) const {
        return weight == 0 ? 0 : scale * (weight * (dweight - deltas[r]));
    }
    // dk and dv of a tile of keys, or one of them. Without dv, keys are the values, and dk is the sum of both.
    template <bool OF_KEYS, bool OF_VALUES> __device__ void of_keys(REAL *dk, REAL *dv, int key0) const {
        const int count = min(T_k - key0, DOWN);
        Rows dkeys = {}, dvalues = {};
        stage_tile<DOWN>(down, k + (b * T_k + key0) * D, D, D, count, nullptr);
        if (OF_KEYS) stage_tile<DOWN>(down_v, v + (b * T_k + key0) * D_v, D_v, D_v, count, nullptr);
        for (int row0 = 0; row0 < R; row0 += ACROSS) {
            const Span span(visible, row0, min(R - row0, ACROSS));
            if (!span.meets(key0, DOWN)) continue;
            const bool limited = visible.mask || !span.covers(key0, DOWN);
            __syncthreads();
            stage_rows<ACROSS, true>(across, across_v, limited, row0, key0);
            Scores weights, dproducts, apart, &used = SOFTCAP || DROPOUT ? apart : weights;
            dots<true>(weights, down, across);
            weigh<true>(weights, used, limited, row0, key0);
            if (OF_VALUES && dv) combine(dvalues, used, across_v, scratch);
            if (!OF_KEYS) continue;
            if (!dv) combine(dkeys, used, across_v, scratch);
            dots<true>(dproducts, down_v, across_v);
            through<true>(dproducts, weights);
            combine(dkeys, dproducts, across, scratch);
        }
        await<0>();
        if (OF_KEYS) finish(dk, key0, T_k, D, dkeys);
        if (OF_VALUES && dv) finish(dv, key0, T_k, D_v, dvalues);
    }
    // dq of a tile of rows, and the gradient of their sinks unless dsinks is null.
    __device__ void of_queries(REAL *dq, REAL *dsinks, int row0) const {
        const int count = min(R - row0, DOWN);
        const Span span(visible, row0, count);
        Rows dqueries = {};
        stage_rows<DOWN, false>(down, down_v, false, row0, 0);
#if SINKS
        for (int r = threadIdx.x; dsinks && r < count; r += THREADS)
            dsinks[b * R + row0 + r] = further.dsink(row0 + r, shifts[r], inverses[r], deltas[r]);
#endif
        for (int key0 = span.begin / ACROSS * ACROSS; key0 < span.end; key0 += ACROSS) {
            const bool limited = visible.mask || !span.covers(key0, ACROSS);
            __syncthreads();
            if (limited) edges.look(visible, row0, key0);
            const unsigned char *const keep = limited ? edges.keys : nullptr;
            stage_tile<ACROSS>(across, k + (b * T_k + key0) * D, D, D, T_k - key0, keep);
            stage_tile<ACROSS>(across_v, v + (b * T_k + key0) * D_v, D_v, D_v, T_k - key0, keep);
            commit();
#if DROPOUT
            edges.draw<false>(further, row0, key0);
#endif
            await<0>();
            __syncthreads();
            Scores weights, dproducts, apart, &used = SOFTCAP || DROPOUT ? apart : weights;
            dots<false>(weights, down, across);
            weigh<false>(weights, used, limited, row0, key0);
            dots<false>(dproducts, down_v, across_v);
            through<false>(dproducts, weights);
            combine(dqueries, dproducts, across, scratch);
        }
        finish(dq, row0, R, D, dqueries);
    }
    // Writes DOWN rows from `row0` of the `rows` that an entry has.
    __device__ void finish(REAL *to, int row0, int rows, int width, Rows &sums) const {
        gather(sums, down);
        row0 = again(row0);
        write(to + ((long long)again(blockIdx.x) * rows + row0) * width, width, rows - row0, sums);
    }
};

// Blocks with y below the number of tiles of keys make dk and dv, or dk and then dv where they stand APART; the others dq.
// dlse may be null. `shared` holds DOWN rows of k and v and ACROSS of q and dout, or the other way round, SCRATCH numbers,
// three values for each row, and Edges.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    attention_tiled_backward(const REAL *q, const REAL *k, const REAL *v, const REAL *out, const REAL *stats,
                             const REAL *dout, const REAL *dlse, REAL *dq, REAL *dk, REAL *dv, VISIBILITY_PARAMETERS, int D,
                             int D_v, REAL scale, long long dout_entry, long long dout_row GRADIENT_PARAMETERS FURTHER_PARAMETERS) {
#if !OPTIONS
    REAL *const dsinks = nullptr;
#endif
    const long long b = blockIdx.x;
    REAL *const down = (REAL *)shared, *const down_v = down + DOWN * PITCH, *const across = down_v + DOWN * PITCH;
    REAL *const across_v = across + ACROSS * PITCH, *const scratch = across_v + ACROSS * PITCH;
    REAL *const shifts = scratch + SCRATCH;
    Edges &edges = *(Edges *)(shifts + 3 * MOST);
    const Backward gradients = {VISIBILITY(b), FURTHER(b), q, k, v, out, stats, dout, dlse, b, dout_entry, dout_row, R, T_k, D, D_v, scale,
                                down, down_v, across, across_v, scratch, shifts, shifts + MOST, shifts + 2 * MOST, edges};
    const int tiles = (T_k + DOWN - 1) / DOWN, y = blockIdx.y;
    if (y < tiles)
        gradients.of_keys<true, !APART>(dk, dv, y * DOWN);
    else if (APART && dv && y < 2 * tiles)
        gradients.of_keys<false, true>(dk, dv, (y - tiles) * DOWN);
    else
        gradients.of_queries(dq, dsinks, (gridDim.y - 1 - y) * DOWN);
}
