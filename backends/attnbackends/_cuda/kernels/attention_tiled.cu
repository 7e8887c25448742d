// Attention of long sequences in O(T) memory, forward: a softmax that is corrected from tile to tile.
// `attention.py` launches this; the tests also run it on the CPU, thread by thread.

#include "attention_tile.cuh"

// What rows have come to: the largest score, and the sum of weights that belong to it, of this thread's columns alone.
struct Softmax {
    REAL tops[ROWS], totals[ROWS];

    // Rows from `row0` that have met no key; a sink is as if they had met one of that score.
    __device__ Softmax(const Further &further, int row0, int R) {
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            tops[i] = -INFINITY, totals[i] = 0;
#if SINKS
            if (row0 + row_of(i) < R) tops[i] = further.sinks[row0 + row_of(i)];
            totals[i] = threadIdx.x % LANES == 0 && team() == 0 && tops[i] != -INFINITY;
#endif
        }
    }
    // The scores of a tile to weights; `sums` are brought to the largest score so far.
    __device__ void take(Scores &scores, Rows &sums) {
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            REAL top = tops[i], total = 0;
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) top = max(top, scores[i][j]);
            top = max_of_row(top);
            const REAL shift = top == -INFINITY ? 0 : top, factor = weight_of(tops[i], shift);
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) total += scores[i][j] = weight_of(scores[i][j], shift);
            totals[i] = totals[i] * factor + total;
            multiply(sums[i], factor);
            tops[i] = top;
        }
    }
    // Adds up what threads and teams have; the first team has all of it then. `room` holds DOWN rows.
    __device__ void gather_all(Rows &sums, REAL *room) {
#pragma unroll
        for (int i = 0; i < ROWS; i++) totals[i] = sum_of_row(totals[i]);
        if (TEAMS == 1) return;
        REAL *const all_tops = room, *const all_totals = room + TEAMS * DOWN;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < ROWS; i++)
            if (threadIdx.x % LANES == 0)
                all_tops[team() * DOWN + row_of(i)] = tops[i], all_totals[team() * DOWN + row_of(i)] = totals[i];
        __syncthreads();
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            REAL top = -INFINITY, total = 0;
            for (int other = 0; other < TEAMS; other++) top = max(top, all_tops[other * DOWN + row_of(i)]);
            const REAL shift = top == -INFINITY ? 0 : top;
            for (int other = 0; other < TEAMS; other++) {
                const int at = other * DOWN + row_of(i);
                total += all_totals[at] * weight_of(all_tops[at], shift);
            }
            multiply(sums[i], weight_of(tops[i], shift));
            tops[i] = top, totals[i] = total;
        }
        gather(sums, room);
    }
};

// kept gets what out gets, for backward: the caller may write to out. It may be null. `shared` holds tiles of queries, keys
// and values, SCRATCH numbers and Edges. While a product of the tile works, the next product's rows come.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    attention_tiled(const REAL *q, const REAL *k, const REAL *v, REAL *out, REAL *kept, REAL *stats,
                    VISIBILITY_PARAMETERS, int D, int D_v, REAL scale FURTHER_PARAMETERS) {
    const long long b = blockIdx.x;
    const int row0 = (gridDim.y - 1 - blockIdx.y) * DOWN, count = min(R - row0, DOWN);  // causal: longest first
    const Visibility visible = VISIBILITY(b);
    const Further further = FURTHER(b);
    const Span span(visible, row0, count);
    REAL *const own_q = (REAL *)shared, *const own_k = own_q + DOWN * PITCH, *const own_v = own_k + ACROSS * PITCH;
    REAL *const scratch = own_v + ACROSS * PITCH;
    Edges &edges = *(Edges *)(scratch + SCRATCH);
    const REAL *const keys = k + b * T_k * D, *const values = v + b * T_k * D_v;
    const auto limits = [&](int key0) { return mask || !span.covers(key0, ACROSS); };
    const auto stage_keys = [&](int key0, bool limited) {
        if (limited) edges.look(visible, row0, key0);
        const unsigned char *const keep = limited ? edges.keys : nullptr;
        stage_tile<ACROSS>(own_k, keys + (long long)key0 * D, D, D, T_k - key0, keep);
    };
    const auto stage_values = [&](int key0, bool limited) {
        const unsigned char *const keep = limited ? edges.keys : nullptr;
        stage_tile<ACROSS>(own_v, values + (long long)key0 * D_v, D_v, D_v, T_k - key0, keep);
        commit();
    };
    edges.set(visible, row0, R, DOWN);
    stage_tile<DOWN>(own_q, q + (b * R + row0) * D, D, D, count, nullptr);
    Rows sums = {};
    int key0 = span.begin / ACROSS * ACROSS;
    bool limited = limits(key0);
    __syncthreads();
    if (key0 < span.end) stage_keys(key0, limited), commit(), stage_values(key0, limited);
    Softmax softmax(further, row0, R);  // here, or it takes registers while the first rows come
    while (key0 < span.end) {
        const int next = key0 + ACROSS;
        const bool next_limited = limits(next);
        await<1>();  // the keys
        __syncthreads();
#if DROPOUT
        edges.draw<false>(further, row0, key0);
#endif
        Scores scores;
        dots<false>(scores, own_q, own_k);
        __syncthreads();
        if (next < span.end) stage_keys(next, next_limited);
        commit();
        const unsigned hidden = limited ? edges.hidden<false>(visible, row0, key0) : 0;
#pragma unroll
        for (int i = 0; i < ROWS; i++)
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) {
                const bool hides = hidden >> (i * COLUMNS + j) & 1;
                REAL score = further.capped(score_of(scores[i][j], scale));
#if BIAS
                const int key = hides ? 0 : key0 + column_of(j);  // there is such a key
                score = further.biased(score, again(row0) + row_of(i), key);
#endif
                scores[i][j] = hides ? -INFINITY : score;
            }
        softmax.take(scores, sums);
#if DROPOUT
        const unsigned dropped = edges.dropped<false>();
#pragma unroll
        for (int i = 0; i < ROWS; i++)
#pragma unroll
            for (int j = 0; j < COLUMNS; j++)
                if (dropped >> (i * COLUMNS + j) & 1) scores[i][j] = 0;
#endif
        await<1>();  // the values
        __syncthreads();
        combine(sums, scores, own_v, scratch);
        __syncthreads();
        if (next < span.end) stage_values(next, next_limited);
        else commit();
        key0 = next, limited = next_limited;
    }
    await<0>();
    softmax.gather_all(sums, own_q);
    const int own_row0 = again(row0), own_count = min(R - own_row0, DOWN);
    const long long from = (long long)again(blockIdx.x) * R + own_row0;
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        const REAL total = softmax.totals[i];
        multiply(sums[i], further.of_kept() / (total == 0 ? 1 : total));
        if (threadIdx.x % LANES == 0 && team() == 0 && row_of(i) < own_count)
            Stats(stats, again(blockIdx.x), R).set(own_row0 + row_of(i), softmax.tops[i], total);
    }
#pragma unroll 1
    for (REAL *to = out; to; to = to == kept ? nullptr : kept) write(to + from * D_v, D_v, own_count, sums);
}
