// Devices, streams, events and kernels of the CUDA runtime. A kernel is never run; how many of its blocks fit a multiprocessor is reckoned
// from the card's limits for a kernel of 32 registers a thread, since the kernels' own numbers are only known to a driver.
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "card.h"

namespace standin {
namespace {

constexpr int REGISTERS_OF_A_THREAD = 32;

thread_local int device = 0;
thread_local int last_error = cudaSuccess;

int resident_blocks(int threads, size_t shared) {
    const Card& c = card();
    if (threads < 1) return 1;
    int most = std::min(c.blocks_per_multiprocessor, c.threads_per_multiprocessor / threads);
    most = std::min(most, c.registers / (REGISTERS_OF_A_THREAD * threads));
    size_t each = shared ? shared + c.shared_reserved : 0;
    if (each) most = std::min<int>(most, c.shared_per_multiprocessor() / each);
    return std::max(most, 1);
}

CUresult device_get(CUdevice* found, int ordinal) {
    *found = ordinal;
    return CUDA_SUCCESS;
}

CUresult context_state(CUdevice, unsigned* flags, int* active) {
    if (flags) *flags = 0;
    if (active) *active = 1;
    return CUDA_SUCCESS;
}

CUresult current_context(CUcontext* found) {
    *found = reinterpret_cast<CUcontext>(1);
    return CUDA_SUCCESS;
}

CUresult device_attribute(int* value, CUdevice_attribute which, CUdevice) {
    bool virtual_memory = which == CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED ||
                          which == CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED;
    *value = virtual_memory ? 1 : attribute(which);
    return CUDA_SUCCESS;
}

int succeed() { return 0; }

int launched() {
    something_runs();
    return 0;
}

}  // namespace

int current_device() { return device; }

int failed(int error) { return last_error = error; }

int attribute(int which) {
    const Card& c = card();
    switch (which) {
        case cudaDevAttrMaxThreadsPerBlock:
        case cudaDevAttrMaxBlockDimX:
        case cudaDevAttrMaxBlockDimY: return c.threads_per_block;
        case cudaDevAttrMaxBlockDimZ: return 64;
        case cudaDevAttrMaxGridDimX: return 2147483647;
        case cudaDevAttrMaxGridDimY:
        case cudaDevAttrMaxGridDimZ: return 65535;
        case cudaDevAttrWarpSize: return 32;
        case cudaDevAttrMultiProcessorCount: return c.multiprocessors;
        case cudaDevAttrMaxThreadsPerMultiProcessor: return c.threads_per_multiprocessor;
        case cudaDevAttrMaxBlocksPerMultiprocessor: return c.blocks_per_multiprocessor;
        case cudaDevAttrComputeCapabilityMajor: return c.major;
        case cudaDevAttrComputeCapabilityMinor: return c.minor;
        case cudaDevAttrMaxSharedMemoryPerBlock: return c.shared_per_block;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: return c.shared_per_block_optin;
        case cudaDevAttrMaxSharedMemoryPerMultiprocessor: return c.shared_per_multiprocessor();
        case cudaDevAttrReservedSharedMemoryPerBlock: return c.shared_reserved;
        case cudaDevAttrMaxRegistersPerBlock:
        case cudaDevAttrMaxRegistersPerMultiprocessor: return c.registers;
        case cudaDevAttrL2CacheSize: return c.l2_bytes;
        case cudaDevAttrClockRate: return c.sm_clock_khz;
        case cudaDevAttrMemoryClockRate: return c.memory_clock_khz;
        case cudaDevAttrTextureAlignment: return 512;
        case cudaDevAttrCooperativeLaunch:
        case cudaDevAttrUnifiedAddressing:
        case cudaDevAttrConcurrentKernels: return 1;
        default: return 0;
    }
}

void* device_entry(const std::string& name) {
    if (name == "cuDeviceGet") return reinterpret_cast<void*>(device_get);
    if (name == "cuDeviceGetAttribute") return reinterpret_cast<void*>(device_attribute);
    if (name == "cuDevicePrimaryCtxGetState") return reinterpret_cast<void*>(context_state);
    if (name == "cuCtxGetCurrent") return reinterpret_cast<void*>(current_context);
    return nullptr;
}

void* driver_entry(const std::string& name) {
    if (void* found = memory_entry(name)) return found;
    if (void* found = device_entry(name)) return found;
    if (name.rfind("cuLaunch", 0) == 0 || name.rfind("cuMemset", 0) == 0) return reinterpret_cast<void*>(launched);
    return reinterpret_cast<void*>(succeed);
}

}  // namespace standin

using namespace standin;

// For libcuda.so.1.
ANSWER int standin_attribute(int which) { return attribute(which); }

// devices

ANSWER cudaError_t cudaGetDeviceCount(int* count) {
    *count = card().count;
    return cudaSuccess;
}

ANSWER cudaError_t cudaGetDevice(int* found) {
    *found = device;
    return cudaSuccess;
}

ANSWER cudaError_t cudaSetDevice(int wanted) {
    if (wanted < 0 || wanted >= card().count) return static_cast<cudaError_t>(failed(cudaErrorInvalidDevice));
    device = wanted;
    return cudaSuccess;
}

ANSWER cudaError_t cudaDriverGetVersion(int* version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}

ANSWER cudaError_t cudaRuntimeGetVersion(int* version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}

ANSWER cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
    *value = attribute(which);
    return cudaSuccess;
}

ANSWER cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
    const Card& c = card();
    std::memset(p, 0, sizeof *p);
    std::strncpy(p->name, c.title.c_str(), sizeof p->name - 1);
    p->totalGlobalMem = c.memory_bytes;
    p->major = c.major;
    p->minor = c.minor;
    p->multiProcessorCount = c.multiprocessors;
    p->maxThreadsPerMultiProcessor = c.threads_per_multiprocessor;
    p->maxBlocksPerMultiProcessor = c.blocks_per_multiprocessor;
    p->maxThreadsPerBlock = c.threads_per_block;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = c.threads_per_block;
    p->maxThreadsDim[2] = attribute(cudaDevAttrMaxBlockDimZ);
    p->maxGridSize[0] = attribute(cudaDevAttrMaxGridDimX);
    p->maxGridSize[1] = p->maxGridSize[2] = attribute(cudaDevAttrMaxGridDimY);
    p->warpSize = attribute(cudaDevAttrWarpSize);
    p->sharedMemPerBlock = c.shared_per_block;
    p->sharedMemPerBlockOptin = c.shared_per_block_optin;
    p->sharedMemPerMultiprocessor = c.shared_per_multiprocessor();
    p->reservedSharedMemPerBlock = c.shared_reserved;
    p->regsPerBlock = p->regsPerMultiprocessor = c.registers;
    p->l2CacheSize = c.l2_bytes;
    p->textureAlignment = attribute(cudaDevAttrTextureAlignment);
    p->unifiedAddressing = p->cooperativeLaunch = p->concurrentKernels = 1;
    p->asyncEngineCount = 2;
    return cudaSuccess;
}

ANSWER cudaError_t cudaDeviceGetPCIBusId(char* text, int length, int number) {
    std::snprintf(text, length, "0000:%02x:00.0", number + 1);
    return cudaSuccess;
}

ANSWER cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) {
    *can = 0;
    return cudaSuccess;
}

ANSWER cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** entry, unsigned, unsigned long long,
                                                    cudaDriverEntryPointQueryResult* result) {
    *entry = driver_entry(name);
    if (result) *result = cudaDriverEntryPointSuccess;
    return cudaSuccess;
}

// errors

ANSWER cudaError_t cudaGetLastError() {
    int error = last_error;
    last_error = cudaSuccess;
    return static_cast<cudaError_t>(error);
}

ANSWER cudaError_t cudaPeekAtLastError() { return static_cast<cudaError_t>(last_error); }

ANSWER const char* cudaGetErrorString(cudaError_t error) {
    return error == cudaErrorMemoryAllocation ? "out of memory" : "an error of the stand-in";
}

ANSWER const char* cudaGetErrorName(cudaError_t error) {
    return error == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation" : "cudaErrorUnknown";
}

// streams and events: everything has happened as soon as it is asked for

ANSWER cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) {
    *stream = reinterpret_cast<cudaStream_t>(new_handle());
    return cudaSuccess;
}

ANSWER cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) { return cudaStreamCreateWithPriority(stream, flags, 0); }

ANSWER cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithPriority(stream, 0, 0); }

ANSWER cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}

ANSWER cudaError_t cudaStreamGetPriority(cudaStream_t, int* priority) {
    *priority = 0;
    return cudaSuccess;
}

ANSWER cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
    *status = cudaStreamCaptureStatusNone;
    return cudaSuccess;
}

ANSWER cudaError_t cudaStreamGetCaptureInfo(cudaStream_t, cudaStreamCaptureStatus* status, unsigned long long* id, cudaGraph_t* graph,
                                            const cudaGraphNode_t** dependencies, const cudaGraphEdgeData** edges, size_t* count) {
    if (status) *status = cudaStreamCaptureStatusNone;
    if (id) *id = 0;
    if (graph) *graph = nullptr;
    if (dependencies) *dependencies = nullptr;
    if (edges) *edges = nullptr;
    if (count) *count = 0;
    return cudaSuccess;
}

ANSWER cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
    *event = reinterpret_cast<cudaEvent_t>(new_handle());
    return cudaSuccess;
}

ANSWER cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }

ANSWER cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
    *milliseconds = 1;
    return cudaSuccess;
}

// kernels

ANSWER cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* found, const void*) {
    std::memset(found, 0, sizeof *found);
    found->maxThreadsPerBlock = card().threads_per_block;
    found->numRegs = REGISTERS_OF_A_THREAD;
    found->binaryVersion = found->ptxVersion = 10 * card().major + card().minor;
    return cudaSuccess;
}

ANSWER cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void*, int threads, size_t shared, unsigned) {
    *blocks = resident_blocks(threads, shared);
    return cudaSuccess;
}

ANSWER cudaError_t cudaGetSymbolAddress(void** address, const void*) {
    static char nowhere[1 << 16];
    *address = nowhere;
    return cudaSuccess;
}

namespace {
struct Launch {
    dim3 grid, block;
    size_t shared;
    cudaStream_t stream;
};
thread_local Launch launch;
void* registered[4];
}  // namespace

ANSWER unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
    launch = {grid, block, shared, stream};
    return 0;
}

ANSWER cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
    *grid = launch.grid;
    *block = launch.block;
    *shared = launch.shared;
    *static_cast<cudaStream_t*>(stream) = launch.stream;
    return cudaSuccess;
}

// Calls that let a kernel run: what it is given does not matter.
#define RUNS(name) \
    extern "C" __attribute__((visibility("default"))) int standin_##name() __asm__(#name); \
    int standin_##name() { return launched(); }

RUNS(cudaLaunchKernel)
RUNS(cudaLaunchKernelExC)
RUNS(cudaLaunchCooperativeKernel)
RUNS(cudaMemset)
RUNS(cudaMemsetAsync)

ANSWER cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
    *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(function));
    return cudaSuccess;
}

ANSWER void** __cudaRegisterFatBinary(void*) { return registered; }
ANSWER void __cudaRegisterFatBinaryEnd(void**) {}
ANSWER void __cudaUnregisterFatBinary(void**) {}
ANSWER void __cudaRegisterFunction(void**, const char*, char*, const char*, int, void*, void*, void*, void*, int*) {}
ANSWER void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
ANSWER char __cudaInitModule(void**) { return 1; }
