// A row-wise softmax, and Adam. REAL is float or double; all arrays are contiguous.

#ifndef INFINITY  // NVRTC has no math.h
#define INFINITY __int_as_float(0x7f800000)
#endif
#ifndef REAL
#define REAL float
#endif

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

// Adam, in place, for one array of `size` values. share1 and share2 are 1 - beta1 and 1 - beta2, which the host takes in
// double: a float loses a hundred units in the last place of 1 - 0.999.
extern "C" __global__ void adam_step(REAL *param, const REAL *grad, REAL *m, REAL *v, REAL lr, REAL share1, REAL share2,
                                     long long size) {
    const long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= size) return;
    const REAL g = grad[at], mean = m[at] + share1 * (g - m[at]), square = v[at] + share2 * (g * g - v[at]);
    m[at] = mean, v[at] = square;
    param[at] -= lr * (mean / (sqrt(square) + REAL(1e-7)));
}
