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
