// The LSTM: all steps in one launch, forward and backward, and beside them the cell of one step. REAL is float or double.
// Arrays are entry by entry: gates and their gradients (N, T, 4H), states (N, T, H). Every sum has a fixed order.
//
// In the kernels of all steps a block has 8 hidden units of a group of entries: its columns of Wh stay in shared memory.
// Blocks of a group wait for each other once a step, so that all blocks must be on the device at once.

#include "real.cuh"
#ifndef ROWS
#define ROWS 32
#endif

const int UNITS = 8, COLUMNS = 4 * UNITS, THREADS = 256;
const int PARTS = THREADS / (8 * UNITS);  // of the sums over states, each taken by other threads

struct alignas(16) Four {
    REAL x[4];
};

// For other blocks, in stores of 16 bytes, which the compiler does not make of four numbers everywhere.
__device__ inline void hand_over(float *to, const float *x) {
    __stcg((float4 *)to, make_float4(x[0], x[1], x[2], x[3]));
}
__device__ inline void hand_over(double *to, const double *x) {
    __stcg((double2 *)to, make_double2(x[0], x[1]));
    __stcg((double2 *)to + 1, make_double2(x[2], x[3]));
}

// -- a step of one unit

__device__ inline REAL sigmoid(REAL a) { return tanh(a / 2) / 2 + REAL(0.5); }

// What a forward pass keeps and returns. `rows` (N, T, width) are what the gradients of the weights are products of: the
// state before each step, x (N, T, D), 1, zeros. `gates` hold what the inputs add and become f, g, i, o; `c` (N, T, H)
// are the cells before each step. h and c after the last step so far are in last_h, last_c (N, H).
struct Kept {
    REAL *gates, *hs, *rows, *c, *last_h, *last_c;
    int T, H, width;
};

struct Cell {
    REAL f, g, i, o, c, h;
};

// From the sums `a` of the gates of one unit, and its state before the step.
__device__ inline Cell step_of(const REAL *a, bool live, REAL old_h, REAL old_c) {
    const REAL f = sigmoid(a[0]), g = tanh(a[1]), i = sigmoid(a[2]), o = sigmoid(a[3]);
    const REAL c = live ? f * old_c + g * i : old_c;
    return {f, g, i, o, c, live ? o * tanh(c) : old_h};
}

// The state in the row of the next step.
__device__ inline void hand_on(const Kept &kept, REAL h, int n, int t, int unit) {
    if (t + 1 < kept.T) kept.rows[((long long)n * kept.T + t + 1) * kept.width + unit] = h;
}

// The rest.
__device__ inline void keep(const Kept &kept, const Cell &cell, REAL old_h, REAL old_c, int n, int t, int unit) {
    const int H = kept.H;
    const long long step = (long long)n * kept.T + t, state = (long long)n * H + unit;
    REAL *gates = kept.gates + step * 4 * H + unit;
    gates[0] = cell.f, gates[H] = cell.g, gates[2 * H] = cell.i, gates[3 * H] = cell.o;
    if (!t) kept.rows[step * kept.width + unit] = old_h;
    kept.c[step * H + unit] = old_c, kept.last_c[state] = cell.c;
    kept.hs[step * H + unit] = kept.last_h[state] = cell.h;
}

// What stands behind the state in a row, from place `begin` on in strides of `by`.
__device__ inline void finish_row(REAL *row, const REAL *x, int D, int count, int begin, int by) {
    for (int d = begin; d < count; d += by) row[d] = d < D ? x[d] : REAL(d == D);
}

// Gradients of the gates' sums, from those of h and c after the step; `dc` becomes that of c before it.
__device__ inline Four gradient_of_step(const REAL *gates, REAL old_c, REAL dh, REAL &dc) {
    const REAL f = gates[0], g = gates[1], i = gates[2], o = gates[3], squashed = tanh(f * old_c + g * i);
    const REAL through_c = dc + dh * o * (1 - squashed * squashed);
    dc = through_c * f;
    return {through_c * old_c * f * (1 - f), through_c * i * (1 - g * g), through_c * g * i * (1 - i),
            dh * squashed * o * (1 - o)};
}

// -- blocks that wait for each other

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 700

// What the thread wrote, and others before a barrier of the block, is there for whoever sees the count by `look`.
__device__ inline void add_one(unsigned *count) {
    asm volatile("red.release.gpu.add.u32 [%0], 1;" ::"l"(count) : "memory");
}

// Unlike a fence behind a plain load, it does not wait for what the thread has written meanwhile.
__device__ inline unsigned look(unsigned *count) {
    unsigned found;
    asm volatile("ld.acquire.gpu.u32 %0, [%1];" : "=r"(found) : "l"(count) : "memory");
    return found;
}

__device__ inline void rest() { __nanosleep(20); }

#else

__device__ inline void add_one(unsigned *count) {
    __threadfence();
    atomicAdd(count, 1u);
}

__device__ inline unsigned look(unsigned *count) {
    const unsigned found = *(volatile unsigned *)count;
    __threadfence();
    return found;
}

__device__ inline void rest() {
#ifndef __CUDA_ARCH__
    __nanosleep(20);
#endif
}

#endif

// The block's writes are there for whoever waits for the count.
__device__ inline void arrive(unsigned *count) {
    __syncthreads();
    if (threadIdx.x == 0) add_one(count);
}

// Ten seconds or so: a fault must end as an error, not hold the device for ever.
const long long PATIENCE = 1ll << 34;

__device__ inline void wait_for(unsigned *count, unsigned wanted) {
    if (threadIdx.x == 0) {
        const long long begin = clock64();
        while (look(count) < wanted) {
            if (clock64() - begin > PATIENCE) __trap();
            rest();
        }
    }
    __syncthreads();
}

// After the last wait: the last block leaves the count as it was found, 0.
__device__ inline void leave(unsigned *count, unsigned all) {
    if (threadIdx.x == 0 && atomicAdd(count, 1u) == all - 1) *(volatile unsigned *)count = 0;
}

// -- products in registers

// sums += left x right over [from, to): COUNT rows of `left`, `apart` of them from one to the next, 4 columns of `right`.
template <int COUNT, int APART>
__device__ inline void multiply(Four (&sums)[COUNT], const REAL *left, int left_lead, const REAL *right,
                                int right_lead, int from, int to) {
    for (int k = from; k < to; k += 4) {
        Four a[COUNT];
#pragma unroll
        for (int i = 0; i < COUNT; i++) a[i] = *(const Four *)(left + i * APART * left_lead + k);
#pragma unroll
        for (int l = 0; l < 4; l++) {
            const Four b = *(const Four *)(right + (k + l) * right_lead);
#pragma unroll
            for (int i = 0; i < COUNT; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) sums[i].x[j] += a[i].x[l] * b.x[j];
        }
    }
}

// Rows (H) of states, `apart` numbers from one to the next, into (ROWS, lead) with 0 up to `depth` numbers of a row and
// for rows that are not there. They come from other blocks: past the cache of the multiprocessor.
__device__ inline void load_states(REAL *to, int lead, int depth, const REAL *from, long long apart, int rows, int H) {
    const int PIECE = 16 / sizeof(REAL), EACH = ROWS / 8, AT_ONCE = 2;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (from && apart % PIECE) {
        for (int row = warp; row < ROWS; row += 8)
            for (int k = lane; k < depth; k += 32)
                to[row * lead + k] = from && row < rows && k < H ? __ldcg(from + row * apart + k) : REAL(0);
        return;
    }
    for (int k = lane * PIECE; k < depth; k += AT_ONCE * 32 * PIECE) {
        float4 found[AT_ONCE][EACH];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++)
#pragma unroll
            for (int j = 0; j < EACH; j++) {
                const int row = warp + 8 * j, at = k + i * 32 * PIECE;
                found[i][j] = from && row < rows && at < H ? __ldcg((const float4 *)(from + row * apart + at))
                                                           : float4{0, 0, 0, 0};
            }
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++)
#pragma unroll
            for (int j = 0; j < EACH; j++) {
                const int at = k + i * 32 * PIECE;
                REAL *piece = to + (warp + 8 * j) * lead + at;
                if (at < depth) *(float4 *)piece = found[i][j];
                if (at < H)
                    for (int l = H - at; l < PIECE; l++) piece[l] = 0;  // what stands behind the state in a row
            }
    }
}

// -- all steps

// A grid of (units / 8, groups of entries). first_h, first_c (N, H) may be null for zeros, `mask` (N, T) for none.
// Shared: (depth, 8, 4) weights, (ROWS, depth + 4) states, (PARTS, ROWS, 8, 4) sums, with depth H up to a multiple of 16.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    lstm_steps(REAL *gates, const REAL *Wh, const REAL *b, const REAL *first_h, const REAL *first_c,
               const unsigned char *mask, const REAL *x, REAL *hs, REAL *rows, REAL *c, REAL *last_h, REAL *last_c,
               unsigned *counts, int N, int T, int H, int D, int width, int group_entries) {
    extern __shared__ __align__(16) unsigned char shared[];
    const int part_depth = (H + 4 * PARTS - 1) / (4 * PARTS) * 4, depth = PARTS * part_depth, lead = depth + 4;
    REAL *weights = (REAL *)shared, *before = weights + depth * COLUMNS, *parts = before + ROWS * lead;
    const int first = blockIdx.y * group_entries, end = first + group_entries < N ? first + group_entries : N;
    unsigned *count = counts + blockIdx.y;
    const Kept kept = {gates, hs, rows, c, last_h, last_c, T, H, width};

    const int own_row = threadIdx.x / UNITS, own_unit = threadIdx.x % UNITS, unit = blockIdx.x * UNITS + own_unit;
    const int row = threadIdx.x / UNITS % 8, part = threadIdx.x / (8 * UNITS);  // of the thread in the product
    for (int at = threadIdx.x; at < depth * COLUMNS; at += THREADS) {
        const int k = at / COLUMNS, gate = at / UNITS % 4;  // own_unit is at % UNITS
        weights[k * COLUMNS + own_unit * 4 + gate] =
            k < H && unit < H ? Wh[(long long)k * 4 * H + gate * H + unit] : REAL(0);
    }
    for (long long at = (long long)first * T + blockIdx.x; at < (long long)end * T; at += gridDim.x)
        finish_row(rows + at * width + H, x + at * D, D, width - H, threadIdx.x, THREADS);
    REAL bias[4];
#pragma unroll
    for (int gate = 0; gate < 4; gate++) bias[gate] = unit < H ? b[gate * H + unit] : REAL(0);

    for (int t = 0; t < T; t++) {
        for (int tile = first; tile < end; tile += ROWS) {
            const int n = tile + own_row;
            const long long step = (long long)n * T + t;
            const bool own = own_row < ROWS && n < end && unit < H;
            REAL a[4], old_c = 0;
            bool live = true;
            if (own) {
#pragma unroll
                for (int gate = 0; gate < 4; gate++) a[gate] = gates[step * 4 * H + gate * H + unit] + bias[gate];
                old_c = t ? last_c[(long long)n * H + unit] : first_c ? first_c[(long long)n * H + unit] : REAL(0);
                live = !mask || mask[step];
            }
            if (t && tile == first)
                wait_for(count, t * gridDim.x);
            else
                __syncthreads();
            if (t)
                load_states(before, lead, depth, rows + ((long long)tile * T + t) * width, (long long)T * width,
                            end - tile, H);
            else
                load_states(before, lead, depth, first_h ? first_h + (long long)tile * H : first_h, H, end - tile, H);
            __syncthreads();
            Four sums[ROWS / 8] = {};
            multiply<ROWS / 8, 8>(sums, before + row * lead, lead, weights + own_unit * 4, COLUMNS, part * part_depth,
                                  (part + 1) * part_depth);
#pragma unroll
            for (int i = 0; i < ROWS / 8; i++)
                *(Four *)(parts + ((part * ROWS + row + 8 * i) * UNITS + own_unit) * 4) = sums[i];
            __syncthreads();
            Cell cell;
            REAL old_h;
            if (own) {
#pragma unroll
                for (int i = 0; i < PARTS; i++) {
                    const Four sum = *(const Four *)(parts + (i * ROWS * UNITS + threadIdx.x) * 4);
#pragma unroll
                    for (int gate = 0; gate < 4; gate++) a[gate] += sum.x[gate];
                }
                old_h = before[own_row * lead + unit], cell = step_of(a, live, old_h, old_c);
                hand_on(kept, cell.h, n, t, unit);
            }
            if (t + 1 < T && tile + ROWS >= end) arrive(count);  // others wait for the state alone
            if (own) keep(kept, cell, old_h, old_c, n, t, unit);
        }
    }
    if (T > 1) leave(count, T * gridDim.x);
}

// Gradients, over the same grid. dhs (N, T, H) has steps `dhs_n` and `dhs_t`; last_dh, last_dc (N, H) may be null for
// zeros. da (N, T, 4H) become the gradients of the gates' sums, dh and dc (N, H) those of the first states. A block has
// what all units of its entries receive through its own columns of Wh; `through` (2, groups, tiles, units / 8 of the
// reader, of the writer, ROWS, 8) hand it over, in turns.
// Shared: (32, depth) weights, (ROWS, 36) gradients, with depth H up to a multiple of 8.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    lstm_steps_backward(const REAL *gates, const REAL *Wh, const REAL *c, const REAL *dhs, const REAL *last_dh,
                        const REAL *last_dc, const unsigned char *mask, REAL *da, REAL *dh, REAL *dc, REAL *through,
                        unsigned *counts, int N, int T, int H, int group_entries, long long dhs_n, long long dhs_t) {
    extern __shared__ __align__(16) unsigned char shared[];
    const int AT_ONCE = 32;  // loads on their way: one wait for all blocks' sums up to H = 256
    const int slices = gridDim.x, depth = slices * UNITS, lead = COLUMNS + 4;
    REAL *weights = (REAL *)shared, *own_da = weights + depth * COLUMNS;
    const int first = blockIdx.y * group_entries, end = first + group_entries < N ? first + group_entries : N;
    const int tiles = (group_entries + ROWS - 1) / ROWS;
    const long long chunk = ROWS * UNITS, received = slices * chunk;  // from one block, of one reader
    unsigned *count = counts + blockIdx.y;

    const int own_row = threadIdx.x / UNITS, own_unit = threadIdx.x % UNITS, unit = blockIdx.x * UNITS + own_unit;
    for (int at = threadIdx.x; at < depth * COLUMNS; at += THREADS) {
        const int k = at / COLUMNS, gate = at / UNITS % 4;
        weights[(own_unit * 4 + gate) * depth + k] =
            k < H && unit < H ? Wh[(long long)k * 4 * H + gate * H + unit] : REAL(0);
    }
    for (int t = T - 1; t >= -1; t--) {
        const long long turn = ((t + 1) & 1) * gridDim.y + blockIdx.y, next = (t & 1) * gridDim.y + blockIdx.y;
        for (int tile = first; tile < end; tile += ROWS) {
            const int n = tile + own_row, number = (tile - first) / ROWS;
            const long long step = (long long)n * T + t, state = (long long)n * H + unit;
            const bool own = own_row < ROWS && n < end && unit < H;
            REAL gate[4], into_h = 0, into_c = 0, cell = 0, added = 0;
            bool live = true, carried = t == T - 1;
            if (own) {
                if (t >= 0) {
#pragma unroll
                    for (int i = 0; i < 4; i++) gate[i] = gates[step * 4 * H + i * H + unit];
                    cell = c[step * H + unit], added = dhs[n * dhs_n + t * dhs_t + unit];
                    live = !mask || mask[step];
                }
                if (carried) {
                    into_h = last_dh ? last_dh[state] : REAL(0), into_c = last_dc ? last_dc[state] : REAL(0);
                } else {
                    carried = mask && !mask[step + 1];
                    into_h = carried ? dh[state] : REAL(0), into_c = dc[state];
                }
            }
            if (t < T - 1 && tile == first)
                wait_for(count, (T - 1 - t) * slices);
            else
                __syncthreads();
            if (own && !carried) {
                const REAL *from = through + ((turn * tiles + number) * slices + blockIdx.x) * received + threadIdx.x;
                for (int i = 0; i < slices; i += AT_ONCE) {
                    REAL found[AT_ONCE];
#pragma unroll
                    for (int j = 0; j < AT_ONCE; j++)
                        found[j] = i + j < slices ? __ldcg(from + (i + j) * chunk) : REAL(0);
#pragma unroll
                    for (int j = 0; j < AT_ONCE; j++) into_h += found[j];
                }
            }
            if (t < 0) {
                if (own) dh[state] = into_h;
                continue;
            }
            if (own_row < ROWS) {
                Four d = {};
                if (own) {
                    into_h += added;
                    if (live) d = gradient_of_step(gate, cell, into_h, into_c);
                    dh[state] = into_h, dc[state] = into_c;
#pragma unroll
                    for (int j = 0; j < 4; j++) da[step * 4 * H + j * H + unit] = d.x[j];
                }
                *(Four *)(own_da + own_row * lead + own_unit * 4) = d;
            }
            __syncthreads();
            for (int at = threadIdx.x; at < depth; at += THREADS) {  // 4 units of ROWS / 4 entries each
                const int row = at / 2 % 4, k = (at / 8 * 2 + at % 2) * 4;
                Four sums[ROWS / 4] = {};
                multiply<ROWS / 4, 4>(sums, own_da + row * lead, lead, weights + k, depth, 0, COLUMNS);
                REAL *to = through + ((next * tiles + number) * slices + k / UNITS) * received + blockIdx.x * chunk;
#pragma unroll
                for (int i = 0; i < ROWS / 4; i++) hand_over(to + (row + 4 * i) * UNITS + k % UNITS, sums[i].x);
            }
        }
        if (t >= 0) arrive(count);
    }
    leave(count, (T + 1) * slices);
}

// -- one step, after the product with Wh: one thread for each number of a state

// last_h and last_c hold the state before the step, and then the one after it.
extern "C" __global__ void lstm_cell(REAL *gates, const REAL *from_h, const REAL *b, const unsigned char *mask,
                                     const REAL *x, REAL *hs, REAL *rows, REAL *c, REAL *last_h, REAL *last_c, int t,
                                     int N, int T, int H, int D, int width) {
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= N * H) return;
    const int n = at / H, unit = at % H;
    const long long step = (long long)n * T + t;
    REAL a[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        a[i] = gates[(step * 4 + i) * H + unit] + b[i * H + unit] + from_h[((long long)n * 4 + i) * H + unit];
    const Kept kept = {gates, hs, rows, c, last_h, last_c, T, H, width};
    const REAL old_h = last_h[at], old_c = last_c[at];
    const Cell cell = step_of(a, !mask || mask[step], old_h, old_c);
    hand_on(kept, cell.h, n, t, unit);
    keep(kept, cell, old_h, old_c, n, t, unit);
    finish_row(rows + step * width + H, x + step * D, D, width - H, unit, H);
}

// dh and dc (N, H) are the gradients of the state after the step, but for what comes `through` (N, H) the step behind it
// and for `dhs`; they become those of the state before it, but for what comes through this step: da_t (N, 4H) are the
// gradients that are multiplied for that. At t = -1 dh is only brought to its end.
extern "C" __global__ void lstm_cell_backward(const REAL *gates, const REAL *c, const REAL *dhs,
                                              const unsigned char *mask, const REAL *through, REAL *dh, REAL *dc,
                                              REAL *da, REAL *da_t, int t, int N, int T, int H, long long dhs_n,
                                              long long dhs_t) {
    const int at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= N * H) return;
    const int n = at / H, unit = at % H;
    const long long step = (long long)n * T + t;
    const bool carried = t == T - 1 || (mask && !mask[step + 1]);
    REAL into_h = carried ? dh[at] : through[at];
    if (t >= 0) {
        REAL gate[4], into_c = dc[at];
        Four d = {};
#pragma unroll
        for (int i = 0; i < 4; i++) gate[i] = gates[(step * 4 + i) * H + unit];
        into_h += dhs[n * dhs_n + t * dhs_t + unit];
        if (!mask || mask[step]) d = gradient_of_step(gate, c[step * H + unit], into_h, into_c);
        dc[at] = into_c;
#pragma unroll
        for (int i = 0; i < 4; i++)
            da[(step * 4 + i) * H + unit] = da_t[((long long)n * 4 + i) * H + unit] = d.x[i];
    }
    dh[at] = into_h;
}
