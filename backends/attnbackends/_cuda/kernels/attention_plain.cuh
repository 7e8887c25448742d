// Products of tiles without matrix units, by 128 threads, 16 of them for a row. A thread has rows and columns that lie far
// apart, so that eight lanes read eight rows, which meet in no bank; weights go through SCRATCH numbers of shared memory.

#define THREADS 128
#define LANES 16                   // threads that share a row
#define STEP (THREADS / LANES)     // rows of all threads
#define ROWS (DOWN / STEP)         // of a thread
#define COLUMNS (ACROSS / LANES)   // of a thread in a tile of scores
#define PLACES (WIDTH / LANES)     // of a thread in a row of WIDTH
#define SCORES_PITCH (ACROSS + 4)
#define SCRATCH (DOWN * SCORES_PITCH)

__device__ inline int team() { return 0; }
__device__ inline int row_of(int i) { return threadIdx.x / LANES + i * STEP; }
__device__ inline int column_of(int j) { return threadIdx.x % LANES + j * LANES; }
__device__ inline int place_of(int j) { return j / 4 * 64 + threadIdx.x % LANES * 4 + j % 4; }

// sums[i][j] = a[row_of(i)] . b[column_of(j)]; exchanging a and b changes no bit.
template <bool SWAPPED> __device__ inline void dots(REAL (&sums)[ROWS][COLUMNS], const REAL *a, const REAL *b) {
    a += row_of(0) * PITCH, b += column_of(0) * PITCH;
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

// sums[i] += weights[row_of(i)] times the rows of x. The 16 threads of a row are in one warp.
__device__ inline void combine(REAL (&sums)[ROWS][PLACES], const REAL (&weights)[ROWS][COLUMNS], const REAL *x,
                               REAL *scratch) {
    __syncwarp();
#pragma unroll
    for (int i = 0; i < ROWS; i++)
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) scratch[row_of(i) * SCORES_PITCH + column_of(j)] = weights[i][j];
    __syncwarp();
    scratch += row_of(0) * SCORES_PITCH, x += threadIdx.x % LANES * 4;
#pragma unroll 1
    for (int n = 0; n < ACROSS; n += 4)
#pragma unroll
        for (int j = 0; j < PLACES; j += 4) {
            Four y[4];
#pragma unroll
            for (int m = 0; m < 4; m++) y[m] = *(const Four *)(x + (n + m) * PITCH + j * LANES);
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
                const Four w = *(const Four *)(scratch + i * STEP * SCORES_PITCH + n);
                Four sum = {sums[i][j], sums[i][j + 1], sums[i][j + 2], sums[i][j + 3]};
                add_scaled(sum, w.x, y[0]), add_scaled(sum, w.y, y[1]);
                add_scaled(sum, w.z, y[2]), add_scaled(sum, w.w, y[3]);
                sums[i][j] = sum.x, sums[i][j + 1] = sum.y, sums[i][j + 2] = sum.z, sums[i][j + 3] = sum.w;
            }
        }
}
