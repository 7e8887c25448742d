// What the parts of the fake CUDA driver and runtime share. See ../README.md for the whole picture.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "../device/kernel.hpp"

#define EXPORT extern "C" __attribute__((visibility("default")))

// One line for each error of CUDA that the bench knows: number, name of the driver API, name of the runtime API, text.
#define ERRORS(_)                                                                                      \
    _(0, SUCCESS, Success, "no error")                                                                 \
    _(1, INVALID_VALUE, InvalidValue, "invalid argument")                                              \
    _(2, OUT_OF_MEMORY, MemoryAllocation, "out of memory")                                             \
    _(100, NO_DEVICE, NoDevice, "no CUDA-capable device is detected")                                  \
    _(101, INVALID_DEVICE, InvalidDevice, "invalid device ordinal")                                    \
    _(300, INVALID_SOURCE, InvalidSource, "device kernel image is invalid")                            \
    _(400, INVALID_HANDLE, InvalidResourceHandle, "invalid resource handle")                           \
    _(500, NOT_FOUND, SymbolNotFound, "named symbol not found")                                        \
    _(700, ILLEGAL_ADDRESS, IllegalAddress, "an illegal memory access was encountered")                \
    _(710, ASSERT, Assert, "device-side assert triggered")                                             \
    _(716, MISALIGNED_ADDRESS, MisalignedAddress, "misaligned address")                                \
    _(719, LAUNCH_FAILED, LaunchFailure, "unspecified launch failure")                                 \
    _(720, COOPERATIVE_LAUNCH_TOO_LARGE, CooperativeLaunchTooLarge, "too many blocks in cooperative launch") \
    _(801, NOT_SUPPORTED, NotSupported, "operation not supported")                                     \
    _(900, STREAM_CAPTURE_UNSUPPORTED, StreamCaptureUnsupported, "operation not permitted when stream is capturing") \
    _(901, STREAM_CAPTURE_INVALIDATED, StreamCaptureInvalidated,                                       \
      "operation failed due to a previous error during capture")                                       \
    _(906, STREAM_CAPTURE_IMPLICIT, StreamCaptureImplicit,                                             \
      "operation would make the legacy stream depend on a capturing blocking stream")

enum Error {
#define NUMBER(number, driver, runtime, text) driver = number,
    ERRORS(NUMBER)
#undef NUMBER
};

struct Settings {
    int major, minor;           // compute capability
    int devices;                // 1 or 2
    size_t shared_opt_in;       // bytes of shared memory a block may have, once its kernel asks for more than 48 KB
    int most_threads, most_blocks;  // that one multiprocessor holds at once
    bool idle;                  // kernels, products and copies within the device do nothing
    enum { UP, DOWN, BOTH } order;
};
extern const Settings settings;
const size_t SHARED_DEFAULT = 48 << 10;
const size_t SHARED_RESERVED = 1 << 10;  // that CUDA takes for itself from the multiprocessor's, for each block
const int MULTIPROCESSORS = 132;
// Bytes of shared memory of a multiprocessor.
size_t shared_of_multiprocessor();

// -- reports

// Writes one line to stderr and gives the error back, so that `return refuse(...)` reads well.
Error refuse(Error error, const char *format, ...) __attribute__((format(printf, 2, 3)));
// A line of CUDA_ON_CPU_LOG.
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
// The end of the process, for what the bench has not.
EXPORT [[noreturn]] void cuda_on_cpu_missing(const char *name);

// An error that leaves the context unusable, as an illegal address does: whatever comes next returns it too.
extern Error lost;
Error lose(Error error);

struct Counts {
    std::map<std::string, long> launches;
    long products = 0, to_device = 0, to_host = 0, on_device = 0, synchronizations = 0;
};
extern Counts counts;

// Every entry point holds it: CuPy releases Python's lock while it calls.
extern std::recursive_mutex one_at_a_time;
using Guard = std::lock_guard<std::recursive_mutex>;

// -- devices, streams

extern thread_local int current_device;

struct Operation;  // what a capture records
struct Stream {
    int device = 0;
    bool blocking = true;  // it and the default stream wait for each other
    bool capturing = false, relaxed = false, broken = false;
    std::vector<Operation *> captured;
};
// The stream behind a handle; `known` is false where there is none. The default stream is null.
Stream *find_stream(void *handle, bool &known);
// Whether work may go to that stream of the current device; outside of a capture and within.
Error usable(void *stream, const char *what);
// What may not be called while any stream captures; `strict`: nor while it does so in relaxed mode.
Error outside_capture(const char *what, bool strict);
bool capturing(void *stream);

// -- memory

struct Allocation {
    char *begin;
    size_t size;
    char *mapping;  // whole pages; what lies in them beside the allocation is the guard zone
    size_t mapped;
    int device;     // -1: of the host, pinned
};
Allocation *allocation_of(const void *address);
// Whether [address, address + size) lies in one allocation of a device; a line says why not.
bool within(const void *address, size_t size, const char *what);
// Whether the guard zones are untouched; `all` of them, or only 64 bytes at either side.
bool guards_hold(const Allocation &allocation, bool all);
Error check_guards();
void describe_address(const void *address, char *text, size_t size);
// While kernels of one device run, memory of the others is out of reach.
void hide_other_devices(int device);
void show_all_devices();

// -- kernels

struct Function {
    std::string name;
    const Kernel *kernel;       // null in idle mode
    size_t dynamic_limit = SHARED_DEFAULT;
    int device;
};
struct Launch {
    Function *function;
    unsigned grid[3], block[3];
    size_t shared;
    void **arguments;
    bool cooperative;           // all blocks at once
};
Error run_kernel(const Launch &launch);
// Blocks of so many threads, with so much dynamic shared memory, that one multiprocessor holds at once.
int blocks_at_once(const Function &function, size_t threads, size_t shared);

// A thread of a block whose threads wait for each other.
struct Fiber {
    void *stack_pointer;
    Waits waits;
    unsigned mask;             // while it waits for lanes of its warp
    unsigned long long value;  // what it hands over, then what it has received
    int from;
};
// Room for the stacks of so many blocks, with a page before each block's, or each thread's, that nobody may touch.
struct Stacks {
    char *begin;
    size_t apart, size;  // from one fiber's to the next, and all
    Stacks(int blocks, int threads, bool guard_each);
    ~Stacks();
    char *top(int block, int thread) const;
    int threads;
    bool guard_each;
};
struct Block {
    Place place;
    std::vector<Fiber> fibers;
    std::string shared, fixed;  // its shared memory while another block runs
};
void begin_fibers(Block &block, const Stacks &stacks, int index);
// Lets the threads of the current block run until each of them waits or has ended; false where none came further.
bool take_turns(Block &block, const Kernel &kernel, void **arguments, bool backwards);
bool have_ended(const Block &block);
// Why the threads of a block do not end.
void describe_waiting(const Block &block, char *why, size_t room);

// -- captures

struct Operation {
    virtual ~Operation() {}
    virtual Error run() = 0;
};
void capture(void *stream, Operation *operation);
