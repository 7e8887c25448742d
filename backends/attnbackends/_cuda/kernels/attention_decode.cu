// Attention of few rows of queries over many keys, forward: the keys of an entry are split into shares, so that blocks on
// all multiprocessors read them, each key once. A block leaves what its share comes to, and a second kernel puts the
// shares of a row together in their order; where there is one share, the first kernel has the output.

#include "attention.cuh"

#ifndef LANES
#define LANES 16  // threads that share a key
#define PIECES 1  // of CHUNK numbers of each: piece p of lane l begins at (p * LANES + l) * CHUNK
#define ROWS 1    // of queries, which a block meets its keys with
#endif
#define CHUNK (sizeof(VALUE) == 2 ? 8 : 4)
#define WIDTH (LANES * PIECES * CHUNK)  // what D and D_v fit into
#define THREADS 128
#define WARPS (THREADS / 32)
#define WORKERS (THREADS / LANES)                      // each has keys, a softmax and an output of its own
#define TOGETHER (sizeof(REAL) == 8 ? 1 : ROWS * PIECES * CHUNK > 16 ? 2 : 4)  // keys of a worker, loaded before they are met
#define BLOCKS (sizeof(REAL) == 8 || DROPOUT ? 2 : 4)  // of a multiprocessor, which registers are for
#define MOST_SHARES 512

struct alignas(16) Chunk {
    VALUE of[CHUNK];
};

// This thread's pieces of a row; they are 0 past its width, and all of them where it is not to be read. WHOLE: chunks lie
// as they are loaded.
template <bool WHOLE> __device__ inline void load(Chunk (&to)[PIECES], const VALUE *row, int width, bool read) {
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
        const int d = (p * LANES + threadIdx.x % LANES) * CHUNK;
        if (WHOLE && read && d < width) {
            to[p] = *(const Chunk *)(row + d);
        } else {
#pragma unroll
            for (int c = 0; c < CHUNK; c++) to[p].of[c] = !WHOLE && read && d + c < width ? row[d + c] : VALUE(0);
        }
    }
}

// Chunks of rows one after the other may be read as they are.
__device__ inline bool in_chunks(const VALUE *rows, int width) {
    return width % CHUNK == 0 && (unsigned long long)rows % 16 == 0;
}

// What a score, or a sum of exp(score - `top`), is multiplied by where exp(score - `common`) is summed.
__device__ inline REAL factor_of(REAL top, REAL common) { return common == -INFINITY ? 0 : exp(top - common); }

__device__ inline REAL warp_max(REAL x) {
    for (int step = 16; step > 0; step /= 2) x = max(x, __shfl_xor_sync(EVERY_LANE, x, step));
    return x;
}

// One number of the output of a row, of `rows` in all, with the statistics of the row beside the first.
__device__ inline void finish(VALUE *out, VALUE *kept, REAL *stats, long long rows, long long row, int D_v, int d,
                              REAL sum, REAL top, REAL total) {
    const VALUE value = VALUE(sum * (1 / (total == 0 ? 1 : total)));
    out[row * D_v + d] = value;
    if (kept) kept[row * D_v + d] = value;
    if (d == 0) Stats(stats, rows).set(row, top, total);
}

// Rows of queries of one entry, and what a worker has of each: a softmax and an output that go on from key to key.
struct Worker {
    REAL rows[ROWS][PIECES][CHUNK], sums[ROWS][PIECES][CHUNK], tops[ROWS], totals[ROWS];

    __device__ inline void start(const VALUE *q, int D, int count, REAL scale) {
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            Chunk row[PIECES];
            load<false>(row, q + r * D, D, r < count);
            tops[r] = -INFINITY, totals[r] = 0;
#pragma unroll
            for (int p = 0; p < PIECES; p++)
#pragma unroll
                for (int c = 0; c < CHUNK; c++) rows[r][p][c] = scale * REAL(row[p].of[c]), sums[r][p][c] = 0;
        }
    }
    // Meets keys and values, the first of them number `key0`; `sees` has a bit for each row that a key is for.
    template <int N>
    __device__ inline void meet(const Chunk (&keys)[N][PIECES], const Chunk (&values)[N][PIECES],
                                const unsigned int (&sees)[N], const Further &further, int row0, int key0) {
#if DROPOUT
        unsigned int kept[(ROWS * N + LANES - 1) / LANES];  // a bit for each row and key, drawn by a lane each
        for (int at = 0; at < ROWS * N; at += LANES) {
            const int own = at + threadIdx.x % LANES, row = row0 + own / N, key = key0 + own % N * WORKERS;
            const unsigned int votes = __ballot_sync(EVERY_LANE, further.kept(row, key / 8 * 8) >> key % 8 & 1);
            kept[at / LANES] = votes >> threadIdx.x % 32 / LANES * LANES;
        }
#endif
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            REAL scores[N], top = tops[r];
#pragma unroll
            for (int i = 0; i < N; i++) {
                REAL sum = 0;
#pragma unroll
                for (int p = 0; p < PIECES; p++)
#pragma unroll
                    for (int c = 0; c < CHUNK; c++) sum += rows[r][p][c] * REAL(keys[i][p].of[c]);
#pragma unroll
                for (int step = LANES / 2; step > 0; step /= 2) sum += __shfl_xor_sync(EVERY_LANE, sum, step);
                scores[i] = -INFINITY;
                if (sees[i] >> r & 1) scores[i] = further.biased(further.capped(sum), row0 + r, key0 + i * WORKERS);
                top = max(top, scores[i]);
            }
            const REAL factor = factor_of(tops[r], top);
            totals[r] *= factor;
#pragma unroll
            for (int p = 0; p < PIECES; p++)
#pragma unroll
                for (int c = 0; c < CHUNK; c++) sums[r][p][c] *= factor;
            tops[r] = top;
#pragma unroll
            for (int i = 0; i < N; i++) {
                REAL weight = factor_of(scores[i], top);
                totals[r] += weight;
#if DROPOUT
                const int at = r * N + i;
                weight = kept[at / LANES] >> at % LANES & 1 ? weight * further.factor : 0;
#endif
#pragma unroll
                for (int p = 0; p < PIECES; p++)
#pragma unroll
                    for (int c = 0; c < CHUNK; c++) sums[r][p][c] += weight * REAL(values[i][p].of[c]);
            }
        }
    }
    // The workers of a warp become one: that of its first lanes.
    __device__ inline void join() {
#pragma unroll
        for (int step = LANES; step < 32; step *= 2)
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                const REAL other = __shfl_xor_sync(EVERY_LANE, tops[r], step), top = max(tops[r], other);
                const REAL own = factor_of(tops[r], top), its = factor_of(other, top);
                totals[r] = totals[r] * own + __shfl_xor_sync(EVERY_LANE, totals[r], step) * its;
#pragma unroll
                for (int p = 0; p < PIECES; p++)
#pragma unroll
                    for (int c = 0; c < CHUNK; c++)
                        sums[r][p][c] = sums[r][p][c] * own + __shfl_xor_sync(EVERY_LANE, sums[r][p][c], step) * its;
                tops[r] = top;
            }
    }
};

// What the rows of a block see.
struct Rows {
    int row0, count;  // the first one, and how many there are
    int begin, end;   // keys that some of them see
    bool limited;     // whether not all of them see all of these
    int first[ROWS], last[ROWS];
    const bool *mask[ROWS];

    __device__ void set(const Visibility &visible, int row, int number, int T_k) {
        int latest = 0, earliest = T_k;
        row0 = row, count = number, begin = T_k, end = 0;
        for (int r = 0; r < count; r++) {
            first[r] = visible.first(row0 + r), last[r] = visible.last(row0 + r);
            mask[r] = visible.mask ? visible.mask + (row0 + r) % visible.period * visible.mask_row : nullptr;
            begin = min(begin, first[r]), end = max(end, last[r] + 1);
            latest = max(latest, first[r]), earliest = min(earliest, last[r] + 1);
        }
        limited = visible.mask || latest != begin || earliest != end;
    }
    __device__ unsigned int seeing(int key, const Visibility &visible) const {
        unsigned int bits = 0;
#pragma unroll 1
        for (int r = 0; r < count; r++)
            if (key >= first[r] && key <= last[r] && !(visible.mask && !mask[r][key * visible.mask_key])) bits |= 1u << r;
        return bits;
    }
};

// The keys of a share, N of a worker at a time.
template <int N, bool WHOLE>
__device__ inline void meet_keys(Worker &worker, const Rows &rows, const Visibility &visible, const Further &further,
                                 const VALUE *k, const VALUE *v, int D, int D_v, int from, int to) {
    for (int key0 = from + threadIdx.x / LANES; key0 - (int)threadIdx.x / LANES < to; key0 += WORKERS * N) {
        Chunk keys[N][PIECES], values[N][PIECES];
        unsigned int sees[N];
#pragma unroll
        for (int i = 0; i < N; i++) {
            const int key = key0 + i * WORKERS;
            sees[i] = key >= to ? 0 : rows.limited ? rows.seeing(key, visible) : (1u << rows.count) - 1;
            load<WHOLE>(keys[i], k + (long long)key * D, D, sees[i]);
            load<WHOLE>(values[i], v + (long long)key * D_v, D_v, sees[i]);
        }
        worker.meet(keys, values, sees, further, rows.row0, key0);
    }
}

// Block x has some rows of an entry, block y a share of their keys. With more than one share, `parts` (B, R, shares,
// D_v + 2) get the sum over the values, the largest score and the total; else out, kept unless it is null, and stats are
// written here.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    attention_decode(const VALUE *q, const VALUE *k, const VALUE *v, VALUE *out, VALUE *kept, REAL *stats, REAL *parts,
                     VISIBILITY_PARAMETERS, int D, int D_v, REAL scale FURTHER_PARAMETERS) {
    __shared__ Rows rows;
    __shared__ REAL sums_of[WARPS][ROWS][WIDTH], tops_of[WARPS][ROWS], totals_of[WARPS][ROWS];
    const int blocks = (R + ROWS - 1) / ROWS, row0 = blockIdx.x % blocks * ROWS, count = min(R - row0, ROWS);
    const long long b = blockIdx.x / blocks;
    const Visibility visible = VISIBILITY(b);
    if (threadIdx.x == 0) rows.set(visible, row0, count, T_k);
    Worker worker;
    worker.start(q + (b * R + row0) * D, D, count, scale);
    const Further further = FURTHER(b);
#if SINKS
#pragma unroll
    for (int r = 0; r < ROWS; r++)  // as if it had met a key of that score before
        if (blockIdx.y == 0 && threadIdx.x < LANES && r < count) {
            worker.tops[r] = further.sinks[row0 + r];
            worker.totals[r] = worker.tops[r] != -INFINITY;
        }
#endif
    __syncthreads();
    const int each = (max(rows.end - rows.begin, 0) + (int)gridDim.y - 1) / (int)gridDim.y;
    const int from = rows.begin + (int)blockIdx.y * each, to = min(from + each, rows.end);
    k += b * T_k * D, v += b * T_k * D_v;
    if (in_chunks(k, D) && in_chunks(v, D_v))
        meet_keys<TOGETHER, true>(worker, rows, visible, further, k, v, D, D_v, from, to);
    else
        meet_keys<1, false>(worker, rows, visible, further, k, v, D, D_v, from, to);
    worker.join();
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < ROWS && lane < LANES; r++) {
#pragma unroll
        for (int p = 0; p < PIECES; p++)
#pragma unroll
            for (int c = 0; c < CHUNK; c++) sums_of[warp][r][(p * LANES + lane) * CHUNK + c] = worker.sums[r][p][c];
        if (lane == 0) tops_of[warp][r] = worker.tops[r], totals_of[warp][r] = worker.totals[r];
    }
    __syncthreads();
    for (int at = threadIdx.x; at < count * D_v; at += THREADS) {
        const int r = at / D_v, d = at % D_v;
        const long long row = b * R + row0 + r;
        REAL top = -INFINITY, total = 0, sum = 0;
        for (int w = 0; w < WARPS; w++) top = max(top, tops_of[w][r]);
        for (int w = 0; w < WARPS; w++) {
            const REAL factor = factor_of(tops_of[w][r], top);
            total += factor * totals_of[w][r], sum += factor * sums_of[w][r][d];
        }
        if (gridDim.y > 1) {
            REAL *const part = parts + (row * gridDim.y + blockIdx.y) * (D_v + 2);
            part[d] = sum;
            if (d == 0) part[D_v] = top, part[D_v + 1] = total;
        } else {
            finish(out, kept, stats, gridDim.x / blocks * R, row, D_v, d, sum, top, total);
        }
    }
}

// A block for each row puts its shares together.
extern "C" __global__ void __launch_bounds__(THREADS)
    attention_decode_join(VALUE *out, VALUE *kept, REAL *stats, const REAL *parts, int shares, int D_v) {
    __shared__ REAL factors[MOST_SHARES];
    const long long row = blockIdx.x;
    const int pitch = D_v + 2;
    parts += row * shares * pitch;
    REAL top = -INFINITY, total = 0;
    for (int s = threadIdx.x % 32; s < shares; s += 32) top = max(top, parts[s * pitch + D_v]);
    top = warp_max(top);
    for (int s = threadIdx.x; s < shares; s += THREADS) factors[s] = factor_of(parts[s * pitch + D_v], top);
    __syncthreads();
    for (int s = 0; s < shares; s++) total += factors[s] * parts[s * pitch + D_v + 1];
    for (int d = threadIdx.x; d < D_v; d += THREADS) {
        REAL sum = 0;
#pragma unroll 8
        for (int s = 0; s < shares; s++) sum += factors[s] * parts[s * pitch + d];
        finish(out, kept, stats, gridDim.x, row, D_v, d, sum, top, total);
    }
}
