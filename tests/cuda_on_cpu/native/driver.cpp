// The driver's functions that CuPy looks up by name: contexts, modules, kernels and their launches.

#include <cstdio>
#include <cstring>
#include <dlfcn.h>
#include <memory>

#include "bench.hpp"

EXPORT int cuInit(unsigned) { return SUCCESS; }
EXPORT int cuGetErrorName(int error, const char **name) {
    *name = nullptr;
#define NAME(number, driver, runtime, text) \
    if (error == number) *name = number ? "CUDA_ERROR_" #driver : "CUDA_SUCCESS";
    ERRORS(NAME)
#undef NAME
    return *name ? SUCCESS : INVALID_VALUE;
}
EXPORT int cuGetErrorString(int error, const char **string) {
    *string = nullptr;
#define TEXT(number, driver, runtime, text) \
    if (error == number) *string = text;
    ERRORS(TEXT)
#undef TEXT
    return *string ? SUCCESS : INVALID_VALUE;
}

// -- a context for each device, whose handle is the device's number plus 1

EXPORT int cuCtxGetCurrent(void **context) {
    *context = (void *)(size_t)(current_device + 1);
    return lost;
}
EXPORT int cuCtxSetCurrent(void *context) {
    if (context) current_device = (int)(size_t)context - 1;
    return lost;
}
EXPORT int cuCtxGetDevice(int *device) {
    *device = current_device;
    return lost;
}
EXPORT int cuDevicePrimaryCtxRelease_v2(int) { return lost; }
EXPORT int cuStreamGetCtx(void *stream, void **context) {
    Guard guard(one_at_a_time);
    bool known;
    const Stream *const found = find_stream(stream, known);
    if (!known) return INVALID_HANDLE;
    *context = (void *)(size_t)((found ? found->device : current_device) + 1);
    return lost;
}

// -- modules: a shared library that `kernels.py` compiled, in the place of device code

struct Module {
    void *library;  // null in idle mode
    int device;
    std::string path;
};
static const char IMAGE[] = "cuda_on_cpu:";

EXPORT int cuModuleLoadData(Module **module, const char *image) {
    Guard guard(one_at_a_time);
    if (strncmp(image, IMAGE, sizeof IMAGE - 1))
        return refuse(INVALID_SOURCE, "cuModuleLoadData: an image that the bench did not make");
    auto made = std::make_unique<Module>(Module{nullptr, current_device, image + sizeof IMAGE - 1});
    if (!made->path.empty()) made->library = dlopen(made->path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!made->path.empty() && !made->library) return refuse(INVALID_SOURCE, "%s", dlerror());
    *module = made.release();
    return lost;
}
EXPORT int cuModuleUnload(Module *module) {
    delete module;  // the library stays: its kernels are few, and a capture may hold them
    return lost;
}
EXPORT int cuModuleGetFunction(Function **function, Module *module, const char *name) {
    Guard guard(one_at_a_time);
    const Kernel *kernel = nullptr;
    if (module->library) {
        kernel = (const Kernel *)dlsym(module->library, (std::string("cuda_on_cpu_kernel_") + name).c_str());
        if (!kernel) return refuse(NOT_FOUND, "kernel %s is not in its module", name);
    }
    const size_t fixed = kernel ? kernel->shared_end - kernel->shared_begin : 0;
    if (fixed > SHARED_DEFAULT)
        return refuse(INVALID_SOURCE, "kernel %s has more than 48 KB of static shared memory", name);
    *function = new Function{name, kernel, SHARED_DEFAULT - fixed, module->device};
    return lost;
}

enum Attribute { MAX_THREADS = 0, SHARED_SIZE = 1, MAX_DYNAMIC_SHARED = 8, CARVEOUT = 9 };

EXPORT int cuFuncGetAttribute(int *value, int attribute, Function *function) {
    const Kernel *const kernel = function->kernel;
    *value = 0;  // versions, local bytes, registers: a compiler for the device would know
    if (attribute == MAX_THREADS) *value = kernel ? kernel->max_threads : 1024;
    if (attribute == SHARED_SIZE) *value = kernel ? (int)(kernel->shared_end - kernel->shared_begin) : 0;
    if (attribute == MAX_DYNAMIC_SHARED) *value = (int)function->dynamic_limit;
    return lost;
}
EXPORT int cuFuncSetAttribute(Function *function, int attribute, int value) {
    if (attribute == CARVEOUT) return lost;
    if (attribute != MAX_DYNAMIC_SHARED)
        return refuse(INVALID_VALUE, "cuFuncSetAttribute: the bench does not know attribute %d", attribute);
    const size_t fixed = function->kernel ? function->kernel->shared_end - function->kernel->shared_begin : 0;
    if (value < 0 || value + fixed > settings.shared_opt_in)
        return refuse(INVALID_VALUE,
                      "kernel %s wants %d bytes of shared memory beside %zu of its own, the device has %zu for a block",
                      function->name.c_str(), value, fixed, settings.shared_opt_in);
    function->dynamic_limit = value;
    return lost;
}
EXPORT int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, Function *function, int threads, size_t shared) {
    if (threads < 1) return refuse(INVALID_VALUE, "the occupancy of blocks of %d threads", threads);
    *blocks = blocks_at_once(*function, threads, shared);
    return lost;
}
EXPORT int cuOccupancyMaxPotentialBlockSize(int *grid, int *block, Function *, void *, size_t, int limit) {
    *grid = MULTIPROCESSORS, *block = limit && limit < 256 ? limit : 256;
    return lost;
}

struct KernelLaunch : Operation {
    Launch launch;
    std::vector<std::string> values;
    std::vector<void *> arguments;
    KernelLaunch(const Launch &launch) : launch(launch) {
        for (int i = 0; launch.function->kernel && i < launch.function->kernel->count; i++)
            values.emplace_back((const char *)launch.arguments[i], launch.function->kernel->sizes[i]);
        for (std::string &value : values) arguments.push_back(value.data());
        this->launch.arguments = arguments.data();
    }
    Error run() override { return run_kernel(launch); }
};

static int launch_on(void *stream, const Launch &launch) {
    Guard guard(one_at_a_time);
    if (const Error error = usable(stream, launch.function->name.c_str())) return error;
    if (!capturing(stream)) return run_kernel(launch);
    capture(stream, new KernelLaunch(launch));
    return SUCCESS;
}
EXPORT int cuLaunchKernel(Function *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                          unsigned bz, unsigned shared, void *stream, void **arguments, void **) {
    return launch_on(stream, {function, {gx, gy, gz}, {bx, by, bz}, shared, arguments, false});
}
EXPORT int cuLaunchCooperativeKernel(Function *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx,
                                     unsigned by, unsigned bz, unsigned shared, void *stream, void **arguments) {
    return launch_on(stream, {function, {gx, gy, gz}, {bx, by, bz}, shared, arguments, true});
}

// -- what CuPy looks up as well
#define MISSING(name) \
    EXPORT int name() { cuda_on_cpu_missing(#name); }
MISSING(cuCtxCreate_v2)
MISSING(cuCtxCreate_v4)
MISSING(cuCtxDestroy_v2)
MISSING(cuLinkAddData_v2)
MISSING(cuLinkAddFile_v2)
MISSING(cuLinkComplete)
MISSING(cuLinkCreate_v2)
MISSING(cuLinkDestroy)
MISSING(cuModuleGetGlobal_v2)
MISSING(cuModuleLoad)
