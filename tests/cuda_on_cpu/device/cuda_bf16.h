// bfloat16: the upper half of a float, rounded to nearest, ties to even.
#pragma once

struct alignas(2) __nv_bfloat16 {
    unsigned short bits;
    __nv_bfloat16() = default;
    __nv_bfloat16(float x) {
        unsigned whole = __float_as_uint(x);
        bits = isnan(x) ? 0x7fff : (whole + 0x7fff + (whole >> 16 & 1)) >> 16;
    }
    explicit __nv_bfloat16(double x) : __nv_bfloat16((float)x) {}
    explicit __nv_bfloat16(int x) : __nv_bfloat16((float)x) {}
    operator float() const { return __uint_as_float((unsigned)bits << 16); }
};
struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};

inline __nv_bfloat16 __float2bfloat16(float x) { return x; }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return x; }
inline float __bfloat162float(__nv_bfloat16 x) { return x; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short x) {
    __nv_bfloat16 made;
    made.bits = x;
    return made;
}
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {x, y}; }
inline float2 __bfloat1622float2(__nv_bfloat162 v) { return {v.x, v.y}; }
inline bool __hisnan(__nv_bfloat16 x) { return isnan((float)x); }
inline bool __hisinf(__nv_bfloat16 x) { return isinf((float)x); }
