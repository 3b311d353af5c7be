// What is asked of the driver's own library: by torch when it compiles a kernel at run time, by Triton for those torch brings in it.
#include <cuda.h>

#define ANSWER extern "C" __attribute__((visibility("default"))) CUresult

extern "C" int standin_attribute(int which);  // of libstandin.so, which is loaded before

ANSWER cuDevicePrimaryCtxGetState(CUdevice, unsigned* flags, int* active) {
    if (flags) *flags = 0;
    if (active) *active = 1;
    return CUDA_SUCCESS;
}

ANSWER cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice) {
    *context = reinterpret_cast<CUcontext>(1);
    return CUDA_SUCCESS;
}

ANSWER cuCtxGetCurrent(CUcontext* context) {
    *context = reinterpret_cast<CUcontext>(1);
    return CUDA_SUCCESS;
}

ANSWER cuCtxGetDevice(CUdevice* device) {
    *device = 0;
    return CUDA_SUCCESS;
}

ANSWER cuCtxGetLimit(size_t* value, CUlimit) {
    *value = 0;
    return CUDA_SUCCESS;
}

ANSWER cuDeviceGet(CUdevice* device, int ordinal) {
    *device = ordinal;
    return CUDA_SUCCESS;
}

ANSWER cuDeviceGetAttribute(int* value, CUdevice_attribute which, CUdevice) {
    *value = standin_attribute(which);
    return CUDA_SUCCESS;
}

ANSWER cuDriverGetVersion(int* version) {
    *version = CUDA_VERSION;
    return CUDA_SUCCESS;
}

ANSWER cuModuleLoadData(CUmodule* module, const void*) {
    *module = reinterpret_cast<CUmodule>(1);
    return CUDA_SUCCESS;
}

ANSWER cuModuleGetFunction(CUfunction* function, CUmodule, const char*) {
    *function = reinterpret_cast<CUfunction>(1);
    return CUDA_SUCCESS;
}

ANSWER cuFuncGetAttribute(int* value, CUfunction_attribute which, CUfunction) {
    bool threads = which == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK;
    *value = threads ? standin_attribute(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK) : 0;
    return CUDA_SUCCESS;
}

ANSWER cuPointerGetAttribute(void* value, CUpointer_attribute which, CUdeviceptr address) {
    if (which != CU_POINTER_ATTRIBUTE_DEVICE_POINTER) return CUDA_ERROR_NOT_SUPPORTED;
    *static_cast<CUdeviceptr*>(value) = address;
    return CUDA_SUCCESS;
}

ANSWER cuGetErrorString(CUresult, const char** text) {
    *text = "an error of the stand-in";
    return CUDA_SUCCESS;
}

// cuDNN compiles some plans when they are made and loads what came out; none of it ever runs.

ANSWER cuLinkCreate_v2(unsigned, CUjit_option*, void**, CUlinkState* state) {
    *state = reinterpret_cast<CUlinkState>(1);
    return CUDA_SUCCESS;
}

ANSWER cuLinkComplete(CUlinkState, void** image, size_t* bytes) {
    static char nothing[4096];
    *image = nothing;
    *bytes = sizeof nothing;
    return CUDA_SUCCESS;
}

ANSWER cuLibraryLoadData(CUlibrary* library, const void*, CUjit_option*, void**, unsigned, CUlibraryOption*, void**, unsigned) {
    *library = reinterpret_cast<CUlibrary>(1);
    return CUDA_SUCCESS;
}

ANSWER cuLibraryLoadFromFile(CUlibrary* library, const char*, CUjit_option*, void**, unsigned, CUlibraryOption*, void**, unsigned) {
    *library = reinterpret_cast<CUlibrary>(1);
    return CUDA_SUCCESS;
}

ANSWER cuLibraryGetKernel(CUkernel* kernel, CUlibrary, const char*) {
    *kernel = reinterpret_cast<CUkernel>(1);
    return CUDA_SUCCESS;
}

ANSWER cuKernelGetAttribute(int* value, CUfunction_attribute which, CUkernel, CUdevice) { return cuFuncGetAttribute(value, which, nullptr); }

ANSWER cuOccupancyMaxPotentialClusterSize(int* blocks, CUfunction, const CUlaunchConfig*) {
    *blocks = 8;
    return CUDA_SUCCESS;
}

ANSWER cuDeviceGetCount(int* count) {
    *count = 1;
    return CUDA_SUCCESS;
}

ANSWER cuGetErrorName(CUresult, const char** text) {
    *text = "an error of the stand-in";
    return CUDA_SUCCESS;
}

ANSWER cuStreamGetCtx(CUstream, CUcontext* context) {
    *context = reinterpret_cast<CUcontext>(1);
    return CUDA_SUCCESS;
}

ANSWER cuCtxPopCurrent_v2(CUcontext* context) {
    if (context) *context = reinterpret_cast<CUcontext>(1);
    return CUDA_SUCCESS;
}
