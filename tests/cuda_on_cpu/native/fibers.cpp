// Threads that wait for each other: fibers, each with a stack of its own, which take turns. One runs until it waits or
// ends. In the opposite order of turns, a kernel that lacks a barrier computes something else.

#include <cstdio>
#include <cstring>
#include <sys/mman.h>

#include "bench.hpp"

static const size_t STACK = 64 << 10, GUARD = 4096;
static const int WARP_SIZE = 32;

static Fiber *fibers;  // of the block that runs
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

// With a page before each block's stacks alone, where they are many: the system has room for about 32,000 such pages.
Stacks::Stacks(int blocks, int threads, bool guard_each) : threads(threads), guard_each(guard_each) {
    apart = guard_each ? STACK + GUARD : STACK;
    size = (size_t)blocks * (threads * apart + GUARD);
    begin = (char *)mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    for (int i = 0; i < blocks; i++) {
        char *const first = begin + i * (threads * apart + GUARD);
        for (int j = 0; j < (guard_each ? threads : 1); j++) mprotect(first + j * apart, GUARD, PROT_NONE);
    }
}
Stacks::~Stacks() { munmap(begin, size); }
char *Stacks::top(int block, int thread) const {
    return begin + block * (threads * apart + GUARD) + GUARD + (size_t)thread * apart + STACK;
}

void begin_fibers(Block &block, const Stacks &stacks, int index) {
    for (size_t i = 0; i < block.fibers.size(); i++) {
        void **top = (void **)stacks.top(index, (int)i);
        *--top = nullptr;        // where `begin` would return to; keeps the stack aligned as after a call
        *--top = (void *)begin;  // what `switch_stacks` returns to
        top -= 6;                // the registers that it restores
        block.fibers[i].stack_pointer = top;
        block.fibers[i].waits = NOTHING;
    }
}

static Place place(int i) {
    const unsigned x = blockDim.x, y = blockDim.y;
    return {i % x, i / x % y, i / (x * y)};
}

extern "C" void cuda_on_cpu_wait_block() { leave(BLOCK); }
extern "C" void cuda_on_cpu_wait_others() { leave(OTHERS); }

extern "C" unsigned long long cuda_on_cpu_wait_warp(unsigned mask, unsigned long long value, int from) {
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

bool take_turns(Block &block, const Kernel &which, void **with, bool backwards) {
    kernel = &which, arguments = with, fibers = block.fibers.data();
    const int count = (int)block.fibers.size();
    for (Fiber &fiber : block.fibers)
        if (fiber.waits == OTHERS) fiber.waits = NOTHING;
    bool any = false;
    for (bool moved = true; moved;) {
        moved = false;
        for (int turn = 0; turn < count; turn++) {
            running = backwards ? count - 1 - turn : turn;
            if (fibers[running].waits != NOTHING) continue;
            threadIdx = place(running);
            switch_stacks(&scheduler, fibers[running].stack_pointer);
            moved = moved || fibers[running].waits != OTHERS;
        }
        for (int i = 0; i < count; i += WARP_SIZE)
            moved = wake_warp(i, count - i < WARP_SIZE ? count - i : WARP_SIZE) || moved;
        moved = wake_block(count) || moved;
        any = any || moved;
    }
    return any;
}

bool have_ended(const Block &block) {
    for (const Fiber &fiber : block.fibers)
        if (fiber.waits != ENDED) return false;
    return true;
}

void describe_waiting(const Block &block, char *why, size_t room) {
    int waiting[ENDED + 1] = {}, example = 0;
    for (size_t i = 0; i < block.fibers.size(); i++) {
        waiting[block.fibers[i].waits]++;
        if (block.fibers[i].waits != ENDED) example = (int)i;
    }
    snprintf(why, room,
             "%s: %d threads wait for their block, %d for their warp, %d for what others write (such as thread %d), "
             "%d have ended",
             waiting[OTHERS] ? "what is waited for does not come" : "a barrier is not reached by all", waiting[BLOCK],
             waiting[WARP], waiting[OTHERS], example, waiting[ENDED]);
}
