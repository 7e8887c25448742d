// A launch: what CUDA refuses, then the kernel block by block, and what becomes of it where it reads or writes what is
// not its own.

#include <algorithm>
#include <csetjmp>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <sys/mman.h>

#include "bench.hpp"

Place threadIdx, blockIdx, blockDim, gridDim;

static const size_t SHARED_ROOM = 256 << 10, SHARED_GUARD = 1024;
static const unsigned char POISON = 0xff, GUARD = 0xa5;
alignas(1024) unsigned char cuda_on_cpu_shared[SHARED_ROOM];

// -- faults: a signal while a kernel runs ends the kernel, not the process

static sigjmp_buf end_of_kernel;
static Error fault;
static char reason[400];

static void on_signal(int number, siginfo_t *info, void *) {
    if (number == SIGILL) {  // what g++ puts before a load or store that is not aligned
        fault = MISALIGNED_ADDRESS;
        snprintf(reason, sizeof reason, "a load or store is not aligned to the size of its type");
    } else if (number == SIGFPE) {
        fault = LAUNCH_FAILED;
        snprintf(reason, sizeof reason, "an integer is divided by zero");
    } else {
        fault = ILLEGAL_ADDRESS;
        char text[200];
        describe_address(info->si_addr, text, sizeof text);
        snprintf(reason, sizeof reason, "it reads or writes %s", text);
    }
    siglongjmp(end_of_kernel, 1);
}

extern "C" void cuda_on_cpu_assert(const char *condition) {
    fault = ASSERT;
    snprintf(reason, sizeof reason, "assertion `%s` failed", condition);
    siglongjmp(end_of_kernel, 1);
}

extern "C" void cuda_on_cpu_trap() {
    fault = LAUNCH_FAILED;
    snprintf(reason, sizeof reason, "a thread ends the kernel (__trap)");
    siglongjmp(end_of_kernel, 1);
}

static const int SIGNALS[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};

// The handlers of these signals are ours while this lives, and whose they were before after that.
struct Handlers {
    struct sigaction before[4];
    stack_t stack_before;
    Handlers() {
        static thread_local char stack[64 << 10];  // a fiber's own may be what has overflowed
        const stack_t alternate = {stack, 0, sizeof stack};
        sigaltstack(&alternate, &stack_before);
        struct sigaction own = {};
        own.sa_sigaction = on_signal, own.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
        for (int i = 0; i < 4; i++) sigaction(SIGNALS[i], &own, &before[i]);
    }
    ~Handlers() {
        for (int i = 0; i < 4; i++) sigaction(SIGNALS[i], &before[i], nullptr);
        sigaltstack(&stack_before, nullptr);
    }
};

// -- blocks

static bool stop(Error error, const char *why) {
    fault = error;
    snprintf(reason, sizeof reason, "%s", why);
    return false;
}

static bool shared_holds(const Launch &launch) {
    for (size_t i = 0; i < SHARED_GUARD; i++)
        if (cuda_on_cpu_shared[launch.shared + i] != GUARD)
            return stop(ILLEGAL_ADDRESS, "it writes behind its shared memory");
    return true;
}

static void exchange_shared(const Kernel &kernel, Block &block) {
    std::swap_ranges(block.shared.begin(), block.shared.end(), (char *)cuda_on_cpu_shared);
    std::swap_ranges(block.fixed.begin(), block.fixed.end(), kernel.shared_begin);
}

// Rounds in which no thread comes further than to look once more at what it waits for, before that is called in vain:
// one that looks may have written before.
static const int ROUNDS_IN_VAIN = 100;

static bool run_to_the_end(const Launch &launch, bool backwards, const std::vector<Block *> &blocks) {
    const Kernel &kernel = *launch.function->kernel;
    size_t ended = 0;
    for (int in_vain = 0; ended < blocks.size() && in_vain < ROUNDS_IN_VAIN; in_vain++) {
        ended = 0;
        for (Block *const block : blocks) {
            if (!have_ended(*block)) {
                blockIdx = block->place;
                exchange_shared(kernel, *block);
                if (take_turns(*block, kernel, launch.arguments, backwards)) in_vain = -1;
                if (!shared_holds(launch)) return false;
                exchange_shared(kernel, *block);
            }
            ended += have_ended(*block);
        }
    }
    if (ended == blocks.size()) return true;
    char why[300];
    const auto stuck = std::find_if(blocks.begin(), blocks.end(), [](Block *block) { return !have_ended(*block); });
    blockIdx = (*stuck)->place;
    describe_waiting(**stuck, why, sizeof why);
    return stop(LAUNCH_FAILED, why);
}

static bool run_block(const Launch &launch, bool backwards) {
    const Kernel &kernel = *launch.function->kernel;
    const int count = blockDim.x * blockDim.y * blockDim.z;
    memset(cuda_on_cpu_shared, POISON, launch.shared);
    memset(kernel.shared_begin, POISON, kernel.shared_end - kernel.shared_begin);
    if (kernel.fibers) {
        static const Stacks stacks(1, 1024, true);
        Block block = {blockIdx, std::vector<Fiber>(count), "", ""};
        begin_fibers(block, stacks, 0);
        if (!run_to_the_end(launch, backwards, {&block})) return false;
    } else {
        for (int turn = 0; turn < count; turn++) {
            const unsigned i = backwards ? count - 1 - turn : turn;
            threadIdx = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
            kernel.call(launch.arguments);
        }
    }
    return shared_holds(launch);
}

// Blocks that wait for each other take turns, each with its own shared memory.
static bool run_together(const Launch &launch, bool backwards) {
    const Kernel &kernel = *launch.function->kernel;
    const int count = gridDim.x * gridDim.y * gridDim.z, threads = blockDim.x * blockDim.y * blockDim.z;
    const Stacks stacks(count, threads, false);
    std::vector<Block> blocks(count);
    std::vector<Block *> order;
    for (int i = 0; i < count; i++) {
        const unsigned number = backwards ? count - 1 - i : i;
        Block &block = blocks[number];
        block.place = {number % gridDim.x, number / gridDim.x % gridDim.y, number / (gridDim.x * gridDim.y)};
        block.fibers.resize(threads);
        block.shared.assign(launch.shared, (char)POISON);
        block.fixed.assign(kernel.shared_end - kernel.shared_begin, (char)POISON);
        begin_fibers(block, stacks, number);
        order.push_back(&block);
    }
    return run_to_the_end(launch, backwards, order);
}

static bool run_blocks(const Launch &launch, bool backwards) {
    memset(cuda_on_cpu_shared + launch.shared, GUARD, SHARED_GUARD);
    if (launch.function->kernel->alone) {  // one thread's loop takes every item in its stride
        gridDim = blockDim = {1, 1, 1}, blockIdx = threadIdx = {0, 0, 0};
        launch.function->kernel->call(launch.arguments);
        return true;
    }
    gridDim = {launch.grid[0], launch.grid[1], launch.grid[2]};
    blockDim = {launch.block[0], launch.block[1], launch.block[2]};
    if (launch.cooperative && launch.function->kernel->fibers) return run_together(launch, backwards);
    for (unsigned z = 0; z < gridDim.z; z++)
        for (unsigned y = 0; y < gridDim.y; y++)
            for (unsigned x = 0; x < gridDim.x; x++) {
                blockIdx = {x, y, z};
                if (!run_block(launch, backwards)) return false;
            }
    return true;
}

static Error run_once(const Launch &launch, bool backwards) {
    Handlers handlers;
    hide_other_devices(launch.function->device);
    volatile bool done = false;
    if (!sigsetjmp(end_of_kernel, 0)) done = run_blocks(launch, backwards);
    show_all_devices();
    if (done) return SUCCESS;
    refuse(fault, "kernel %s, block (%u, %u, %u), thread (%u, %u, %u): %s", launch.function->name.c_str(), blockIdx.x,
           blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z, reason);
    return lose(fault);
}

// -- both orders from the same memory

struct Saved {
    Allocation *allocation;
    std::string bytes;
};

static void add_written(std::vector<Saved> &found, const void *address) {
    Allocation *const allocation = allocation_of(address);
    bool there = !allocation || allocation->device < 0;
    for (const Saved &one : found) there = there || one.allocation == allocation;
    if (!there) found.push_back({allocation, std::string(allocation->begin, allocation->size)});
}

// What the kernel may write to: the allocations behind its pointers, and behind those in its tables. A struct of
// CuPy's may hold others.
static std::vector<Saved> written_by(const Launch &launch, bool &known) {
    const Kernel &kernel = *launch.function->kernel;
    std::vector<Saved> found;
    known = true;
    for (int i = 0; i < kernel.count; i++) {
        known = known && kernel.kinds[i] != 's';
        if (kernel.kinds[i] == 'p') add_written(found, *(void **)launch.arguments[i]);
    }
    for (int i = 0; i < kernel.count; i++) {  // a table is const, what it points to need not be
        const Allocation *const table = kernel.kinds[i] == 'c' ? allocation_of(*(void **)launch.arguments[i]) : nullptr;
        for (size_t at = 0; table && at + sizeof(void *) <= table->size; at += sizeof(void *)) {
            uintptr_t word;
            memcpy(&word, table->begin + at, sizeof word);
            if (word >> 12 && !(word >> 47)) add_written(found, (const void *)word);
        }
    }
    return found;
}

static Error run_both(const Launch &launch) {
    bool known;
    std::vector<Saved> before = written_by(launch, known);
    if (const Error error = run_once(launch, false)) return error;
    if (!known) return SUCCESS;
    for (Saved &one : before) {
        std::string after(one.allocation->begin, one.allocation->size);
        memcpy(one.allocation->begin, one.bytes.data(), one.bytes.size());
        one.bytes.swap(after);
    }
    if (const Error error = run_once(launch, true)) return error;
    for (const Saved &one : before)
        if (memcmp(one.allocation->begin, one.bytes.data(), one.bytes.size()))
            return lose(refuse(LAUNCH_FAILED, "kernel %s: its result depends on the order of its threads",
                               launch.function->name.c_str()));
    return SUCCESS;
}

// -- launches

size_t shared_of_multiprocessor() {
    return settings.shared_opt_in + (settings.major >= 8 ? SHARED_RESERVED : 0);
}

// Registers are left out: a compiler for the device would know.
int blocks_at_once(const Function &function, size_t threads, size_t shared) {
    const size_t fixed = function.kernel ? function.kernel->shared_end - function.kernel->shared_begin : 0;
    const size_t taken = shared + fixed + (settings.major >= 8 ? SHARED_RESERVED : 0);
    const size_t by_shared = taken ? shared_of_multiprocessor() / taken : settings.most_blocks;
    return (int)std::min({(size_t)settings.most_blocks, settings.most_threads / threads, by_shared});
}

static Error check_launch(const Launch &launch) {
    const Function &function = *launch.function;
    const char *const name = function.name.c_str();
    const unsigned *const g = launch.grid, *const b = launch.block;
    if (!g[0] || !g[1] || !g[2] || g[0] > 0x7fffffff || g[1] > 65535 || g[2] > 65535)
        return refuse(INVALID_VALUE,
                      "kernel %s: grid (%u, %u, %u) is not within (1, 1, 1) and (2147483647, 65535, 65535)", name, g[0],
                      g[1], g[2]);
    const size_t threads = (size_t)b[0] * b[1] * b[2];
    if (!threads || threads > 1024 || b[2] > 64)
        return refuse(INVALID_VALUE,
                      "kernel %s: block (%u, %u, %u) must have 1 to 1024 threads, and at most 64 along z", name, b[0],
                      b[1], b[2]);
    if (function.device != current_device)
        return refuse(INVALID_HANDLE, "kernel %s was loaded on device %d, the current one is %d", name, function.device,
                      current_device);
    const size_t blocks = (size_t)g[0] * g[1] * g[2];
    if (launch.cooperative && launch.shared <= function.dynamic_limit &&
        blocks > (size_t)blocks_at_once(function, threads, launch.shared) * MULTIPROCESSORS)
        return refuse(COOPERATIVE_LAUNCH_TOO_LARGE,
                      "kernel %s: %zu blocks at once, the device holds %d on each of %d multiprocessors", name, blocks,
                      blocks_at_once(function, threads, launch.shared), MULTIPROCESSORS);
    if (!function.kernel)
        return launch.shared <= function.dynamic_limit
                   ? SUCCESS
                   : refuse(INVALID_VALUE, "kernel %s: %zu bytes of shared memory", name, launch.shared);
    if ((int)threads > function.kernel->max_threads)
        return refuse(INVALID_VALUE, "kernel %s: %zu threads, its __launch_bounds__ are %d", name, threads,
                      function.kernel->max_threads);
    const size_t fixed = function.kernel->shared_end - function.kernel->shared_begin;
    if (launch.shared > function.dynamic_limit)
        return refuse(INVALID_VALUE,
                      "kernel %s: %zu bytes of dynamic and %zu of static shared memory, the limit is %zu", name,
                      launch.shared, fixed, function.dynamic_limit + fixed);
    return SUCCESS;
}

Error run_kernel(const Launch &launch) {
    counts.launches[launch.function->name]++;
    note("launch %s: grid (%u, %u, %u), block (%u, %u, %u), %zu bytes shared%s", launch.function->name.c_str(),
         launch.grid[0], launch.grid[1], launch.grid[2], launch.block[0], launch.block[1], launch.block[2],
         launch.shared, launch.cooperative ? ", cooperative" : "");
    if (const Error error = check_launch(launch)) return error;
    const Kernel *const kernel = launch.function->kernel;
    if (!kernel || settings.idle) return SUCCESS;
    if (settings.order == Settings::BOTH && !kernel->alone) return run_both(launch);
    return run_once(launch, settings.order == Settings::DOWN);
}
