// The LSTM. REAL is float or double; all arrays are contiguous unless a stride is given.

#ifndef REAL
#define REAL float
#endif

__device__ inline REAL sigmoid(REAL a) { return tanh(a / 2) / 2 + REAL(0.5); }

// One step: gates (N, 4H) hold what the inputs add and become f, g, i, o. One thread for each unit.
extern "C" __global__ void lstm_cell(REAL *gates, const REAL *from_h, const REAL *b, const REAL *c, REAL *new_c,
                                     REAL *tanh_c, REAL *new_h, int N, int H) {
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= N * H) return;
    const int j = at % H;
    REAL *a = gates + (long long)(at / H) * 4 * H + j;
    const REAL *r = from_h + (long long)(at / H) * 4 * H + j;
    const REAL f = sigmoid(a[0] + r[0] + b[j]), g = tanh(a[H] + r[H] + b[H + j]);
    const REAL i = sigmoid(a[2 * H] + r[2 * H] + b[2 * H + j]), o = sigmoid(a[3 * H] + r[3 * H] + b[3 * H + j]);
    a[0] = f, a[H] = g, a[2 * H] = i, a[3 * H] = o;
    const REAL cell = f * c[at] + g * i, t = tanh(cell);
    new_c[at] = cell, tanh_c[at] = t, new_h[at] = o * t;
}

// Its gradient. dhs (N, H) has rows `stride` apart; dh becomes dh + dhs, dc that of the cell before the step.
extern "C" __global__ void lstm_cell_backward(const REAL *gates, const REAL *c, const REAL *tanh_c, const REAL *dhs,
                                              REAL *dh, REAL *dc, REAL *da, int N, int H, long long stride) {
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= N * H) return;
    const int n = at / H, j = at % H;
    const REAL *a = gates + (long long)n * 4 * H + j;
    REAL *d = da + (long long)n * 4 * H + j;
    const REAL f = a[0], g = a[H], i = a[2 * H], o = a[3 * H], t = tanh_c[at];
    const REAL into_h = dh[at] + dhs[n * stride + j], into_c = dc[at] + into_h * o * (1 - t * t);
    d[0] = into_c * c[at] * f * (1 - f);
    d[H] = into_c * i * (1 - g * g);
    d[2 * H] = into_c * g * i * (1 - i);
    d[3 * H] = into_h * t * o * (1 - o);
    dh[at] = into_h, dc[at] = into_c * f;
}

// All steps of few sequences: a block for each of them, Wh (H, 4H) read from the cache at every step.
// first_h, first_c (N, H), or null for zeros, become the first entries of h, c (T + 1, N, H); `shared` holds 5H values.
extern "C" __global__ void lstm_all_steps(REAL *gates, const REAL *Wh, const REAL *b, const REAL *first_h,
                                          const REAL *first_c, REAL *h, REAL *c, REAL *tanh_c, int T, int N, int H) {
    extern __shared__ unsigned char shared[];
    REAL *state = (REAL *)shared, *sums = state + H;
    const int n = blockIdx.x;
    for (int j = threadIdx.x; j < H; j += blockDim.x) {
        h[n * H + j] = first_h ? first_h[n * H + j] : 0;
        c[n * H + j] = first_c ? first_c[n * H + j] : 0;
    }
    for (int t = 0; t < T; t++) {
        const long long row = (long long)t * N + n;
        for (int j = threadIdx.x; j < H; j += blockDim.x) state[j] = h[row * H + j];
        __syncthreads();
        for (int j = threadIdx.x; j < 4 * H; j += blockDim.x) {
            REAL sum = gates[row * 4 * H + j] + b[j];
            for (int k = 0; k < H; k++) sum += state[k] * Wh[(long long)k * 4 * H + j];
            sums[j] = sum;
        }
        __syncthreads();
        for (int j = threadIdx.x; j < H; j += blockDim.x) {
            const REAL f = sigmoid(sums[j]), g = tanh(sums[H + j]);
            const REAL i = sigmoid(sums[2 * H + j]), o = sigmoid(sums[3 * H + j]);
            REAL *a = gates + row * 4 * H + j;
            a[0] = f, a[H] = g, a[2 * H] = i, a[3 * H] = o;
            const REAL cell = f * c[row * H + j] + g * i, squashed = tanh(cell);
            c[(row + N) * H + j] = cell, tanh_c[row * H + j] = squashed, h[(row + N) * H + j] = o * squashed;
        }
        __syncthreads();
    }
}
