// What the kernels of attention in tiles share. A block holds DOWN rows of one side of the scores of an entry (queries, or
// keys for their gradients) and meets the other side tile by tile, ACROSS of its rows at a time. Scores live in registers.
// `tiles.py` chooses these and WIDTH, which rows are padded to, and whether MATRIX_UNITS multiply: the two headers for that
// say which rows and columns of a tile a thread has, and how tiles are multiplied.

#include "attention.cuh"

#ifndef WIDTH
#define WIDTH 64
#define DOWN 64
#define ACROSS 64
#define TEAMS 1
#define BLOCKS 2
#define ABREAST 4
#define MATRIX_UNITS 1
#endif
#define MOST (DOWN > ACROSS ? DOWN : ACROSS)
#define PITCH (WIDTH + 4)  // of rows in shared memory: threads that read at a time meet in no bank

#if MATRIX_UNITS
#include "attention_matrix.cuh"
#else
#include "attention_plain.cuh"
#endif

typedef REAL Scores[ROWS][COLUMNS], Rows[ROWS][PLACES];

extern __shared__ unsigned char shared[];

// Where a product of query and key becomes a score, and a score a weight.
__device__ inline REAL score_of(REAL product, REAL scale) { return scale * product; }
__device__ inline REAL weight_of(REAL score, REAL shift) {
    const REAL power = (score - shift) * (REAL)1.4426950408889634;  // the difference first: scores may be large
#ifdef __CUDA_ARCH__
    REAL weight;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(weight) : "f"(power));
    return weight;
#else
    return exp2(power);
#endif
}

// A number that the compiler takes for a new one: what follows from it is reckoned where it is used, and not before the
// products, which need the registers.
__device__ inline int again(int x) {
#ifdef __CUDA_ARCH__
    asm volatile("" : "+r"(x));
#endif
    return x;
}

__device__ inline void multiply(REAL (&row)[PLACES], REAL factor) {
#pragma unroll
    for (int j = 0; j < PLACES; j++) row[j] *= factor;
}

// Adds up what the teams have; the first one has all of it then. A whole block calls this; `room` holds DOWN rows.
__device__ inline void gather(Rows &sums, REAL *room) {
#pragma unroll 1
    for (int other = 1; other < TEAMS; other++) {
        __syncthreads();
#pragma unroll
        for (int i = 0; i < ROWS; i++)
#pragma unroll
            for (int j = 0; j < PLACES; j++)
                if (team() == other) room[row_of(i) * PITCH + place_of(j)] = sums[i][j];
        __syncthreads();
#pragma unroll
        for (int i = 0; i < ROWS; i++)
#pragma unroll
            for (int j = 0; j < PLACES; j++)
                if (team() == 0) sums[i][j] += room[row_of(i) * PITCH + place_of(j)];
    }
}

// The first `count` rows of the sums to rows `width` apart.
__device__ inline void write(REAL *to, int width, int count, const Rows &sums) {
    const int left = width - place_of(0);
    if (team()) return;
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        REAL *const row = to + (long long)row_of(i) * width + place_of(0);
        if (row_of(i) < count)
#pragma unroll
            for (int j = 0; j < PLACES; j++)
                if (place_of(j) - place_of(0) < left) row[place_of(j) - place_of(0)] = sums[i][j];
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

// A block begins to copy FULL rows of WIDTH into shared memory, with zeros beyond `width` and `count`, and for rows that
// `keep` leaves out (null: none). `commit` ends a group of copies, `await` waits for all groups but the latest ones, for
// what this thread copied: a barrier must follow.
template <int FULL>
__device__ inline void stage_tile(REAL *to, const REAL *from, long long gap, int width, int count,
                                  const unsigned char *keep) {
    const bool fours = in_fours(from, gap, width);
#if MATRIX_UNITS && defined(__CUDA_ARCH__)
    if (fours) {
#pragma unroll 4
        for (int at = threadIdx.x; at < FULL * (WIDTH / 4); at += THREADS) {
            const int r = at / (WIDTH / 4), d = at % (WIDTH / 4) * 4;
            const bool there = r < count && d < width && (!keep || keep[r]);
            const REAL *const source = there ? from + r * gap + d : from;
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                             (unsigned)__cvta_generic_to_shared(to + r * PITCH + d)),
                         "l"(source), "r"(there ? 16 : 0)
                         : "memory");
        }
        return;
    }
#endif
    constexpr int AT_ONCE = MATRIX_UNITS ? 1 : 4;
#pragma unroll AT_ONCE
    for (int at = threadIdx.x; at < FULL * (WIDTH / 4); at += THREADS) {
        const int r = at / (WIDTH / 4), d = at % (WIDTH / 4) * 4;
        const bool there = r < count && d < width && (!keep || keep[r]);
        *(Four *)(to + r * PITCH + d) = there ? load(from + r * gap, d, width, fours) : Four{0, 0, 0, 0};
    }
}

__device__ inline void commit() {
#if MATRIX_UNITS && defined(__CUDA_ARCH__)
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

template <int LATEST> __device__ inline void await() {
#if MATRIX_UNITS && defined(__CUDA_ARCH__)
    asm volatile("cp.async.wait_group %0;" ::"n"(LATEST) : "memory");
#endif
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
    int first[MOST], last[MOST];
    unsigned char rows[MOST], keys[MOST];
#if DROPOUT
    unsigned char kept[DOWN * ACROSS / 8];  // a bit for each weight of a tile, eight keys of a row in a byte
#endif

    __device__ void set(const Visibility &visible, int row0, int R, int rows) {
        for (int r = threadIdx.x; r < rows; r += THREADS) {
            first[r] = row0 + r < R ? visible.first(row0 + r) : 1;
            last[r] = row0 + r < R ? visible.last(row0 + r) : 0;
        }
    }
    __device__ bool sees(const Visibility &visible, int row0, int r, int key) const {
        return key >= first[r] && key <= last[r] && !visible.masked(row0 + r, key);
    }
    // One bit for each of a thread's scores that is hidden, where the tile's rows are queries, or keys.
    template <bool OF_KEYS> __device__ unsigned hidden(const Visibility &visible, int row0, int key0) const {
        static_assert(ROWS * COLUMNS <= 32, "one bit for each");
        unsigned bits = 0;
#pragma unroll 1
        for (int n = 0; n < ROWS * COLUMNS; n++) {
            const int row = row_of(n / COLUMNS), column = column_of(n % COLUMNS);
            const bool seen = sees(visible, row0, OF_KEYS ? column : row, key0 + (OF_KEYS ? row : column));
            bits |= (unsigned)!seen << n;
        }
        return bits;
    }
    // Which keys of a tile some of DOWN rows see; a whole block calls this after `set` and a barrier.
    __device__ void look(const Visibility &visible, int row0, int key0) {
        for (int j = threadIdx.x; j < ACROSS; j += THREADS) keys[j] = 0;
        __syncthreads();
        for (int at = threadIdx.x; at < DOWN * ACROSS; at += THREADS)
            if (sees(visible, row0, at / ACROSS, key0 + at % ACROSS)) keys[at % ACROSS] = 1;
        __syncthreads();
    }
#if SINKS
    // Which rows of a tile see some of DOWN keys: a sink gives weight to rows that see none. Otherwise as `look`.
    __device__ void look_at_rows(const Visibility &visible, int row0, int key0) {
        for (int r = threadIdx.x; r < ACROSS; r += THREADS) rows[r] = 0;
        __syncthreads();
        for (int at = threadIdx.x; at < DOWN * ACROSS; at += THREADS)
            if (sees(visible, row0, at / DOWN, key0 + at % DOWN)) rows[at / DOWN] = 1;
        __syncthreads();
    }
#endif
#if DROPOUT
    // Draws which weights of a tile stay, each byte once; a whole block calls this, and a barrier must follow.
    template <bool OF_KEYS> __device__ void draw(const Further &further, int row0, int key0) {
        constexpr int EIGHTS = (OF_KEYS ? DOWN : ACROSS) / 8;
#pragma unroll 1
        for (int at = threadIdx.x; at < DOWN * ACROSS / 8; at += THREADS)
            kept[at] = further.kept(row0 + at / EIGHTS, key0 + at % EIGHTS * 8);
    }
    // One bit for each of a thread's weights that is dropped, as `hidden` has them.
    template <bool OF_KEYS> __device__ unsigned dropped() const {
        constexpr int EIGHTS = (OF_KEYS ? DOWN : ACROSS) / 8;
        unsigned bits = 0;
#pragma unroll
        for (int n = 0; n < ROWS * COLUMNS; n++) {
            const int down = row_of(n / COLUMNS), across = column_of(n % COLUMNS);
            const int r = OF_KEYS ? across : down, key = OF_KEYS ? down : across;
            bits |= (~kept[r * EIGHTS + key / 8] >> key % 8 & 1u) << n;
        }
        return bits;
    }
#endif
};
