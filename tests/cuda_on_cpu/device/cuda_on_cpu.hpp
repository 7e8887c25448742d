// CUDA C++ for g++: what a kernel finds without an include. Compiled once (precompiled) and put before every kernel.
#pragma once

#include <assert.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "kernel.hpp"

#undef assert
#define assert(condition) ((condition) ? (void)0 : cuda_on_cpu_assert(#condition))

#define __CUDACC_VER_MAJOR__ 13
#define __device__
#define __global__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __align__(n) alignas(n)
#define __constant__
#define __launch_bounds__(...)
// Variables of a block: one copy will do, as one block runs at a time. In a section of their own, they can be poisoned
// when a block begins, counted, and put aside where blocks take turns.
#define __shared__ static __attribute__((section("cuda_shared"), used))
#define __syncthreads() cuda_on_cpu_wait_block()

static const int warpSize = 32;
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __nanosleep(unsigned) { cuda_on_cpu_wait_others(); }
inline long long clock64() { return 0; }  // time stands still: whoever waits in vain is found otherwise
[[noreturn]] inline void __trap() { cuda_on_cpu_trap(); }

// -- vectors, aligned as CUDA's are: a load that is not aligned is trapped
#define VECTORS(type, name, size)                                                     \
    struct alignas(2 * size) name##2 { type x, y; };                                  \
    struct name##3 { type x, y, z; };                                                 \
    struct alignas(4 * size < 16 ? 4 * size : 16) name##4 { type x, y, z, w; };       \
    inline name##2 make_##name##2(type x, type y) { return {x, y}; }                  \
    inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; }       \
    inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
VECTORS(signed char, char, 1) VECTORS(unsigned char, uchar, 1)
VECTORS(short, short, 2) VECTORS(unsigned short, ushort, 2)
VECTORS(int, int, 4) VECTORS(unsigned, uint, 4) VECTORS(float, float, 4)
VECTORS(long long, longlong, 8) VECTORS(unsigned long long, ulonglong, 8) VECTORS(double, double, 8)
#undef VECTORS
typedef Place dim3;

template <class T> inline T __ldg(const T *address) { return *address; }
template <class T> inline T __ldcs(const T *address) { return *address; }
template <class T> inline T __ldcg(const T *address) { return *address; }
template <class T> inline void __stcs(T *address, T value) { *address = value; }
template <class T> inline void __stcg(T *address, T value) { *address = value; }

// -- bits of one type as another
#define BITS(name, from, to) inline to name(from x) { to y; memcpy(&y, &x, sizeof y); return y; }
BITS(__int_as_float, int, float) BITS(__float_as_int, float, int)
BITS(__uint_as_float, unsigned, float) BITS(__float_as_uint, float, unsigned)
BITS(__longlong_as_double, long long, double) BITS(__double_as_longlong, double, long long)
#undef BITS
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned long long)a * b >> 32; }
inline int __mulhi(int a, int b) { return (long long)a * b >> 32; }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned __int128)a * b >> 64;
}
inline float __uint2float_rn(unsigned x) { return (float)x; }
inline float __int2float_rn(int x) { return (float)x; }
inline int __float2int_rn(float x) { return (int)rintf(x); }
inline int __float2int_rz(float x) { return (int)x; }
inline int __float2int_rd(float x) { return (int)floorf(x); }

// -- mathematics beyond <math.h>, whose C++ version has an overload for each type. What CUDA approximates is exact
inline double rsqrt(double x) { return 1 / sqrt(x); }
inline float rsqrt(float x) { return 1 / sqrtf(x); }
inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline double normcdf(double x) { return erfc(-x * M_SQRT1_2) / 2; }
inline float normcdff(float x) { return erfcf(-x * (float)M_SQRT1_2) / 2; }
inline float __expf(float x) { return expf(x); }
inline float __exp2f(float x) { return exp2f(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __tanhf(float x) { return tanhf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1 / x; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __saturatef(float x) { return x > 0 ? x < 1 ? x : 1 : 0; }

// As CUDA: of two numbers of different types, the greater after the usual conversions; a NaN gives way to a number.
template <class A, class B> inline auto max(A a, B b) -> decltype(a + b) {
    typedef decltype(a + b) T;
    return a != a ? (T)b : b != b ? (T)a : (T)a < (T)b ? (T)b : (T)a;
}
template <class A, class B> inline auto min(A a, B b) -> decltype(a + b) {
    typedef decltype(a + b) T;
    return a != a ? (T)b : b != b ? (T)a : (T)b < (T)a ? (T)b : (T)a;
}

// -- one thread runs at a time, so whatever it does is atomic
#define ATOMIC(name, type, result) \
    inline type name(type *address, type value) { const type old = *address; *address = result; return old; }
#define ATOMICS(_, name, result) _(name, int, result) _(name, unsigned, result) _(name, unsigned long long, result)
ATOMICS(ATOMIC, atomicAdd, old + value) ATOMIC(atomicAdd, float, old + value) ATOMIC(atomicAdd, double, old + value)
ATOMICS(ATOMIC, atomicMax, old < value ? value : old) ATOMICS(ATOMIC, atomicMin, value < old ? value : old)
ATOMIC(atomicMax, long long, old < value ? value : old) ATOMIC(atomicMin, long long, value < old ? value : old)
ATOMICS(ATOMIC, atomicExch, value) ATOMIC(atomicExch, float, value)
ATOMICS(ATOMIC, atomicAnd, old & value) ATOMICS(ATOMIC, atomicOr, old | value) ATOMICS(ATOMIC, atomicXor, old ^ value)
ATOMIC(atomicSub, int, old - value) ATOMIC(atomicSub, unsigned, old - value)
#undef ATOMICS
#undef ATOMIC
template <class T> inline T atomicCAS(T *address, T expected, T value) {
    const T old = *address;
    if (old == expected) *address = value;
    return old;
}

// -- warps
inline unsigned lane_of_warp() { return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32; }
inline void __syncwarp(unsigned mask = 0xffffffff) { cuda_on_cpu_wait_warp(mask, 0, -1); }
template <class T> inline T shuffled(unsigned mask, T value, int from) {
    static_assert(sizeof(T) <= 8, "shuffles move at most 8 bytes");
    unsigned long long bytes = 0;
    memcpy(&bytes, &value, sizeof value);
    bytes = cuda_on_cpu_wait_warp(mask, bytes, from);
    memcpy(&value, &bytes, sizeof value);
    return value;
}
// Lanes of a part of `width` lanes exchange among themselves; beyond its ends a lane keeps its own value.
template <class T> inline T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
    return shuffled(mask, value, lane_of_warp() / width * width + from % width);
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T value, int distance, int width = 32) {
    const int lane = lane_of_warp(), from = lane ^ distance;
    return shuffled(mask, value, from / width <= lane / width ? from : lane);
}
template <class T> inline T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32) {
    const int lane = lane_of_warp();
    return shuffled(mask, value, lane % width >= (int)distance ? lane - (int)distance : lane);
}
template <class T> inline T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32) {
    const int lane = lane_of_warp();
    return shuffled(mask, value, lane % width + (int)distance < width ? lane + (int)distance : lane);
}
inline unsigned __ballot_sync(unsigned mask, int condition) { return cuda_on_cpu_wait_warp(mask, condition != 0, -1); }
inline int __any_sync(unsigned mask, int condition) { return __ballot_sync(mask, condition) != 0; }
inline int __all_sync(unsigned mask, int condition) { return !__ballot_sync(mask, !condition); }

// -- what a kernel tells the bench about itself
extern "C" char __start_cuda_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_cuda_shared[] __attribute__((weak, visibility("hidden")));

template <class T> struct Kind { static const char value = __is_class(T) ? 's' : 'n'; };
template <class T> struct Kind<T *> { static const char value = 'p'; };
template <class T> struct Kind<const T *> { static const char value = 'c'; };
template <class T> struct Value { typedef T type; };
template <class T> struct Value<const T> { typedef T type; };
template <class T> struct Value<T &> { typedef T type; };
template <size_t...> struct Indices {};

template <class F, F *function> struct Description;
template <class... P, void (*function)(P...)> struct Description<void(P...), function> {
    static constexpr size_t sizes[] = {sizeof(P)..., 0};
    static constexpr char kinds[] = {Kind<typename Value<P>::type>::value..., 0};
    template <size_t... I> static void spread(void **arguments, Indices<I...>) {
        function(*(typename Value<P>::type *)arguments[I]...);
    }
    static void call(void **arguments) { spread(arguments, Indices<__integer_pack(sizeof...(P))...>()); }
};
// The function comes last: an instance of a template may hold commas.
#define DESCRIBE(symbol, fibers, alone, threads, ...)                                                    \
    typedef Description<decltype(__VA_ARGS__), __VA_ARGS__> description_of_##symbol;                     \
    extern "C" OF_THE_BENCH const Kernel cuda_on_cpu_kernel_##symbol = {                                 \
        description_of_##symbol::call, sizeof description_of_##symbol::sizes / sizeof(size_t) - 1,       \
        description_of_##symbol::sizes, description_of_##symbol::kinds, fibers, alone, threads,          \
        __start_cuda_shared, __stop_cuda_shared};
