// What a compiled kernel tells the bench about itself; both sides include this.
#pragma once

#include <stddef.h>

struct Place {
    unsigned x, y, z;
};

struct Kernel {
    void (*call)(void **arguments);  // one thread, from its beginning to its end
    int count;                       // parameters
    const size_t *sizes;             // bytes of each
    const char *kinds;               // 'p' pointer to what may be written, 'c' to const, 'n' number, 's' struct
    bool fibers;                     // threads wait for each other
    bool alone;                      // an elementwise kernel of CuPy: its loop does all the work in one thread
    int max_threads;                 // __launch_bounds__, or 1024
    char *shared_begin, *shared_end; // variables that are __shared__
};

enum Waits { NOTHING, WARP, BLOCK, OTHERS, ENDED };

// Where this thread is. One thread runs at a time, so these are plain variables.
#define OF_THE_BENCH __attribute__((visibility("default")))
OF_THE_BENCH extern Place threadIdx, blockIdx, blockDim, gridDim;
// Dynamic shared memory of the block.
extern "C" OF_THE_BENCH unsigned char cuda_on_cpu_shared[];

// A thread waits for its block, or for the lanes of its warp in `mask`. Lanes that wait hand over 8 bytes each and
// receive those of lane `from`; with `from` -1, one bit for each lane: whether its bytes are not 0.
extern "C" OF_THE_BENCH void cuda_on_cpu_wait_block();
extern "C" OF_THE_BENCH unsigned long long cuda_on_cpu_wait_warp(unsigned mask, unsigned long long value, int from);
// A thread that waits for what another one writes, perhaps one of another block, lets them run before it looks again.
extern "C" OF_THE_BENCH void cuda_on_cpu_wait_others();
extern "C" OF_THE_BENCH [[noreturn]] void cuda_on_cpu_assert(const char *condition);
extern "C" OF_THE_BENCH [[noreturn]] void cuda_on_cpu_trap();
