// A row-wise softmax. REAL is float or double; the array is contiguous.

#include "real.cuh"

// Softmax of each row (T,) in place; a row of -infinity becomes 0. A block of a power of two threads for each row.
extern "C" __global__ void softmax_rows(REAL *scores, int T) {
    extern __shared__ unsigned char shared[];
    REAL *part = (REAL *)shared;
    REAL *row = scores + (long long)blockIdx.x * T;
    REAL top = -INFINITY;
    for (int t = threadIdx.x; t < T; t += blockDim.x) top = isnan(row[t]) || row[t] > top ? row[t] : top;
    part[threadIdx.x] = top;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) {
            const REAL other = part[threadIdx.x + half];
            if (isnan(other) || other > part[threadIdx.x]) part[threadIdx.x] = other;
        }
        __syncthreads();
    }
    top = part[0] == -INFINITY ? 0 : part[0];
    __syncthreads();
    REAL sum = 0;
    for (int t = threadIdx.x; t < T; t += blockDim.x) sum += row[t] = exp(row[t] - top);
    part[threadIdx.x] = sum;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    const REAL total = part[0] == 0 ? 1 : part[0];
    for (int t = threadIdx.x; t < T; t += blockDim.x) row[t] /= total;
}
