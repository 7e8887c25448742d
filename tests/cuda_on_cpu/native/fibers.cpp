// The threads of a block that wait for each other: fibers, each with a stack of its own, which take turns. One runs until
// it waits or ends. In the opposite order of turns, a kernel that lacks a barrier computes something else.

#include <cstdio>
#include <cstring>
#include <sys/mman.h>

#include "bench.hpp"

static const size_t STACK = 64 << 10, GUARD = 4096;
static const int WARP_SIZE = 32, MOST = 1024;

struct Fiber {
    void *stack_pointer;
    Waits waits;
    unsigned mask;             // while it waits for lanes of its warp
    unsigned long long value;  // what it hands over, then what it has received
    int from;
};
static Fiber fibers[MOST];
static void *scheduler;  // its stack pointer while a fiber runs
static int running;
static const Kernel *kernel;
static void **arguments;

// switch_stacks(&own, other): saves the registers that a function must preserve on the own stack, and takes up the
// other stack where it did the same. (`swapcontext` does that too, with two system calls each time.)
asm(R"(
.text
.type switch_stacks, @function
switch_stacks:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size switch_stacks, .-switch_stacks
)");
extern "C" void switch_stacks(void **own, void *other);

static void leave(Waits waits) {
    Fiber &own = fibers[running];
    own.waits = waits;
    switch_stacks(&own.stack_pointer, scheduler);
}

static void begin() {
    kernel->call(arguments);
    leave(ENDED);
}

// Stacks of all fibers, with a page between them that nobody may touch.
static char *stacks() {
    static char *const all = [] {
        char *const room = (char *)mmap(nullptr, MOST * (STACK + GUARD), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        for (int i = 0; i < MOST; i++) mprotect(room + i * (STACK + GUARD) + GUARD, STACK, PROT_READ | PROT_WRITE);
        return room;
    }();
    return all;
}

static void prepare(int i) {
    void **top = (void **)(stacks() + (i + 1) * (STACK + GUARD));
    *--top = nullptr;        // where `begin` would return to; keeps the stack aligned as after a call
    *--top = (void *)begin;  // what `switch_stacks` returns to
    top -= 6;                // the registers that it restores
    fibers[i].stack_pointer = top;
    fibers[i].waits = NOTHING;
}

static Place place(int i) {
    const unsigned x = blockDim.x, y = blockDim.y;
    return {i % x, i / x % y, i / (x * y)};
}

extern "C" void cuda_on_cpu_wait_block() { leave(BLOCK); }

extern "C" unsigned long long cuda_on_cpu_wait_warp(
    unsigned mask, unsigned long long value, int from) {
    Fiber &own = fibers[running];
    own.mask = mask, own.value = value, own.from = from;
    leave(WARP);
    return own.value;
}

// Wakes the lanes of a warp whose partners have all come, and hands values over.
static bool wake_warp(int first, int lanes) {
    bool any = false;
    for (int lane = 0; lane < lanes; lane++) {
        Fiber *const warp = fibers + first;
        if (warp[lane].waits != WARP) continue;
        const unsigned mask = warp[lane].mask;
        unsigned long long values[WARP_SIZE] = {}, votes = 0;
        bool all = mask >> lane & 1;
        for (int other = 0; other < lanes; other++) {
            if (!(mask >> other & 1)) continue;
            all = all && warp[other].waits == WARP && warp[other].mask == mask;
            values[other] = warp[other].value;
            votes |= (unsigned long long)(values[other] != 0) << other;
        }
        if (!all) continue;
        for (int other = 0; other < lanes; other++) {
            if (!(mask >> other & 1)) continue;
            const int from = warp[other].from;
            // A lane that takes part in nothing hands over nothing that could be relied on.
            warp[other].value = from < 0 ? votes : from < lanes && mask >> from & 1 ? values[from] : ~0ull;
            warp[other].waits = NOTHING;
        }
        any = true;
    }
    return any;
}

static bool wake_block(int count) {
    for (int i = 0; i < count; i++)
        if (fibers[i].waits != BLOCK) return false;
    for (int i = 0; i < count; i++) fibers[i].waits = NOTHING;
    return true;
}

bool run_fibers(const Kernel &which, void **with, int count, bool backwards, char *why, size_t room) {
    kernel = &which, arguments = with;
    for (int i = 0; i < count; i++) prepare(i);
    for (bool moved = true; moved;) {
        moved = false;
        for (int turn = 0; turn < count; turn++) {
            running = backwards ? count - 1 - turn : turn;
            if (fibers[running].waits != NOTHING) continue;
            moved = true;
            threadIdx = place(running);
            switch_stacks(&scheduler, fibers[running].stack_pointer);
        }
        for (int i = 0; i < count; i += WARP_SIZE)
            moved = wake_warp(i, count - i < WARP_SIZE ? count - i : WARP_SIZE) || moved;
        moved = wake_block(count) || moved;
    }
    int waiting[ENDED + 1] = {}, example = 0;
    for (int i = 0; i < count; i++) {
        waiting[fibers[i].waits]++;
        if (fibers[i].waits != ENDED) example = i;
    }
    if (waiting[ENDED] == count) return true;
    snprintf(why, room, "a barrier is not reached by all: %d threads wait for their block, %d for their warp (such as thread %d), %d have ended",
             waiting[BLOCK], waiting[WARP], example, waiting[ENDED]);
    return false;
}
