// Memory of the devices: the host's, one mapping for each allocation.
//
//     | no access | guard bytes | allocation | guard bytes (0 to 15) | no access |
//
// An allocation ends within 16 bytes of a page that cannot be touched, so that a kernel that runs past its end stops at
// once; what it writes between is found later, by the guard bytes. Fresh memory is 0xff throughout: NaN in any dtype.

#include <cstdio>
#include <cstring>
#include <sys/mman.h>
#include <unistd.h>

#include "bench.hpp"

static const size_t PAGE = 4096, ALIGNMENT = 16;
static const unsigned char GUARD = 0xa5, POISON = 0xff;
static std::map<const char *, Allocation> allocations;  // by where they begin
static size_t in_use[2];
static const size_t TOTAL = (size_t)80 << 30;

static Error allocate(void **address, size_t size, int device) {
    Guard guard(one_at_a_time);
    if (lost) return lost;
    if (device >= 0 && in_use[device] + size > TOTAL) return OUT_OF_MEMORY;
    const size_t pages = (size + ALIGNMENT + PAGE - 1) / PAGE * PAGE;
    char *const mapping = (char *)mmap(nullptr, pages + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED || mprotect(mapping + PAGE, pages, PROT_READ | PROT_WRITE))
        return refuse(OUT_OF_MEMORY, "the system has no room for another allocation of %zu bytes (%zu are alive)", size,
                      allocations.size());
    char *const begin = mapping + PAGE + (pages - size) / ALIGNMENT * ALIGNMENT;
    memset(mapping + PAGE, GUARD, begin - mapping - PAGE);
    memset(begin, POISON, size);
    memset(begin + size, GUARD, mapping + PAGE + pages - begin - size);
    allocations[begin] = {begin, size, mapping, pages + 2 * PAGE, device};
    if (device >= 0) in_use[device] += size;
    *address = begin;
    return SUCCESS;
}

static Error release(void *address, bool of_host) {
    Guard guard(one_at_a_time);
    if (!address) return SUCCESS;
    const auto found = allocations.find((const char *)address);
    if (found == allocations.end() || (found->second.device < 0) != of_host)
        return refuse(INVALID_VALUE, "%p is freed, which is no allocation", address);
    const Allocation allocation = found->second;
    const bool held = guards_hold(allocation, true);
    if (allocation.device >= 0) in_use[allocation.device] -= allocation.size;
    munmap(allocation.mapping, allocation.mapped);
    allocations.erase(found);
    return held ? lost : lose(ILLEGAL_ADDRESS);
}

Allocation *allocation_of(const void *address) {
    auto next = allocations.upper_bound((const char *)address);
    if (next == allocations.begin()) return nullptr;
    Allocation &before = (--next)->second;
    const bool inside = (const char *)address < before.begin + (before.size ? before.size : 1);
    return inside ? &before : nullptr;
}

bool within(const void *address, size_t size, const char *what) {
    if (size == 0) return true;
    const Allocation *const found = allocation_of(address);
    if (found && found->device >= 0 && (const char *)address + size <= found->begin + found->size) return true;
    char text[200];
    describe_address(address, text, sizeof text);
    refuse(INVALID_VALUE, "%s: %zu bytes of %s", what, size, text);
    return false;
}

static bool all_guard(const char *from, const char *to) {
    for (; from < to; from++)
        if ((unsigned char)*from != GUARD) return false;
    return true;
}

static bool violated = false;

bool guards_hold(const Allocation &allocation, bool all) {
    const char *low = allocation.mapping + PAGE, *const end = allocation.begin + allocation.size;
    if (!all && allocation.begin - low > 64) low = allocation.begin - 64;
    const bool before = all_guard(low, allocation.begin);
    const bool after = all_guard(end, allocation.mapping + allocation.mapped - PAGE);
    if (before && after) return true;
    violated = true;
    refuse(ILLEGAL_ADDRESS, "something was written right %s an allocation of %zu bytes", before ? "behind" : "before",
           allocation.size);
    return false;
}

Error check_guards() {
    if (lost) return lost;
    for (const auto &entry : allocations)
        if (!guards_hold(entry.second, false)) return lose(ILLEGAL_ADDRESS);
    return SUCCESS;
}

// What is near an address, in words.
void describe_address(const void *address, char *text, size_t size) {
    const char *const at = (const char *)address;
    for (const auto &entry : allocations) {
        const Allocation &one = entry.second;
        if (at < one.mapping || at >= one.mapping + one.mapped) continue;
        const char *const owner = one.device < 0 ? "the host" : one.device ? "device 1" : "device 0";
        if (at < one.begin)
            snprintf(text, size, "an address %zu bytes before an allocation of %zu bytes of %s", (size_t)(one.begin - at), one.size, owner);
        else
            snprintf(text, size, "an address %zu bytes into an allocation of %zu bytes of %s", (size_t)(at - one.begin), one.size, owner);
        return;
    }
    snprintf(text, size, "address %p, which belongs to no allocation", address);
}

static void protect(int device, bool only_others, int protection) {
    for (const auto &entry : allocations) {
        const Allocation &one = entry.second;
        if (one.device >= 0 && (one.device != device || !only_others))
            mprotect(one.mapping + PAGE, one.mapped - 2 * PAGE, protection);
    }
}
void hide_other_devices(int device) {
    if (settings.devices > 1) protect(device, true, PROT_NONE);
}
void show_all_devices() {
    if (settings.devices > 1) protect(0, false, PROT_READ | PROT_WRITE);
}

// -- the runtime's functions

EXPORT int answer_cudaMalloc(void **address, size_t size) {
    const Error error = outside_capture("cudaMalloc");
    return error ? error : allocate(address, size, current_device);
}
EXPORT int answer_cudaFree(void *address) { return release(address, false); }
EXPORT int answer_cudaHostAlloc(void **address, size_t size, unsigned) { return allocate(address, size, -1); }
EXPORT int answer_cudaMallocHost(void **address, size_t size) { return allocate(address, size, -1); }
EXPORT int answer_cudaFreeHost(void *address) { return release(address, true); }
EXPORT int answer_cudaMemGetInfo(size_t *available, size_t *total) {
    *total = TOTAL, *available = TOTAL - in_use[current_device];
    return lost;
}

// The runtime's struct; CUDA 13 and 12 agree in it.
struct PointerAttributes {
    int type, device;  // type: 0 unknown to CUDA, 1 host, 2 device
    void *of_device, *of_host;
};
EXPORT int answer_cudaPointerGetAttributes(PointerAttributes *attributes, const void *address) {
    Guard guard(one_at_a_time);
    const Allocation *const found = allocation_of(address);
    *attributes = {0, found && found->device > 0 ? 1 : 0, nullptr, nullptr};
    if (found) attributes->type = found->device < 0 ? 1 : 2;
    if (!found || found->device < 0) attributes->of_host = (void *)address;
    if (found) attributes->of_device = (void *)address;
    return lost;
}

enum Direction { HOST_TO_HOST, TO_DEVICE, TO_HOST, ON_DEVICE, BY_ADDRESS };

static bool on_device(const void *address) {
    const Allocation *const found = allocation_of(address);
    return found && found->device >= 0;
}

static Error copy(void *to, const void *from, size_t size, int direction) {
    Guard guard(one_at_a_time);
    if (lost) return lost;
    if (direction == BY_ADDRESS) direction = 2 * on_device(from) + on_device(to);
    if (direction != HOST_TO_HOST && direction != TO_HOST && !within(to, size, "a copy to a device")) return INVALID_VALUE;
    if (direction != HOST_TO_HOST && direction != TO_DEVICE && !within(from, size, "a copy from a device")) return INVALID_VALUE;
    static const char *const names[] = {"on host", "to device", "to host", "on device"};
    note("copy %s: %zu bytes", names[direction], size);
    counts.to_device += direction == TO_DEVICE, counts.to_host += direction == TO_HOST;
    counts.on_device += direction == ON_DEVICE;
    if (!(settings.idle && direction == ON_DEVICE)) memmove(to, from, size);
    return SUCCESS;
}

static Error fill(void *to, int value, size_t size) {
    Guard guard(one_at_a_time);
    if (lost) return lost;
    if (!within(to, size, "cudaMemset")) return INVALID_VALUE;
    note("fill: %zu bytes", size);
    counts.on_device++;
    if (!settings.idle) memset(to, value, size);
    return SUCCESS;
}

struct Copy : Operation {
    void *to;
    const void *from;
    size_t size;
    int direction;
    Copy(void *to, const void *from, size_t size, int direction) : to(to), from(from), size(size), direction(direction) {}
    Error run() override { return copy(to, from, size, direction); }
};
struct Fill : Operation {
    void *to;
    int value;
    size_t size;
    Fill(void *to, int value, size_t size) : to(to), value(value), size(size) {}
    Error run() override { return fill(to, value, size); }
};

EXPORT int answer_cudaMemcpyAsync(void *to, const void *from, size_t size, int direction, void *stream) {
    Guard guard(one_at_a_time);
    if (const Error error = usable(stream, "cudaMemcpyAsync")) return error;
    if (!capturing(stream)) return copy(to, from, size, direction);
    capture(stream, new Copy(to, from, size, direction));
    return SUCCESS;
}
EXPORT int answer_cudaMemcpy(void *to, const void *from, size_t size, int direction) {
    const Error error = outside_capture("cudaMemcpy");
    return error ? error : copy(to, from, size, direction);
}
EXPORT int answer_cudaMemcpyPeerAsync(void *to, int, const void *from, int, size_t size, void *stream) {
    return answer_cudaMemcpyAsync(to, from, size, ON_DEVICE, stream);
}
EXPORT int answer_cudaMemcpyPeer(void *to, int, const void *from, int, size_t size) {
    return answer_cudaMemcpy(to, from, size, ON_DEVICE);
}
EXPORT int answer_cudaMemsetAsync(void *to, int value, size_t size, void *stream) {
    Guard guard(one_at_a_time);
    if (const Error error = usable(stream, "cudaMemsetAsync")) return error;
    if (!capturing(stream)) return fill(to, value, size);
    capture(stream, new Fill(to, value, size));
    return SUCCESS;
}
EXPORT int answer_cudaMemset(void *to, int value, size_t size) {
    const Error error = outside_capture("cudaMemset");
    return error ? error : fill(to, value, size);
}

// A guard zone that was written to makes its process fail, also where nobody heard of it: Python ignores errors of what
// it releases, and the rest is looked at last.
struct AtExit {
    ~AtExit() {
        for (const auto &entry : allocations) guards_hold(entry.second, true);
        if (violated) _exit(70);
    }
};
static AtExit at_exit;
