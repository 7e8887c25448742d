// Enough of CUDA to run a kernel on the CPU: a block at a time, its threads in turn, each until it has to wait.
// Shared memory is full of NaN when a block begins. The order of turns is the caller's: a kernel that lacks a barrier
// gives something else in the opposite order.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <ucontext.h>
#include <utility>
#include <vector>

struct Place {
    int x, y;
};
static Place blockIdx, threadIdx, blockDim, gridDim;
alignas(16) unsigned char shared[1 << 18];

#define __device__
#define __global__
#define __shared__
#define __launch_bounds__(...)
#define __syncthreads() wait_for(BLOCK)
#define __syncwarp() wait_for(WARP)
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned __int128)a * b >> 64;
}
using std::exp, std::isnan, std::log, std::max, std::min, std::sqrt, std::tanh;

enum Waits { NOTHING, WARP, BLOCK, ENDED };

struct Thread {
    ucontext_t context;
    std::unique_ptr<char[]> stack{new char[STACK]};
    Waits waits = NOTHING;
    static const int STACK = 1 << 16;
};
static std::vector<Thread> threads_of_block;
static ucontext_t scheduler;
static std::function<void()> body;
static unsigned char exchanged[1024][8];

static void wait_for(Waits what) {
    Thread &own = threads_of_block[threadIdx.x];
    own.waits = what;
    swapcontext(&own.context, &scheduler);
}

template <class T> T __shfl_xor_sync(unsigned, T value, int distance) {
    std::memcpy(exchanged[threadIdx.x], &value, sizeof value);
    wait_for(WARP);
    std::memcpy(&value, exchanged[threadIdx.x ^ distance], sizeof value);
    wait_for(WARP);
    return value;
}

static void run_thread() {
    body();
    wait_for(ENDED);
}

// Wakes threads `from` to `to` if all of them wait for that, or have ended; whether any was woken.
static bool wake(Waits what, int from, int to) {
    bool any = false;
    for (int t = from; t < to; t++) {
        if (threads_of_block[t].waits != what && threads_of_block[t].waits != ENDED) return false;
        any = any || threads_of_block[t].waits == what;
    }
    for (int t = from; t < to; t++)
        if (threads_of_block[t].waits == what) threads_of_block[t].waits = NOTHING;
    return any;
}

static bool run_block(bool backwards) {
    const int count = blockDim.x;
    std::memset(shared, 0xff, sizeof shared);
    for (Thread &thread : threads_of_block) {
        thread.waits = NOTHING;
        getcontext(&thread.context);
        thread.context.uc_stack.ss_sp = thread.stack.get(), thread.context.uc_stack.ss_size = Thread::STACK;
        makecontext(&thread.context, run_thread, 0);
    }
    for (bool moved = true; moved;) {
        moved = false;
        for (int turn = 0; turn < count; turn++) {
            threadIdx = {backwards ? count - 1 - turn : turn, 0};
            Thread &thread = threads_of_block[threadIdx.x];
            if (thread.waits != NOTHING) continue;
            moved = true;
            swapcontext(&scheduler, &thread.context);
        }
        for (int t = 0; t < count; t += 32) moved = wake(WARP, t, std::min(t + 32, count)) || moved;
        moved = wake(BLOCK, 0, count) || moved;
    }
    for (Thread &thread : threads_of_block)
        if (thread.waits != ENDED) return false;
    return true;
}

template <class... P, size_t... I>
bool run(bool backwards, int x, int y, int threads, void **arguments, void (*kernel)(P...),
         std::index_sequence<I...>) {
    body = [=] { kernel(*(P *)arguments[I]...); };
    blockDim = {threads, 1}, gridDim = {x, y};
    threads_of_block = std::vector<Thread>(threads);
    for (int by = 0; by < y; by++)
        for (int bx = 0; bx < x; bx++) {
            blockIdx = {bx, by};
            if (!run_block(backwards)) return false;  // some threads wait for others that never come
        }
    return true;
}

template <class... P>
bool run(bool backwards, int x, int y, int threads, void **arguments, void (*kernel)(P...)) {
    return run(backwards, x, y, threads, arguments, kernel, std::index_sequence_for<P...>());
}
