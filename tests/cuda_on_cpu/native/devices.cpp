// The runtime's functions for devices and errors. The real runtime is linked into CuPy; each of its functions jumps to
// the one here, or in `streams.cpp` and `memory.cpp`, whose name is `answer_` and its own (`install.py`).

#include "bench.hpp"

#include <cstdio>
#include <cstring>

thread_local int current_device = 0;

// -- devices

EXPORT int answer_cudaGetDeviceCount(int *count) {
    *count = settings.devices;
    return SUCCESS;
}
EXPORT int answer_cudaGetDevice(int *device) {
    *device = current_device;
    return SUCCESS;
}
EXPORT int answer_cudaSetDevice(int device) {
    if (device < 0 || device >= settings.devices) return INVALID_DEVICE;
    current_device = device;
    return SUCCESS;
}
EXPORT int answer_cudaDriverGetVersion(int *version) {
    *version = 13000;
    return SUCCESS;
}
EXPORT int answer_cudaRuntimeGetVersion(int *version) {
    *version = 13000;
    return SUCCESS;
}
static const int REGISTERS = 65536, L2_CACHE = 50 << 20;

EXPORT int answer_cudaDeviceGetAttribute(int *value, int attribute, int device) {
    if (device < 0 || device >= settings.devices) return INVALID_DEVICE;
    switch (attribute) {  // the numbers of `enum cudaDeviceAttr`
        case 1: *value = 1024; return SUCCESS;                           // MaxThreadsPerBlock
        case 2: case 3: *value = 1024; return SUCCESS;                   // MaxBlockDimX, MaxBlockDimY
        case 4: *value = 64; return SUCCESS;                             // MaxBlockDimZ
        case 5: *value = 0x7fffffff; return SUCCESS;                     // MaxGridDimX
        case 6: case 7: *value = 65535; return SUCCESS;                  // MaxGridDimY, MaxGridDimZ
        case 8: *value = SHARED_DEFAULT; return SUCCESS;                 // MaxSharedMemoryPerBlock
        case 10: *value = 32; return SUCCESS;                            // WarpSize
        case 12: case 82: *value = REGISTERS; return SUCCESS;            // MaxRegistersPerBlock, -PerMultiprocessor
        case 13: case 36: *value = 1500000; return SUCCESS;              // ClockRate, MemoryClockRate
        case 15: *value = 1; return SUCCESS;                             // GpuOverlap
        case 16: *value = MULTIPROCESSORS; return SUCCESS;               // MultiProcessorCount
        case 31: *value = 1; return SUCCESS;                             // ConcurrentKernels
        case 38: *value = L2_CACHE; return SUCCESS;                      // L2CacheSize
        case 39: *value = settings.most_threads; return SUCCESS;         // MaxThreadsPerMultiProcessor
        case 41: *value = 1; return SUCCESS;                             // UnifiedAddressing
        case 75: *value = settings.major; return SUCCESS;                // ComputeCapabilityMajor
        case 76: *value = settings.minor; return SUCCESS;                // ComputeCapabilityMinor
        case 81: *value = (int)shared_of_multiprocessor(); return SUCCESS;      // MaxSharedMemoryPerMultiprocessor
        case 97: *value = (int)settings.shared_opt_in; return SUCCESS;   // MaxSharedMemoryPerBlockOptin
        case 17: case 18: case 20: *value = 0; return SUCCESS;           // KernelExecTimeout, Integrated, ComputeMode
        case 83: case 96: *value = 0; return SUCCESS;                    // ManagedMemory, CooperativeLaunch on many
        case 95: *value = 1; return SUCCESS;                             // CooperativeLaunch
        case 115: *value = 0; return SUCCESS;                            // MemoryPoolsSupported
        case 87: *value = 2; return SUCCESS;                             // SingleToDoublePrecisionPerfRatio
        default:
            // Sizes of textures and surfaces, of which the bench has none.
            if ((attribute >= 21 && attribute <= 29) || (attribute >= 42 && attribute <= 74 && attribute != 50)) {
                *value = 0;
                return SUCCESS;
            }
            return refuse(INVALID_VALUE, "cudaDeviceGetAttribute: the bench does not know attribute %d", attribute);
    }
}

// The first members of `cudaDeviceProp` in CUDA 13, and places further on.
struct Properties {
    char name[256], uuid[16], luid[8];
    unsigned luid_mask;
    size_t global, shared;
    int registers, warp;
    size_t pitch;
    int threads, block[3], grid[3];
    size_t constants;
    int major, minor;
    size_t texture_alignment, texture_pitch;
    int multiprocessors;
    char rest[1008 - 392];
};
static_assert(offsetof(Properties, major) == 360 && offsetof(Properties, multiprocessors) == 384 &&
                  sizeof(Properties) == 1008, "cudaDeviceProp of CUDA 13");

EXPORT int answer_cudaGetDeviceProperties(void *to, int device) {
    if (device < 0 || device >= settings.devices) return INVALID_DEVICE;
    Properties found = {};
    snprintf(found.name, sizeof found.name, "no device: CUDA on the CPU");
    found.uuid[0] = (char)(device + 1);  // CuPy reads it up to the first 0
    found.global = (size_t)80 << 30, found.shared = SHARED_DEFAULT, found.registers = REGISTERS, found.warp = 32;
    found.threads = 1024, found.constants = 64 << 10, found.multiprocessors = MULTIPROCESSORS;
    const int block[] = {1024, 1024, 64}, grid[] = {0x7fffffff, 65535, 65535};
    memcpy(found.block, block, sizeof block), memcpy(found.grid, grid, sizeof grid);
    found.major = settings.major, found.minor = settings.minor;
    memcpy((char *)&found + 596, &L2_CACHE, sizeof(int));
    memcpy((char *)&found + 604, &settings.most_threads, sizeof(int));
    const size_t shared = shared_of_multiprocessor();
    memcpy((char *)&found + 624, &shared, sizeof(size_t));
    memcpy((char *)&found + 632, &REGISTERS, sizeof(int));
    memcpy((char *)&found + 672, &settings.shared_opt_in, sizeof(size_t));
    memcpy(to, &found, sizeof found);
    return SUCCESS;
}
EXPORT int answer_cudaGetDeviceProperties_v2(void *to, int device) {
    return answer_cudaGetDeviceProperties(to, device);
}
EXPORT int answer_cudaDeviceCanAccessPeer(int *can, int, int) {
    *can = 0;
    return SUCCESS;
}

// -- profilers see nothing

EXPORT int answer_cudaProfilerStart() { return SUCCESS; }
EXPORT int answer_cudaProfilerStop() { return SUCCESS; }

// -- errors

EXPORT int answer_cudaGetLastError() { return lost; }
EXPORT int answer_cudaPeekAtLastError() { return lost; }
EXPORT const char *answer_cudaGetErrorName(int error) {
#define NAME(number, driver, runtime, text) if (error == number) return number ? "cudaError" #runtime : "cudaSuccess";
    ERRORS(NAME)
#undef NAME
    return "cudaErrorUnknown";
}
EXPORT const char *answer_cudaGetErrorString(int error) {
#define TEXT(number, driver, runtime, text) if (error == number) return text;
    ERRORS(TEXT)
#undef TEXT
    return "unknown error";
}
