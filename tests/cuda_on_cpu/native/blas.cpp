// cuBLAS, as much of it as the project meets: products of matrices in columns, in float64, or summed in float32 for
// operands of float32, float16 and bfloat16. What NVIDIA's manual does not list as supported is refused, as are operands
// that do not lie in memory of the current device. `build.py` adds a function that aborts for every other name.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

// Of the bench's own library.
extern "C" int cuda_on_cpu_idle(), cuda_on_cpu_major(), cuda_on_cpu_device();
extern "C" int cuda_on_cpu_product(const char *name, int m, int n, int k, int count, void *stream);
extern "C" int cuda_on_cpu_within(const void *address, size_t size, const char *what);

enum Status { SUCCESS = 0, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
enum Type { R_32F = 0, R_64F = 1, R_16F = 2, R_16BF = 14 };
enum Compute { C_32F = 68, C_32F_PEDANTIC = 69, C_64F = 70, C_64F_PEDANTIC = 71, C_32F_FAST_TF32 = 77 };
enum Mode { TF32_TENSOR_OP = 3 };

struct Handle {
    int device, mode = 0, pointer_mode = 0;
    void *stream = nullptr;
};

// -- numbers

static uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}
static float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

struct BFloat16 {
    uint16_t bits;
    BFloat16(float x) : bits(std::isnan(x) ? 0x7fff : (bits_of(x) + 0x7fff + (bits_of(x) >> 16 & 1)) >> 16) {}
    operator float() const { return float_of((uint32_t)bits << 16); }
};

// TF32 keeps 10 of the 23 bits of a float's fraction.
static float rounded_to_tf32(float x) { return std::isfinite(x) ? float_of((bits_of(x) + 0x1000) & ~0x1fffu) : x; }

static size_t size_of(int type) { return type == R_64F ? 8 : type == R_32F ? 4 : 2; }

// -- one product

struct Matrix {
    const char *at;
    int type;
    bool turned;  // as it lies; `rows` and `columns` are those of what lies there
    int rows, columns, leading;
    size_t span() const { return rows && columns ? ((size_t)(columns - 1) * leading + rows) * size_of(type) : 0; }
};

template <class Sum, class T>
static void gather(std::vector<Sum> &to, const Matrix &from, bool tf32) {
    const T *const at = (const T *)from.at;
    const int rows = from.turned ? from.columns : from.rows, columns = from.turned ? from.rows : from.columns;
    to.resize((size_t)rows * columns);
    for (int c = 0; c < columns; c++)
        for (int r = 0; r < rows; r++) {
            const Sum value = (Sum)at[from.turned ? (size_t)r * from.leading + c : (size_t)c * from.leading + r];
            to[(size_t)c * rows + r] = tf32 ? (Sum)rounded_to_tf32((float)value) : value;
        }
}
template <class Sum>
static void gather(std::vector<Sum> &to, const Matrix &from, bool tf32) {
    switch (from.type) {
        case R_32F: return gather<Sum, float>(to, from, tf32);
        case R_64F: return gather<Sum, double>(to, from, tf32);
        case R_16F: return gather<Sum, _Float16>(to, from, tf32);
        case R_16BF: return gather<Sum, BFloat16>(to, from, tf32);
    }
}

// A column of the result; `beta` 0 does not read what is there, which may be NaN.
template <class Sum, class T>
static void scatter(char *to, const Sum *sums, int rows, Sum alpha, Sum beta) {
    T *const at = (T *)to;
    for (int r = 0; r < rows; r++) at[r] = (T)(beta == 0 ? alpha * sums[r] : alpha * sums[r] + beta * (Sum)at[r]);
}
template <class Sum>
static void scatter(char *to, int type, const Sum *sums, int rows, Sum alpha, Sum beta) {
    switch (type) {
        case R_32F: return scatter<Sum, float>(to, sums, rows, alpha, beta);
        case R_64F: return scatter<Sum, double>(to, sums, rows, alpha, beta);
        case R_16F: return scatter<Sum, _Float16>(to, sums, rows, alpha, beta);
        case R_16BF: return scatter<Sum, BFloat16>(to, sums, rows, alpha, beta);
    }
}

static const int PART = 64;  // terms of a sum that are added up before they join the whole, as in a kernel with tiles

template <class Sum>
static void multiply(const Matrix &a, const Matrix &b, const Matrix &c, int k, Sum alpha, Sum beta, bool tf32) {
    std::vector<Sum> left, right, whole(c.rows), part(c.rows);
    gather(left, a, tf32), gather(right, b, tf32);
    for (int j = 0; j < c.columns; j++) {
        std::fill(whole.begin(), whole.end(), Sum(0));
        for (int from = 0; from < k; from += PART) {
            std::fill(part.begin(), part.end(), Sum(0));
            for (int l = from; l < k && l < from + PART; l++) {
                const Sum factor = right[(size_t)j * k + l];
                const Sum *const column = &left[(size_t)l * c.rows];
                for (int i = 0; i < c.rows; i++) part[i] += column[i] * factor;
            }
            for (int i = 0; i < c.rows; i++) whole[i] += part[i];
        }
        scatter((char *)c.at + (size_t)j * c.leading * size_of(c.type), c.type, whole.data(), c.rows, alpha, beta);
    }
}

// -- what every product goes through

struct Call {
    Handle *handle;
    const char *name;
    int turn_a, turn_b, m, n, k;
    const void *alpha, *beta;
    int type_a, type_b, type_c, leading_a, leading_b, leading_c, compute, count;

    Matrix a(const void *at) const {
        return {(const char *)at, type_a, turn_a != 0, turn_a ? k : m, turn_a ? m : k, leading_a};
    }
    Matrix b(const void *at) const {
        return {(const char *)at, type_b, turn_b != 0, turn_b ? n : k, turn_b ? k : n, leading_b};
    }
    Matrix c(const void *at) const { return {(const char *)at, type_c, false, m, n, leading_c}; }
};

static int refuse(Status status, const Call &call, const char *why) {
    fprintf(stderr, "cuda_on_cpu: %s: %s (m %d, n %d, k %d, transposed %d %d, leading %d %d %d, types %d %d %d, compute %d)\n",
            call.name, why, call.m, call.n, call.k, call.turn_a, call.turn_b, call.leading_a, call.leading_b,
            call.leading_c, call.type_a, call.type_b, call.type_c, call.compute);
    return status;
}

// The table of `cublasGemmEx` in the manual, for the types that are there.
static bool supported(const Call &call) {
    const int in = call.type_a, out = call.type_c;
    if (in != call.type_b) return false;
    if (call.compute == C_64F || call.compute == C_64F_PEDANTIC) return in == R_64F && out == R_64F;
    if (call.compute == C_32F_FAST_TF32) return in == R_32F && out == R_32F;
    if (call.compute != C_32F && call.compute != C_32F_PEDANTIC) return false;
    if (in == R_16BF && cuda_on_cpu_major() < 8) return false;
    return (in == R_32F && out == R_32F) || ((in == R_16F || in == R_16BF) && (out == in || out == R_32F));
}

static int check(const Call &call) {
    const int at_least_a = call.turn_a ? call.k : call.m, at_least_b = call.turn_b ? call.n : call.k;
    if (call.m < 0 || call.n < 0 || call.k < 0 || call.count < 0 || call.turn_a < 0 || call.turn_a > 2 || call.turn_b < 0 || call.turn_b > 2)
        return refuse(INVALID_VALUE, call, "a size or an operation is out of range");
    if (call.leading_a < at_least_a || call.leading_b < at_least_b || call.leading_c < call.m || call.leading_a < 1 ||
        call.leading_b < 1 || call.leading_c < 1)
        return refuse(INVALID_VALUE, call, "a leading dimension is less than the rows of its matrix");
    if (!supported(call)) return refuse(NOT_SUPPORTED, call, "these types are not supported together");
    if (call.handle->device != cuda_on_cpu_device()) return refuse(EXECUTION_FAILED, call, "the handle is of another device");
    return cuda_on_cpu_product(call.name, call.m, call.n, call.k, call.count, call.handle->stream) ? EXECUTION_FAILED : SUCCESS;
}

static int one(const Call &call, const void *a, const void *b, const void *c) {
    const Matrix left = call.a(a), right = call.b(b), result = call.c(c);
    for (const Matrix &matrix : {left, right, result})
        if (!cuda_on_cpu_within(matrix.at, matrix.span(), call.name)) return EXECUTION_FAILED;
    if (cuda_on_cpu_idle()) return SUCCESS;
    const bool tf32 = call.compute == C_32F_FAST_TF32;
    if (call.type_a == R_64F)
        multiply<double>(left, right, result, call.k, *(const double *)call.alpha, *(const double *)call.beta, false);
    else
        multiply<float>(left, right, result, call.k, *(const float *)call.alpha, *(const float *)call.beta, tf32);
    return SUCCESS;
}

static int strided(const Call &call, const void *a, long long step_a, const void *b, long long step_b, void *c, long long step_c) {
    int status = check(call);
    for (int i = 0; i < call.count && !status; i++)
        status = one(call, (const char *)a + i * step_a * (long long)size_of(call.type_a),
                     (const char *)b + i * step_b * (long long)size_of(call.type_b),
                     (const char *)c + i * step_c * (long long)size_of(call.type_c));
    return status;
}

// -- the names

EXPORT int cublasGemmStridedBatchedEx(Handle *h, int ta, int tb, int m, int n, int k, const void *alpha, const void *a,
                                      int type_a, int lda, long long sa, const void *b, int type_b, int ldb, long long sb,
                                      const void *beta, void *c, int type_c, int ldc, long long sc, int count, int compute, int) {
    return strided({h, __func__, ta, tb, m, n, k, alpha, beta, type_a, type_b, type_c, lda, ldb, ldc, compute, count}, a, sa, b, sb, c, sc);
}
EXPORT int cublasGemmEx(Handle *h, int ta, int tb, int m, int n, int k, const void *alpha, const void *a, int type_a, int lda,
                        const void *b, int type_b, int ldb, const void *beta, void *c, int type_c, int ldc, int compute, int) {
    return strided({h, __func__, ta, tb, m, n, k, alpha, beta, type_a, type_b, type_c, lda, ldb, ldc, compute, 1}, a, 0, b, 0, c, 0);
}
EXPORT int cublasSgemmEx(Handle *h, int ta, int tb, int m, int n, int k, const float *alpha, const void *a, int type_a, int lda,
                         const void *b, int type_b, int ldb, const float *beta, void *c, int type_c, int ldc) {
    return strided({h, __func__, ta, tb, m, n, k, alpha, beta, type_a, type_b, type_c, lda, ldb, ldc, C_32F, 1}, a, 0, b, 0, c, 0);
}

#define PRODUCTS(letter, T, type, compute_type)                                                                        \
    EXPORT int cublas##letter##gemm_v2(Handle *h, int ta, int tb, int m, int n, int k, const T *alpha, const T *a,     \
                                       int lda, const T *b, int ldb, const T *beta, T *c, int ldc) {                   \
        return strided({h, __func__, ta, tb, m, n, k, alpha, beta, type, type, type, lda, ldb, ldc, compute_type, 1},  \
                       a, 0, b, 0, c, 0);                                                                              \
    }                                                                                                                  \
    EXPORT int cublas##letter##gemmStridedBatched(Handle *h, int ta, int tb, int m, int n, int k, const T *alpha,      \
                                                  const T *a, int lda, long long sa, const T *b, int ldb,              \
                                                  long long sb, const T *beta, T *c, int ldc, long long sc, int count) { \
        return strided({h, __func__, ta, tb, m, n, k, alpha, beta, type, type, type, lda, ldb, ldc, compute_type, count}, \
                       a, sa, b, sb, c, sc);                                                                           \
    }                                                                                                                  \
    EXPORT int cublas##letter##gemmBatched(Handle *h, int ta, int tb, int m, int n, int k, const T *alpha,             \
                                           const T *const *a, int lda, const T *const *b, int ldb, const T *beta,      \
                                           T *const *c, int ldc, int count) {                                          \
        const Call call = {h, __func__, ta, tb, m, n, k, alpha, beta, type, type, type, lda, ldb, ldc, compute_type, count}; \
        int status = check(call);                                                                                      \
        for (int i = 0; i < count && !status && !cuda_on_cpu_idle(); i++) status = one(call, a[i], b[i], c[i]);        \
        return status;                                                                                                 \
    }                                                                                                                  \
    /* A matrix with a vector, whose elements are `step` apart, as a matrix of one row: step 1 wherever it is met. */  \
    EXPORT int cublas##letter##gemv_v2(Handle *h, int turn, int m, int n, const T *alpha, const T *a, int lda,         \
                                       const T *x, int step_x, const T *beta, T *y, int step_y) {                      \
        const int rows = turn ? n : m, k = turn ? m : n;                                                               \
        if (step_x < 1 || step_y < 1) return INVALID_VALUE;                                                            \
        return strided({h, __func__, 0, !turn, 1, rows, k, alpha, beta, type, type, type, step_x, lda, step_y,         \
                        compute_type, 1}, x, 0, a, 0, y, 0);                                                           \
    }                                                                                                                  \
    EXPORT int cublas##letter##dot_v2(Handle *h, int n, const T *x, int step_x, const T *y, int step_y, T *result) {   \
        if (step_x < 1 || step_y < 1) return INVALID_VALUE;                                                            \
        const T zero = 0, one_ = 1;                                                                                    \
        T sum = 0;                                                                                                     \
        const Call call = {h, __func__, 0, 1, 1, 1, n, &one_, &zero, type, type, type, step_x, step_y, 1, compute_type, 1}; \
        if (const int status = check(call)) return status;                                                             \
        const size_t span_x = n ? ((size_t)(n - 1) * step_x + 1) * sizeof(T) : 0, span_y = n ? ((size_t)(n - 1) * step_y + 1) * sizeof(T) : 0; \
        if (!cuda_on_cpu_within(x, span_x, call.name) || !cuda_on_cpu_within(y, span_y, call.name)) return EXECUTION_FAILED; \
        if (cuda_on_cpu_idle()) return SUCCESS;                                                                        \
        T part = 0;                                                                                                    \
        for (int i = 0; i < n; i++) {                                                                                  \
            part += x[(size_t)i * step_x] * y[(size_t)i * step_y];                                                     \
            if (i % PART == PART - 1 || i == n - 1) sum += part, part = 0;                                             \
        }                                                                                                              \
        *result = sum;                                                                                                 \
        return SUCCESS;                                                                                                \
    }
PRODUCTS(S, float, R_32F, (h->mode & 15) == TF32_TENSOR_OP ? C_32F_FAST_TF32 : C_32F)
PRODUCTS(D, double, R_64F, C_64F)

// -- handles

EXPORT int cublasCreate_v2(Handle **handle) {
    *handle = new Handle{cuda_on_cpu_device()};
    return SUCCESS;
}
EXPORT int cublasDestroy_v2(Handle *handle) {
    delete handle;
    return SUCCESS;
}
EXPORT int cublasGetVersion_v2(Handle *, int *version) {
    *version = 130000;
    return SUCCESS;
}
EXPORT int cublasSetStream_v2(Handle *handle, void *stream) {
    handle->stream = stream;
    return SUCCESS;
}
EXPORT int cublasGetStream_v2(Handle *handle, void **stream) {
    *stream = handle->stream;
    return SUCCESS;
}
EXPORT int cublasSetMathMode(Handle *handle, int mode) {
    handle->mode = mode;
    return SUCCESS;
}
EXPORT int cublasGetMathMode(Handle *handle, int *mode) {
    *mode = handle->mode;
    return SUCCESS;
}
EXPORT int cublasSetPointerMode_v2(Handle *handle, int mode) {
    handle->pointer_mode = mode;
    return SUCCESS;
}
EXPORT int cublasGetPointerMode_v2(Handle *handle, int *mode) {
    *mode = handle->pointer_mode;
    return SUCCESS;
}
