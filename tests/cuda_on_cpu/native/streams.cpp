// Streams, events, captures. All work is done when the call that asks for it returns, so that streams are only checked.

#include <memory>
#include <set>

#include "bench.hpp"

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
        return refuse(INVALID_HANDLE, "%s: the stream belongs to device %d, the current one is %d", what,
                      stream->device, current_device);
    Stream *const captures = stream ? nullptr : capturing_stream();
    if (captures) {
        captures->broken = true;
        return refuse(STREAM_CAPTURE_IMPLICIT, "%s: the default stream is used while another stream captures", what);
    }
    return SUCCESS;
}

Error outside_capture(const char *what, bool strict) {
    Guard guard(one_at_a_time);
    if (lost) return lost;
    Stream *const stream = capturing_stream();
    if (!stream || (stream->relaxed && !strict)) return SUCCESS;
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
    return capturing(stream) ? outside_capture("cudaStreamQuery", true) : lost;
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
        return refuse(INVALID_HANDLE, "cudaEventRecord: the event belongs to device %d, the stream to %d",
                      event->device, device);
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

EXPORT int answer_cudaStreamBeginCapture(void *handle, int mode) {
    Guard guard(one_at_a_time);
    bool known;
    Stream *const stream = find_stream(handle, known);
    if (!stream || stream->capturing)
        return refuse(STREAM_CAPTURE_UNSUPPORTED,
                      "cudaStreamBeginCapture: neither the default stream nor one that captures already");
    const int relaxed = 2;
    stream->capturing = true, stream->relaxed = mode == relaxed, stream->broken = false;
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
    if (!stream || !stream->capturing)
        return refuse(INVALID_VALUE, "cudaStreamEndCapture: this stream captures nothing");
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
