// REAL, float or double, which a kernel is compiled for (float where nothing says so), and its infinity.

#ifndef INFINITY  // NVRTC has no math.h
#define INFINITY __int_as_float(0x7f800000)
#endif
#ifndef REAL
#define REAL float
#endif
