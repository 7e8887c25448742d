// Cross-entropy of softmax. REAL is float or double; logits and dlogits (M, V) are contiguous.

#include "ids.cuh"
#include "real.cuh"

// The sum over a block of a power of two threads, for each of them; `part` holds a value for each.
__device__ inline REAL sum_of_block(REAL value, REAL *part) {
    __syncthreads();  // whatever was there has been read
    part[threadIdx.x] = value;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    return part[0];
}

__device__ inline REAL max_of_block(REAL value, REAL *part) {
    part[threadIdx.x] = value;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] = max(part[threadIdx.x], part[threadIdx.x + half]);
        __syncthreads();
    }
    return part[0];
}

// A block for each row. rows (4, M): the loss of a row, whether it counts, its largest logit, and the sum of its
// exponentials above that one. `smoothing` is spread over all V classes.
extern "C" __global__ void cross_entropy_rows(REAL *rows, const REAL *logits, const long long *labels, int V,
                                              REAL smoothing, long long ignore, long long check,
                                              unsigned long long report) {
    extern __shared__ unsigned char shared[];
    REAL *part = (REAL *)shared, *at = rows + blockIdx.x;
    const long long M = gridDim.x, label = labels[blockIdx.x];
    if (label == ignore) {  // whatever such a row holds
        if (threadIdx.x < 4) at[threadIdx.x * M] = 0;
        return;
    }
    const REAL *row = logits + blockIdx.x * (long long)V;
    REAL top = -INFINITY, sum = 0, all = 0;
    for (int j = threadIdx.x; j < V; j += blockDim.x) top = max(top, row[j]);
    top = max_of_block(top, part);
    for (int j = threadIdx.x; j < V; j += blockDim.x) {
        const REAL above = row[j] - top;
        sum += exp(above);
        if (smoothing) all += above;
    }
    sum = sum_of_block(sum, part);
    if (smoothing) all = sum_of_block(all, part);
    if (threadIdx.x) return;
    const REAL own = row[within(label, V, true, ignore, check, report)] - top;
    REAL loss = log(sum) - (1 - smoothing) * own;
    if (smoothing) loss -= smoothing / V * all;
    at[0] = loss, at[M] = 1, at[2 * M] = top, at[3 * M] = sum;
}

// One block: the mean loss of the rows that count, and their number, 1 at least.
extern "C" __global__ void cross_entropy_mean(REAL *loss, REAL *divisor, const REAL *rows, long long M) {
    extern __shared__ unsigned char shared[];
    REAL *part = (REAL *)shared, sum = 0, count = 0;
    for (long long i = threadIdx.x; i < M; i += blockDim.x) sum += rows[i], count += rows[M + i];
    sum = sum_of_block(sum, part);
    count = max(sum_of_block(count, part), REAL(1));
    if (threadIdx.x == 0) loss[0] = sum / count, divisor[0] = count;
}

// The gradient, a block for each row; `dloss_at`, if it is not null, is where dloss lies.
extern "C" __global__ void cross_entropy_backward(REAL *dlogits, const REAL *logits, const long long *labels,
                                                  const REAL *rows, const REAL *divisor, long long M, int V,
                                                  REAL smoothing, REAL dloss, const REAL *dloss_at) {
    const REAL factor = (dloss_at ? *dloss_at : dloss) / *divisor;
    const long long row = blockIdx.x;
    const bool counts = rows[M + row] != 0;
    const REAL top = rows[2 * M + row], share = factor / rows[3 * M + row], less = factor * (smoothing / V);
    const long long label = labels[row] < 0 || labels[row] >= V ? 0 : labels[row];
    for (int j = threadIdx.x; j < V; j += blockDim.x) {
        REAL d = 0;
        if (counts) {
            d = exp(logits[row * V + j] - top) * share - less;
            if (j == label) d -= factor * (1 - smoothing);
        }
        dlogits[row * V + j] = d;
    }
}
