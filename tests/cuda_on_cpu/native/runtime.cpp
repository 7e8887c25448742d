// The runtime's functions for devices, streams, events and captures. What is copied into CuPy of the real runtime jumps
// here (`install.py`), function by function: `answer_` and its name.

#include "bench.hpp"

#include <cstdio>
#include <cstring>
#include <memory>
#include <set>

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
static const int MULTIPROCESSORS = 132, THREADS_PER_MULTIPROCESSOR = 2048, REGISTERS = 65536, L2_CACHE = 50 << 20;

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
        case 39: *value = THREADS_PER_MULTIPROCESSOR; return SUCCESS;    // MaxThreadsPerMultiProcessor
        case 41: *value = 1; return SUCCESS;                             // UnifiedAddressing
        case 75: *value = settings.major; return SUCCESS;                // ComputeCapabilityMajor
        case 76: *value = settings.minor; return SUCCESS;                // ComputeCapabilityMinor
        case 81: *value = (int)settings.shared_opt_in + 1024; return SUCCESS;  // MaxSharedMemoryPerMultiprocessor
        case 97: *value = (int)settings.shared_opt_in; return SUCCESS;   // MaxSharedMemoryPerBlockOptin
        case 17: case 18: case 20: *value = 0; return SUCCESS;           // KernelExecTimeout, Integrated, ComputeMode
        case 83: case 95: case 96: case 115: *value = 0; return SUCCESS; // ManagedMemory, CooperativeLaunch, MemoryPools
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
    found.global = (size_t)80 << 30, found.shared = SHARED_DEFAULT, found.registers = REGISTERS, found.warp = 32;
    found.threads = 1024, found.constants = 64 << 10, found.multiprocessors = MULTIPROCESSORS;
    const int block[] = {1024, 1024, 64}, grid[] = {0x7fffffff, 65535, 65535};
    memcpy(found.block, block, sizeof block), memcpy(found.grid, grid, sizeof grid);
    found.major = settings.major, found.minor = settings.minor;
    memcpy((char *)&found + 596, &L2_CACHE, sizeof(int));
    memcpy((char *)&found + 604, &THREADS_PER_MULTIPROCESSOR, sizeof(int));
    const size_t of_multiprocessor = settings.shared_opt_in + 1024;
    memcpy((char *)&found + 624, &of_multiprocessor, sizeof(size_t));
    memcpy((char *)&found + 632, &REGISTERS, sizeof(int));
    memcpy((char *)&found + 672, &settings.shared_opt_in, sizeof(size_t));
    memcpy(to, &found, sizeof found);
    return SUCCESS;
}
EXPORT int answer_cudaGetDeviceProperties_v2(void *to, int device) { return answer_cudaGetDeviceProperties(to, device); }
EXPORT int answer_cudaDeviceCanAccessPeer(int *can, int, int) {
    *can = 0;
    return SUCCESS;
}

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

// -- streams

static std::map<void *, std::unique_ptr<Stream>> streams;
static void *const LEGACY = (void *)1, *const PER_THREAD = (void *)2;

static bool is_default(void *stream) { return !stream || stream == LEGACY || stream == PER_THREAD; }

Stream *find_stream(void *handle, bool &known) {
    known = true;
    if (is_default(handle)) return nullptr;
    const auto found = streams.find(handle);
    known = found != streams.end();
    return known ? found->second.get() : nullptr;
}

// A stream that captures and that the default stream would wait for.
static Stream *capturing_stream() {
    for (const auto &entry : streams)
        if (entry.second->capturing && entry.second->blocking) return entry.second.get();
    return nullptr;
}

bool capturing(void *handle) {
    bool known;
    const Stream *const stream = find_stream(handle, known);
    return stream && stream->capturing;
}

Error usable(void *handle, const char *what) {
    if (lost) return lost;
    bool known;
    Stream *const stream = find_stream(handle, known);
    if (!known) return refuse(INVALID_HANDLE, "%s: stream %p does not exist", what, handle);
    if (stream && stream->device != current_device)
        return refuse(INVALID_HANDLE, "%s: the stream belongs to device %d, the current one is %d", what, stream->device,
                      current_device);
    Stream *const captures = stream ? nullptr : capturing_stream();
    if (captures) {
        captures->broken = true;
        return refuse(STREAM_CAPTURE_IMPLICIT, "%s: the default stream is used while another stream captures", what);
    }
    return SUCCESS;
}

Error outside_capture(const char *what) {
    Guard guard(one_at_a_time);
    if (lost) return lost;
    Stream *const stream = capturing_stream();
    if (!stream) return SUCCESS;
    stream->broken = true;
    return refuse(STREAM_CAPTURE_UNSUPPORTED, "%s is called while a stream captures", what);
}

EXPORT int answer_cudaStreamCreateWithFlags(void **handle, unsigned flags) {
    Guard guard(one_at_a_time);
    const bool blocking = !(flags & 1);
    auto stream = std::make_unique<Stream>(Stream());
    stream->device = current_device, stream->blocking = blocking;
    *handle = stream.get();
    streams[*handle] = std::move(stream);
    return lost;
}
EXPORT int answer_cudaStreamCreate(void **handle) { return answer_cudaStreamCreateWithFlags(handle, 0); }
EXPORT int answer_cudaStreamCreateWithPriority(void **handle, unsigned flags, int) {
    return answer_cudaStreamCreateWithFlags(handle, flags);
}
EXPORT int answer_cudaStreamDestroy(void *handle) {
    Guard guard(one_at_a_time);
    return streams.erase(handle) ? lost : refuse(INVALID_HANDLE, "cudaStreamDestroy: no stream %p", handle);
}

static int synchronize(const char *what, void *stream) {
    Guard guard(one_at_a_time);
    note("synchronize: %s", what);
    counts.synchronizations++;
    bool known;
    Stream *const found = find_stream(stream, known);
    if (!known) return refuse(INVALID_HANDLE, "%s: stream %p does not exist", what, stream);
    Stream *const captures = found ? (found->capturing ? found : nullptr) : capturing_stream();
    if (captures) {
        captures->broken = true;
        return refuse(STREAM_CAPTURE_UNSUPPORTED, "%s is called while a stream captures", what);
    }
    return check_guards();
}
EXPORT int answer_cudaDeviceSynchronize() { return synchronize("cudaDeviceSynchronize", nullptr); }
EXPORT int answer_cudaStreamSynchronize(void *stream) { return synchronize("cudaStreamSynchronize", stream); }
EXPORT int answer_cudaStreamQuery(void *stream) {
    return capturing(stream) ? outside_capture("cudaStreamQuery") : lost;
}

// -- events

struct Event {
    int device;
    bool recorded = false;
};
static std::set<Event *> events;

EXPORT int answer_cudaEventCreateWithFlags(Event **event, unsigned) {
    Guard guard(one_at_a_time);
    events.insert(*event = new Event{current_device});
    return lost;
}
EXPORT int answer_cudaEventCreate(Event **event) { return answer_cudaEventCreateWithFlags(event, 0); }
EXPORT int answer_cudaEventDestroy(Event *event) {
    Guard guard(one_at_a_time);
    if (!events.erase(event)) return refuse(INVALID_HANDLE, "cudaEventDestroy: no event %p", (void *)event);
    delete event;
    return lost;
}
EXPORT int answer_cudaEventRecord(Event *event, void *handle) {
    Guard guard(one_at_a_time);
    if (!events.count(event)) return refuse(INVALID_HANDLE, "cudaEventRecord: no event %p", (void *)event);
    bool known;
    const Stream *const stream = find_stream(handle, known);
    const int device = stream ? stream->device : current_device;
    if (!known || device != event->device)
        return refuse(INVALID_HANDLE, "cudaEventRecord: the event belongs to device %d, the stream to %d", event->device, device);
    event->recorded = true;
    return lost;
}
EXPORT int answer_cudaStreamWaitEvent(void *handle, Event *event, unsigned) {
    Guard guard(one_at_a_time);
    bool known;
    find_stream(handle, known);
    if (!known || !events.count(event)) return refuse(INVALID_HANDLE, "cudaStreamWaitEvent: no such stream or event");
    return lost;
}
EXPORT int answer_cudaEventSynchronize(Event *event) {
    Guard guard(one_at_a_time);
    if (!events.count(event)) return refuse(INVALID_HANDLE, "cudaEventSynchronize: no event %p", (void *)event);
    return synchronize("cudaEventSynchronize", nullptr);
}
EXPORT int answer_cudaEventQuery(Event *) { return lost; }
// A device's time is not there; a constant keeps programs that divide by it alive.
EXPORT int answer_cudaEventElapsedTime(float *milliseconds, Event *from, Event *to) {
    Guard guard(one_at_a_time);
    if (!events.count(from) || !events.count(to) || !from->recorded || !to->recorded)
        return refuse(INVALID_HANDLE, "cudaEventElapsedTime: both events must have been recorded");
    *milliseconds = 1;
    return lost;
}
EXPORT int answer_cudaEventElapsedTime_v2(float *milliseconds, Event *from, Event *to) {
    return answer_cudaEventElapsedTime(milliseconds, from, to);
}

// -- captures and graphs: a list of operations in the order of the stream

struct Graph {
    std::vector<std::shared_ptr<Operation>> operations;
};

void capture(void *handle, Operation *operation) { streams[handle]->captured.push_back(operation); }

EXPORT int answer_cudaStreamBeginCapture(void *handle, int) {
    Guard guard(one_at_a_time);
    bool known;
    Stream *const stream = find_stream(handle, known);
    if (!stream || stream->capturing)
        return refuse(STREAM_CAPTURE_UNSUPPORTED, "cudaStreamBeginCapture: neither the default stream nor one that captures already");
    stream->capturing = true, stream->broken = false;
    return lost;
}
EXPORT int answer_cudaStreamIsCapturing(void *handle, int *status) {
    Guard guard(one_at_a_time);
    bool known;
    const Stream *const stream = find_stream(handle, known);
    if (!stream && capturing_stream() && handle != PER_THREAD) return STREAM_CAPTURE_IMPLICIT;
    *status = stream && stream->capturing ? 1 + stream->broken : 0;
    return known ? lost : INVALID_HANDLE;
}
EXPORT int answer_cudaStreamEndCapture(void *handle, Graph **graph) {
    Guard guard(one_at_a_time);
    bool known;
    Stream *const stream = find_stream(handle, known);
    if (!stream || !stream->capturing) return refuse(INVALID_VALUE, "cudaStreamEndCapture: this stream captures nothing");
    auto found = std::make_unique<Graph>();
    for (Operation *operation : stream->captured) found->operations.emplace_back(operation);
    stream->captured.clear();
    stream->capturing = false;
    *graph = stream->broken ? nullptr : found.release();
    return stream->broken ? STREAM_CAPTURE_INVALIDATED : lost;
}
EXPORT int answer_cudaGraphInstantiate(Graph **runnable, Graph *graph, unsigned long long) {
    *runnable = new Graph(*graph);
    return lost;
}
EXPORT int answer_cudaGraphInstantiate_v2(Graph **runnable, Graph *graph, unsigned long long flags) {
    return answer_cudaGraphInstantiate(runnable, graph, flags);
}
EXPORT int answer_cudaGraphUpload(Graph *, void *) { return lost; }
EXPORT int answer_cudaGraphLaunch(Graph *graph, void *stream) {
    Guard guard(one_at_a_time);
    if (const Error error = usable(stream, "cudaGraphLaunch")) return error;
    note("graph: %zu operations", graph->operations.size());
    for (const auto &operation : graph->operations)
        if (const Error error = operation->run()) return error;
    return SUCCESS;
}
EXPORT int answer_cudaGraphDestroy(Graph *graph) {
    delete graph;
    return lost;
}
EXPORT int answer_cudaGraphExecDestroy(Graph *graph) { return answer_cudaGraphDestroy(graph); }

// -- profilers see nothing

EXPORT int answer_cudaProfilerStart() { return SUCCESS; }
EXPORT int answer_cudaProfilerStop() { return SUCCESS; }
