// Products of tiles on matrix units (compute capability 8.0 and newer), of float32 numbers: each is the sum of two numbers
// of TF32, whose products are exact, and the product of the two small parts is left out.
// A warp holds 16 rows; TEAMS warps share them, each with its own part of a tile's columns. With g = lane / 4 and
// t = lane % 4, a thread has rows g and g + 8, and columns 2t and 2t + 1 of each eight: what `multiply_add` gives is at once
// what it takes as its first operand, so that weights never leave the registers.

#define WARPS (DOWN / 16)
#define THREADS (32 * WARPS * TEAMS)
#define ROWS 2
#define SHARE (ACROSS / TEAMS)  // columns of a tile of scores that a warp has
#define COLUMNS (SHARE / 4)     // of a thread in a tile of scores
#define PLACES (WIDTH / 4)      // of a thread in a row of WIDTH
#define LANES 4                 // threads of a warp that share a row
#define SCRATCH 0

__device__ inline int lane() { return threadIdx.x % 32; }
__device__ inline int team() { return TEAMS == 1 ? 0 : threadIdx.x / 32 / WARPS; }
__device__ inline int row_of(int i) { return threadIdx.x / 32 % WARPS * 16 + lane() / 4 + i * 8; }
__device__ inline int place_of(int j) { return j / 2 * 8 + lane() % 4 * 2 + j % 2; }
__device__ inline int column_of(int j) { return team() * SHARE + place_of(j); }

// c (16, 8) += a (16, 8) times b (8, 8), all of it in a warp: a thread has c[g][2t], c[g][2t + 1], c[g + 8][2t],
// c[g + 8][2t + 1]; a[g][t], a[g + 8][t], a[g][t + 4], a[g + 8][t + 4]; b[t][g], b[t + 4][g]. Bits of a and b beyond TF32
// are left out. Off the device each thread looks at what the others hold, and sums are rounded toward 0, which is the
// worst that matrix units are known to do.
__device__ inline void multiply_add(REAL (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#ifdef __CUDA_ARCH__
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    static const unsigned *held[THREADS][2];
    held[threadIdx.x][0] = a, held[threadIdx.x][1] = b;
    __syncwarp();
    const auto warp = held + threadIdx.x / 32 * 32;
    for (int i = 0; i < 4; i++) {
        const int row = lane() / 4 + i / 2 * 8, column = lane() % 4 * 2 + i % 2;
        double sum = c[i];
        for (int k = 0; k < 8; k++) {
            const unsigned x = warp[row % 8 * 4 + k % 4][0][row / 8 + k / 4 * 2], y = warp[column * 4 + k % 4][1][k / 4];
            sum += (double)__uint_as_float(x & ~0x1fffu) * __uint_as_float(y & ~0x1fffu);
        }
        c[i] = (float)sum;
        if (fabs((double)c[i]) > fabs(sum)) c[i] = nextafterf(c[i], 0);
    }
    __syncwarp();
#endif
}

// A number as the nearest one of TF32 and the rest, which has a bit more than TF32.
__device__ inline void split(REAL x, unsigned &big, unsigned &small) {
    big = (__float_as_uint(x) + 0x1000) & ~0x1fffu;
    small = __float_as_uint(x - __uint_as_float(big));
}

// Sums of N tiles of 16 x 8, those of large and of small products apart: matrix units do not round to nearest.
template <int N> struct Sums {
    REAL large[N][4] = {}, small[N][4] = {};

    // Adds x (16, 8) times N tiles y (8, 8). With SWAPPED the small products come in the other order: then x y has the
    // bits of y x.
    template <bool SWAPPED> __device__ void add(const REAL (&x)[4], const REAL (&y)[N][2]) {
        unsigned a[4], a_rest[4], b[N][2], b_rest[N][2];
#pragma unroll
        for (int i = 0; i < 4; i++) split(x[i], a[i], a_rest[i]);
#pragma unroll
        for (int n = 0; n < N; n++) split(y[n][0], b[n][0], b_rest[n][0]), split(y[n][1], b[n][1], b_rest[n][1]);
#pragma unroll
        for (int n = 0; n < N; n++) SWAPPED ? multiply_add(small[n], a, b_rest[n]) : multiply_add(small[n], a_rest, b[n]);
#pragma unroll
        for (int n = 0; n < N; n++) multiply_add(large[n], a, b[n]);
#pragma unroll
        for (int n = 0; n < N; n++) SWAPPED ? multiply_add(small[n], a_rest, b[n]) : multiply_add(small[n], a, b_rest[n]);
    }
    __device__ REAL of(int n, int i) const { return large[n][i] + small[n][i]; }
};

// sums[i][j] = a[row_of(i)] . b[column_of(j)]. With SWAPPED it has the bits that it has with a and b exchanged. Of 32
// numbers of a row, a thread takes 8 that are neighbours: the order of the inner axis is free, and no two threads that
// read at a time meet in a bank.
template <bool SWAPPED> __device__ inline void dots(REAL (&sums)[ROWS][COLUMNS], const REAL *a, const REAL *b) {
    constexpr int N = COLUMNS / 2 < ABREAST ? COLUMNS / 2 : ABREAST;
    a += row_of(0) * PITCH + lane() % 4 * 8, b += (team() * SHARE + lane() / 4) * PITCH + lane() % 4 * 8;
#pragma unroll
    for (int j = 0; j < COLUMNS / 2; j += N) {
        Sums<N> tiles;
#pragma unroll 1
        for (int d = 0; d < WIDTH; d += 32)
#pragma unroll
            for (int half = 0; half < 8; half += 4) {
                const Four x0 = *(const Four *)(a + d + half), x1 = *(const Four *)(a + 8 * PITCH + d + half);
                REAL y[2][N][2];
#pragma unroll
                for (int n = 0; n < N; n++) {
                    const Four four = *(const Four *)(b + (j + n) * 8 * PITCH + d + half);
                    y[0][n][0] = four.x, y[0][n][1] = four.y, y[1][n][0] = four.z, y[1][n][1] = four.w;
                }
                tiles.template add<SWAPPED>({x0.x, x1.x, x0.y, x1.y}, y[0]);
                tiles.template add<SWAPPED>({x0.z, x1.z, x0.w, x1.w}, y[1]);
            }
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) sums[i / 2][(j + n) * 2 + i % 2] = tiles.of(n, i);
    }
}

// sums[i] += weights[row_of(i)], of this team's columns, times the rows of x that belong to them. Of eight such rows a
// thread takes 2t and 2t + 1, as it holds the weights.
__device__ inline void combine(REAL (&sums)[ROWS][PLACES], const REAL (&weights)[ROWS][COLUMNS], const REAL *x, REAL *) {
    constexpr int N = ABREAST;
    x += (team() * SHARE + lane() % 4 * 2) * PITCH + lane() / 4;
#pragma unroll
    for (int j = 0; j < PLACES / 2; j += N) {
        Sums<N> tiles;
#pragma unroll
        for (int k = 0; k < COLUMNS; k += 2) {
            REAL y[N][2];
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int m = 0; m < 2; m++) y[n][m] = x[(k * 4 + m) * PITCH + (j + n) * 8];
            tiles.template add<false>({weights[0][k], weights[1][k], weights[0][k + 1], weights[1][k + 1]}, y);
        }
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) sums[i / 2][(j + n) * 2 + i % 2] += tiles.of(n, i);
    }
}
