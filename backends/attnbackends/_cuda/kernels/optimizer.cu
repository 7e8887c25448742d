// Clipping and Adam over many contiguous arrays in one launch each. REAL is float or double.
//
// `table` describes `count` arrays: the number of the first chunk of each, and of all chunks (count + 1 numbers); their
// sizes; then `count` pointers, or other numbers, for each further row that a kernel names. A chunk is CHUNK values of
// one array; blocks share the chunks out by their numbers alone, so that sums come in the same order on every device.

#include "real.cuh"

#define THREADS 256
#define CHUNK (8 * THREADS)

// Values `begin` to `end` - 1 of array `at` are a chunk.
struct Piece {
    int at;
    long long begin, end;
};

__device__ inline Piece piece_of(const long long *table, int count, long long chunk) {
    int low = 0, high = count;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (table[middle] <= chunk) low = middle;
        else high = middle;
    }
    const long long begin = (chunk - table[low]) * CHUNK, size = table[count + 1 + low];
    return {low, begin, begin + CHUNK < size ? begin + CHUNK : size};
}

__device__ inline REAL *array_of(const long long *table, int count, int row, int at) {
    return (REAL *)table[(row + 2) * (long long)count + 1 + at];
}

// The sum over a block of THREADS threads, for each of them; `shared` holds a value for each.
__device__ inline REAL sum_of_block(REAL value) {
    extern __shared__ unsigned char shared[];
    REAL *part = (REAL *)shared;
    part[threadIdx.x] = value;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    return part[0];
}

// sums (blocks,): the squares of all values. Each chunk is added up by itself first, which keeps the sums short.
extern "C" __global__ void sums_of_squares(REAL *sums, const long long *table, int count) {
    REAL sum = 0;
    for (long long chunk = blockIdx.x; chunk < table[count]; chunk += gridDim.x) {
        const Piece piece = piece_of(table, count, chunk);
        const REAL *x = array_of(table, count, 0, piece.at);
        REAL own = 0;
        for (long long i = piece.begin + threadIdx.x; i < piece.end; i += THREADS) own += x[i] * x[i];
        sum += own;
    }
    sum = sum_of_block(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// The root of the sum of `sums` (number,) becomes `norm` (); all values are scaled down where it is above `max_norm`.
extern "C" __global__ void clip(REAL *norm, const REAL *sums, int number, REAL max_norm, const long long *table,
                                int count) {
    REAL sum = 0;
    for (int i = threadIdx.x; i < number; i += THREADS) sum += sums[i];
    const REAL length = sqrt(sum_of_block(sum)), rate = max_norm / (length + REAL(1e-6));
    if (blockIdx.x == 0 && threadIdx.x == 0) norm[0] = length;
    if (!(rate < 1)) return;  // nor where it is NaN
    for (long long chunk = blockIdx.x; chunk < table[count]; chunk += gridDim.x) {
        const Piece piece = piece_of(table, count, chunk);
        REAL *x = array_of(table, count, 0, piece.at);
        for (long long i = piece.begin + threadIdx.x; i < piece.end; i += THREADS) x[i] *= rate;
    }
}

// Adam, in place. The rows of the table: parameters, gradients, their means, the means of their squares, and 1 where
// `kept` is what remains of a parameter before the step, else 0. share1 and share2 are 1 - beta1 and 1 - beta2, which
// the host takes in double: a float loses a hundred units in the last place of 1 - 0.999.
extern "C" __global__ void adam_step(REAL lr, REAL share1, REAL share2, REAL kept, const long long *table, int count) {
    for (long long chunk = blockIdx.x; chunk < table[count]; chunk += gridDim.x) {
        const Piece piece = piece_of(table, count, chunk);
        REAL *param = array_of(table, count, 0, piece.at);
        const REAL *grad = array_of(table, count, 1, piece.at);
        REAL *m = array_of(table, count, 2, piece.at), *v = array_of(table, count, 3, piece.at);
        const REAL left = array_of(table, count, 4, piece.at) ? kept : REAL(1);
        for (long long i = piece.begin + threadIdx.x; i < piece.end; i += THREADS) {
            const REAL g = grad[i], mean = m[i] + share1 * (g - m[i]), square = v[i] + share2 * (g * g - v[i]);
            m[i] = mean, v[i] = square;
            param[i] = left * param[i] - lr * (mean / (sqrt(square) + REAL(1e-7)));
        }
    }
}
