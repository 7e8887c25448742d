// Sums of the rows of a matrix, of all of them or by index: every sum in a fixed order, no atomic additions. REAL is
// float or double; all arrays are contiguous.

#include "real.cuh"

// out (columns,): the sums of x (rows, columns) over its rows. A block for each COLUMNS columns, GROUPS threads for
// each, which share the rows out; `shared` holds a value for each thread.
#define COLUMNS 16
#define GROUPS 64

extern "C" __global__ void sum_rows(REAL *out, const REAL *x, long long rows, int columns) {
    extern __shared__ unsigned char shared[];
    REAL *part = (REAL *)shared;
    const int group = threadIdx.x / COLUMNS, column = blockIdx.x * COLUMNS + threadIdx.x % COLUMNS;
    REAL sum = 0;
    if (column < columns) {
#pragma unroll 8
        for (long long i = group; i < rows; i += GROUPS) sum += x[i * columns + column];
    }
    part[threadIdx.x] = sum;
    __syncthreads();
    for (int half = GROUPS / 2; half > 0; half /= 2) {
        if (group < half) part[threadIdx.x] += part[threadIdx.x + half * COLUMNS];
        __syncthreads();
    }
    if (group == 0 && column < columns) out[column] = part[threadIdx.x];
}

// target (V, D) += rows of values (M, D) by ids (M,), of those with numbers `first` to `last` - 1; with `anew`, what
// stood in the target does not count. THREADS threads of a block look for the ids of one row in tiles of TILE ids, list
// what they find in its order, and add it up: `lanes` threads side by side for the columns, the others for further ids.
// With `by_row`, a block for each row of the target; else one for each id, of which the first of its kind does the work.
// Blocks along y take further columns, 4 * lanes each. `shared` holds a value for each thread, the list, and the bits.
#define THREADS 256
#define TILE (4 * THREADS)

extern "C" __global__ void scatter_add(REAL *target, const long long *ids, const REAL *values, long long first,
                                       long long last, long long V, int D, int lanes, bool by_row, bool anew) {
    extern __shared__ unsigned char shared[];
    REAL *part = (REAL *)shared;
    int *list = (int *)(part + THREADS);
    unsigned *bits = (unsigned *)(list + TILE);
    const long long row = by_row ? blockIdx.x : ids[first + blockIdx.x];
    if (!by_row) {
        if (row < 0 || row >= V) return;
        if (threadIdx.x == 0) list[0] = 0;
        __syncthreads();
        for (long long j = first + threadIdx.x; j < first + blockIdx.x; j += THREADS) {
            if (ids[j] == row) list[0] = 1;  // any number of threads write the same
        }
        __syncthreads();
        const bool seen = list[0];
        __syncthreads();
        if (seen) return;
        first += blockIdx.x;
    }
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, groups = THREADS / lanes, group = threadIdx.x / lanes;
    const int column = blockIdx.y * 4 * lanes + threadIdx.x % lanes;
    REAL sums[4] = {0, 0, 0, 0};
    for (; first < last; first += TILE) {
        unsigned own[4];
        for (int u = 0; u < 4; u++) {
            const long long j = first + u * THREADS + threadIdx.x;
            own[u] = __ballot_sync(~0u, j < last && ids[j] == row);
            if (lane == 0) bits[u * (THREADS / 32) + warp] = own[u];
        }
        __syncthreads();
        int found = 0;
        for (int w = 0; w < TILE / 32; w++) {
            for (int u = 0; u < 4; u++) {
                if (w == u * (THREADS / 32) + warp && own[u] >> lane & 1)
                    list[found + __popc(own[u] & ((1u << lane) - 1))] = u * THREADS + threadIdx.x;
            }
            found += __popc(bits[w]);
        }
        __syncthreads();
#pragma unroll 4
        for (int k = group; k < found; k += groups) {
            const REAL *value = values + (first + list[k]) * D;
            for (int c = 0; c < 4; c++) {
                if (column + c * lanes < D) sums[c] += value[column + c * lanes];
            }
        }
    }
    if (groups > 1) {  // one column for each lane, then
        part[threadIdx.x] = sums[0];
        __syncthreads();
        for (int half = groups / 2; half > 0; half /= 2) {
            if (group < half) part[threadIdx.x] += part[threadIdx.x + half * lanes];
            __syncthreads();
        }
        sums[0] = part[threadIdx.x];
    }
    if (group > 0) return;
    for (int c = 0; c < 4; c++) {
        if (column + c * lanes >= D) break;
        REAL *at = target + row * D + column + c * lanes;
        *at = anew ? sums[c] : *at + sums[c];
    }
}
