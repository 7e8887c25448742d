// Settings, reports and counts.

#include "bench.hpp"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unistd.h>

std::recursive_mutex one_at_a_time;
Counts counts;
Error lost = SUCCESS;

static const char *setting(const char *name, const char *otherwise) {
    const char *const value = getenv(name);
    return value && *value ? value : otherwise;
}

// Kilobytes of shared memory for a block, threads and blocks of a multiprocessor: "Technical Specifications per Compute
// Capability" in CUDA's guide.
static const struct {
    const char *capability;
    int kilobytes, threads, blocks;
} LIMITS[] = {{"7.5", 64, 1024, 16},  {"8.0", 163, 2048, 32},  {"8.6", 99, 1536, 16},  {"8.9", 99, 1536, 24},
              {"9.0", 227, 2048, 32}, {"10.0", 227, 2048, 32}, {"12.0", 99, 1536, 24}};

[[noreturn]] static void bad_setting(const char *name, const char *value, const char *allowed) {
    fprintf(stderr, "cuda_on_cpu: %s is %s, must be one of: %s\n", name, value, allowed);
    _exit(70);
}

static Settings read_settings() {
    Settings found = {};
    const char *const capability = setting("CUDA_ON_CPU_CAPABILITY", "9.0");
    for (const auto &row : LIMITS)
        if (!strcmp(row.capability, capability)) {
            found.shared_opt_in = (size_t)row.kilobytes << 10;
            found.most_threads = row.threads, found.most_blocks = row.blocks;
        }
    if (!found.shared_opt_in) bad_setting("CUDA_ON_CPU_CAPABILITY", capability, "7.5 8.0 8.6 8.9 9.0 10.0 12.0");
    sscanf(capability, "%d.%d", &found.major, &found.minor);
    found.devices = atoi(setting("CUDA_ON_CPU_DEVICES", "1"));
    if (found.devices < 1 || found.devices > 2)
        bad_setting("CUDA_ON_CPU_DEVICES", getenv("CUDA_ON_CPU_DEVICES"), "1 2");
    const std::string mode = setting("CUDA_ON_CPU_MODE", "run"), order = setting("CUDA_ON_CPU_ORDER", "up");
    if (mode != "run" && mode != "idle") bad_setting("CUDA_ON_CPU_MODE", mode.c_str(), "run idle");
    if (order != "up" && order != "down" && order != "both")
        bad_setting("CUDA_ON_CPU_ORDER", order.c_str(), "up down both");
    found.idle = mode == "idle";
    found.order = order == "up" ? Settings::UP : order == "down" ? Settings::DOWN : Settings::BOTH;
    return found;
}
const Settings settings = read_settings();

Error refuse(Error error, const char *format, ...) {
    char text[600];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "cuda_on_cpu: %s\n", text);
    return error;
}

EXPORT [[noreturn]] void cuda_on_cpu_missing(const char *name) {
    fprintf(stderr, "cuda_on_cpu: %s is not there\n", name);
    abort();
}

void note(const char *format, ...) {
    static FILE *const file = getenv("CUDA_ON_CPU_LOG") ? fopen(getenv("CUDA_ON_CPU_LOG"), "a") : nullptr;
    if (!file) return;
    va_list arguments;
    va_start(arguments, format);
    vfprintf(file, format, arguments);
    va_end(arguments);
    fputc('\n', file);
    fflush(file);
}

Error lose(Error error) { return lost = error; }

// What `counts.py` reads: a line for each count, launches with the kernel's name.
EXPORT const char *cuda_on_cpu_counts() {
    Guard guard(one_at_a_time);
    static std::string text;
    const auto line = [](const char *name, long count) { text += std::to_string(count) + " " + name + "\n"; };
    text.clear();
    line("products", counts.products), line("to_device", counts.to_device), line("to_host", counts.to_host);
    line("on_device", counts.on_device), line("synchronizations", counts.synchronizations);
    for (const auto &entry : counts.launches) line(("launches " + entry.first).c_str(), entry.second);
    return text.c_str();
}

// For the library that stands for cuBLAS.
EXPORT int cuda_on_cpu_idle() { return settings.idle; }
EXPORT int cuda_on_cpu_major() { return settings.major; }
EXPORT int cuda_on_cpu_product(const char *name, int m, int n, int k, int count, void *stream) {
    Guard guard(one_at_a_time);
    if (lost) return lost;
    counts.products++;
    note("product %s: %d x %d x %d, %d times", name, m, n, k, count);
    if (capturing(stream)) return refuse(STREAM_CAPTURE_UNSUPPORTED, "%s is called while its stream captures", name);
    return usable(stream, name);
}
EXPORT int cuda_on_cpu_device() { return current_device; }
EXPORT int cuda_on_cpu_within(const void *address, size_t size, const char *what) {
    Guard guard(one_at_a_time);
    if (!within(address, size, what)) return false;
    if (!size || allocation_of(address)->device == current_device) return true;
    refuse(ILLEGAL_ADDRESS, "%s: an operand is of device %d, the current one is %d", what,
           allocation_of(address)->device, current_device);
    lose(ILLEGAL_ADDRESS);
    return false;
}
