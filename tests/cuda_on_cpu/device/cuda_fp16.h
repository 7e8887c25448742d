// Half precision by way of the compiler's _Float16; sums and products are float's, rounded once when they are stored.
#pragma once

struct __half_raw {
    unsigned short x;
};

struct alignas(2) __half {
    _Float16 value;
    __half() = default;
    __half(float x) : value((_Float16)x) {}
    __half(const __half_raw &raw) { memcpy(&value, &raw, 2); }
    explicit __half(double x) : value((_Float16)x) {}
    explicit __half(int x) : value((_Float16)x) {}
    explicit __half(unsigned x) : value((_Float16)x) {}
    explicit __half(long long x) : value((_Float16)x) {}
    explicit __half(unsigned long long x) : value((_Float16)x) {}
    operator float() const { return (float)value; }
    operator __half_raw() const {
        __half_raw raw;
        memcpy(&raw, &value, 2);
        return raw;
    }
};
typedef __half half;
struct alignas(4) __half2 {
    __half x, y;
};
typedef __half2 half2;

inline __half __float2half(float x) { return x; }
inline __half __float2half_rn(float x) { return x; }
inline __half __double2half(double x) { return __half(x); }
inline float __half2float(__half x) { return x; }
inline unsigned short __half_as_ushort(__half x) { return ((__half_raw)x).x; }
inline __half __ushort_as_half(unsigned short x) { return __half_raw{x}; }
inline __half2 __floats2half2_rn(float x, float y) { return {x, y}; }
inline __half2 __float22half2_rn(float2 v) { return {v.x, v.y}; }
inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
inline float2 __half22float2(__half2 v) { return {v.x, v.y}; }
inline float __low2float(__half2 v) { return v.x; }
inline float __high2float(__half2 v) { return v.y; }
inline bool __hisnan(__half x) { return isnan((float)x); }
inline bool __hisinf(__half x) { return isinf((float)x); }
