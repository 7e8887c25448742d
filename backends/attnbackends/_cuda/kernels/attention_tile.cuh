// What the kernels of attention in tiles share. A block of 128 threads holds DOWN rows of one side of the scores of an
// entry (queries, or keys for their gradients) and meets the other side tile by tile, ACROSS of its rows at a time.
// Scores live in registers and shared memory alone. The smaller the tiles, the less shared memory and the fewer
// registers, and the more loads for each product: `_cuda_attention.py` chooses DOWN (64 or 32), ACROSS (64, 32 or 16) and
// WIDTH (64 or 128), which rows are padded to.

#include "attention.cuh"

#ifndef WIDTH
#define WIDTH 64
#endif
#ifndef DOWN
#define DOWN 64
#define ACROSS 64
#endif
#define THREADS 128
#define LANES 16                   // threads that share a row
#define STEP (THREADS / LANES)     // rows of all threads
#define ROWS (DOWN / STEP)         // of a thread: its row number plus multiples of STEP
#define COLUMNS (ACROSS / LANES)   // of a thread in a tile of scores: its column number plus multiples of LANES
#define PARTS (WIDTH / 64)         // of a row of WIDTH: each thread has four values of each
#define PITCH (WIDTH + 4)          // of rows in shared memory: eight lanes that read eight rows meet in no bank
#define SCORES_PITCH (ACROSS + 4)  // the same for a tile of scores

extern __shared__ unsigned char shared[];

// sums[i][j] = a[row + STEP i] . b[column + LANES j]
__device__ inline void dots(REAL (&sums)[ROWS][COLUMNS], const REAL *a, const REAL *b) {
    a += threadIdx.x / LANES * PITCH, b += threadIdx.x % LANES * PITCH;
#pragma unroll
    for (int i = 0; i < ROWS; i++)
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) sums[i][j] = 0;
#pragma unroll 2
    for (int d = 0; d < WIDTH; d += 4) {
        Four y[COLUMNS];
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) y[j] = *(const Four *)(b + j * LANES * PITCH + d);
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            const Four x = *(const Four *)(a + i * STEP * PITCH + d);
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) sums[i][j] = dot(x, y[j], sums[i][j]);
        }
    }
}

// sums[i] += weights[row + STEP i] (DOWN, ACROSS) times the rows of x
__device__ inline void combine(Four (&sums)[ROWS][PARTS], const REAL *weights, const REAL *x) {
    weights += threadIdx.x / LANES * SCORES_PITCH, x += threadIdx.x % LANES * 4;
#pragma unroll 1
    for (int n = 0; n < ACROSS; n += 4)
#pragma unroll
        for (int part = 0; part < PARTS; part++) {
            Four y[4];
#pragma unroll
            for (int m = 0; m < 4; m++) y[m] = *(const Four *)(x + (n + m) * PITCH + part * 64);
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
                const Four w = *(const Four *)(weights + i * STEP * SCORES_PITCH + n);
                add_scaled(sums[i][part], w.x, y[0]), add_scaled(sums[i][part], w.y, y[1]);
                add_scaled(sums[i][part], w.z, y[2]), add_scaled(sums[i][part], w.w, y[3]);
            }
        }
}

__device__ inline void put(REAL *to, const REAL (&tile)[ROWS][COLUMNS]) {
    to += threadIdx.x / LANES * SCORES_PITCH + threadIdx.x % LANES;
#pragma unroll
    for (int i = 0; i < ROWS; i++)
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) to[i * STEP * SCORES_PITCH + j * LANES] = tile[i][j];
}

__device__ inline void multiply(Four (&row)[PARTS], REAL factor) {
#pragma unroll
    for (int part = 0; part < PARTS; part++) {
        Four &s = row[part];
        s.x *= factor, s.y *= factor, s.z *= factor, s.w *= factor;
    }
}

// The first `count` rows of the sums to rows `width` apart.
__device__ inline void write(REAL *to, int width, int count, const Four (&sums)[ROWS][PARTS]) {
    const bool fours = in_fours(to, width, width);
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        const int row = threadIdx.x / LANES + i * STEP;
#pragma unroll
        for (int part = 0; part < PARTS; part++)
            if (row < count)
                store(to + (long long)row * width, threadIdx.x % LANES * 4 + part * 64, width, fours, sums[i][part]);
    }
}

__device__ inline REAL sum_of_row(REAL x) {
#pragma unroll
    for (int step = LANES / 2; step > 0; step /= 2) x += __shfl_xor_sync(EVERY_LANE, x, step);
    return x;
}

__device__ inline REAL max_of_row(REAL x) {
#pragma unroll
    for (int step = LANES / 2; step > 0; step /= 2) x = max(x, __shfl_xor_sync(EVERY_LANE, x, step));
    return x;
}

// What `count` rows from `row0` see: keys from `begin` to `end` by some row, from `all_begin` to `all_end` by every row.
struct Span {
    int begin, end, all_begin, all_end;

    __device__ Span(const Visibility &visible, int row0, int count) {
        const int head = row0 / visible.T_q, last = row0 + count - 1;
        const bool one = head == last / visible.T_q;
        const int low = visible.start + (one ? row0 % visible.T_q : 0);
        const int high = visible.start + (one ? last % visible.T_q : visible.T_q - 1);
        begin = max(low - visible.left, 0), end = min(high + visible.right + 1, visible.length);
        all_begin = max(high - visible.left, 0), all_end = min(low + visible.right + 1, visible.length);
    }
    // Whether some row sees some of `keys` keys, and every row all of them.
    __device__ bool meets(int key0, int keys) const { return key0 < end && key0 + keys > begin; }
    __device__ bool covers(int key0, int keys) const { return key0 >= all_begin && key0 + keys <= all_end; }
};

// First and last keys of a tile of rows, and whether its rows, and a tile of keys, are to be looked at.
struct Edges {
    int first[DOWN], last[DOWN];
    unsigned char rows[DOWN], keys[ACROSS];

    __device__ void set(const Visibility &visible, int row0, int R, int rows) {
        for (int r = threadIdx.x; r < rows; r += THREADS) {
            first[r] = row0 + r < R ? visible.first(row0 + r) : 1;
            last[r] = row0 + r < R ? visible.last(row0 + r) : 0;
        }
    }
    __device__ bool sees(const Visibility &visible, int row0, int r, int key) const {
        return key >= first[r] && key <= last[r] && !visible.masked(row0 + r, key);
    }
    // Which keys of a tile some of DOWN rows see; a whole block calls this after `set` and a barrier.
    __device__ void look(const Visibility &visible, int row0, int key0) {
        for (int j = threadIdx.x; j < ACROSS; j += THREADS) keys[j] = 0;
        __syncthreads();
        for (int at = threadIdx.x; at < DOWN * ACROSS; at += THREADS)
            if (sees(visible, row0, at / ACROSS, key0 + at % ACROSS)) keys[at % ACROSS] = 1;
        __syncthreads();
    }
};

__device__ inline void stage_tile(REAL *to, int full, const REAL *from, long long gap, int width, int count,
                                  const unsigned char *keep, REAL factor = 1) {
    stage(to, PITCH, WIDTH, from, gap, width, min(count, full), full, keep, factor);
}
