// What the kernels of attention in tiles share: a block of 128 threads has 64 rows of queries (or, for the gradients
// of keys and values, 64 keys) of an entry, which meet the other side tile by tile. Scores live in registers and shared
// memory alone. WIDTH, 64 or 128, is what rows are padded to.

#include "attention.cuh"

#ifndef WIDTH
#define WIDTH 64
#endif
#define TILE 64
#define THREADS 128
#define PITCH (WIDTH + 4)  // of rows in shared memory: eight lanes that read eight rows meet in no bank
#define ROWS 8             // of a thread: its row number plus multiples of STEP
#define STEP (TILE / ROWS)
#define COLUMNS 4          // of a thread in a tile of scores: its column number plus multiples of LANES
#define LANES 16           // threads that share a row
#define PARTS (WIDTH / 64) // of a row of WIDTH: each thread has four values of each

extern __shared__ unsigned char shared[];

// sums[i][j] = a[row + 8 i] . b[column + 16 j]
__device__ inline void dots(REAL (&sums)[ROWS][COLUMNS], const REAL *a, const REAL *b) {
    a += threadIdx.x / LANES * PITCH, b += threadIdx.x % LANES * PITCH;
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < COLUMNS; j++) sums[i][j] = 0;
#pragma unroll 2
    for (int d = 0; d < WIDTH; d += 4) {
        Four y[COLUMNS];
        for (int j = 0; j < COLUMNS; j++) y[j] = *(const Four *)(b + j * LANES * PITCH + d);
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            const Four x = *(const Four *)(a + i * STEP * PITCH + d);
            for (int j = 0; j < COLUMNS; j++) sums[i][j] = dot(x, y[j], sums[i][j]);
        }
    }
}

// sums[i] += weights[row + 8 i] times the rows of x, where weights (TILE, TILE) are PITCH apart
__device__ inline void combine(Four (&sums)[ROWS][PARTS], const REAL *weights, const REAL *x) {
    weights += threadIdx.x / LANES * PITCH, x += threadIdx.x % LANES * 4;
#pragma unroll 1
    for (int n = 0; n < TILE; n += 4)
#pragma unroll
        for (int part = 0; part < PARTS; part++) {
            Four y[4];
            for (int m = 0; m < 4; m++) y[m] = *(const Four *)(x + (n + m) * PITCH + part * 64);
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
                const Four w = *(const Four *)(weights + i * STEP * PITCH + n);
                add_scaled(sums[i][part], w.x, y[0]), add_scaled(sums[i][part], w.y, y[1]);
                add_scaled(sums[i][part], w.z, y[2]), add_scaled(sums[i][part], w.w, y[3]);
            }
        }
}

__device__ inline void put(REAL *to, const REAL (&tile)[ROWS][COLUMNS]) {
    to += threadIdx.x / LANES * PITCH + threadIdx.x % LANES;
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < COLUMNS; j++) to[i * STEP * PITCH + j * LANES] = tile[i][j];
}

// The first `count` rows of the sums, times `factor`, to rows `width` apart.
__device__ inline void write(REAL *to, int width, int count, const Four (&sums)[ROWS][PARTS], REAL factor) {
    const bool fours = in_fours(to, width, width);
    for (int i = 0; i < ROWS; i++) {
        const int row = threadIdx.x / LANES + i * STEP;
        for (int part = 0; row < count && part < PARTS; part++) {
            const Four &s = sums[i][part];
            store(to + (long long)row * width, threadIdx.x % LANES * 4 + part * 64, width, fours,
                  {factor * s.x, factor * s.y, factor * s.z, factor * s.w});
        }
    }
}

__device__ inline REAL sum_of_row(REAL x) {
    for (int step = LANES / 2; step > 0; step /= 2) x += __shfl_xor_sync(EVERY_LANE, x, step);
    return x;
}

__device__ inline REAL max_of_row(REAL x) {
    for (int step = LANES / 2; step > 0; step /= 2) x = max(x, __shfl_xor_sync(EVERY_LANE, x, step));
    return x;
}

// What 64 rows from `row0` see: keys from `begin` to `end` by some row, from `all_begin` to `all_end` by every row.
struct Span {
    int begin, end, all_begin, all_end;

    __device__ Span(const Sight &sight, int row0, int count) {
        const int head = row0 / sight.T_q, last = row0 + count - 1;
        const bool one = head == last / sight.T_q;
        const int low = sight.start + (one ? row0 % sight.T_q : 0);
        const int high = sight.start + (one ? last % sight.T_q : sight.T_q - 1);
        begin = max(low - sight.left, 0), end = min(high + sight.right + 1, sight.length);
        all_begin = max(high - sight.left, 0), all_end = min(low + sight.right + 1, sight.length);
    }
    __device__ bool meets(int key0) const { return key0 < end && key0 + TILE > begin; }
    __device__ bool covers(int key0) const { return key0 >= all_begin && key0 + TILE <= all_end; }
};

// First and last keys of 64 rows, and what their `rows` and 64 `keys` are good for.
struct Edges {
    int first[TILE], last[TILE];
    unsigned char rows[TILE], keys[TILE];

    __device__ void set(const Sight &sight, int row0, int R) {
        for (int r = threadIdx.x; r < TILE; r += THREADS) {
            first[r] = row0 + r < R ? sight.first(row0 + r) : 1;
            last[r] = row0 + r < R ? sight.last(row0 + r) : 0;
        }
    }
    __device__ bool sees(const Sight &sight, int row0, int r, int key) const {
        return key >= first[r] && key <= last[r] && !sight.masked(row0 + r, key);
    }
    // Which of 64 keys some row sees; a whole block calls this after `set` and a barrier.
    __device__ void look(const Sight &sight, int row0, int key0) {
        for (int j = threadIdx.x; j < TILE; j += THREADS) keys[j] = 0;
        __syncthreads();
        for (int at = threadIdx.x; at < TILE * TILE; at += THREADS)
            if (sees(sight, row0, at / TILE, key0 + at % TILE)) keys[at % TILE] = 1;
        __syncthreads();
    }
};

__device__ inline void stage_tile(REAL *to, const REAL *from, long long gap, int width, int count,
                                  const unsigned char *keep) {
    stage(to, PITCH, WIDTH, from, gap, width, min(count, TILE), TILE, keep);
}
