// cuDNN: the library itself lists engines, ranks them and says what workspace a plan takes, through its documented interface without a
// device: the card's properties are given to it as JSON (cuDNN 9.8 or later). What is left out is the handle, which needs a driver, and
// the running of plans.
//
// Some engines compile their plans when these are made, for which cuDNN needs a driver. Those of fused attention do so here, since it has
// no others. Those of convolutions are refused, so that the choice is the one that the library makes for anybody without a device; with
// MEMEST_STANDIN_COMPILED_PLANS=1 they are let through as well, as on a card. Batch norm of the older interface asks for neither workspace nor reserve here: those sizes need a device.
#include <cudnn.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>

#include "card.h"

namespace {

std::mutex lock;
std::map<cudnnBackendDescriptor_t, cudnnBackendDescriptorType_t> kinds;
thread_local bool convolution_described = false, of_convolution = false;  // since the last graph of operations; in that graph

void note_operation(cudnnBackendDescriptorType_t kind) {
    switch (kind) {
        case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
        case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR:
        case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR: convolution_described = true; break;
        case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR:
            of_convolution = convolution_described;
            convolution_described = false;
            break;
        default: break;
    }
}

// The function of that name in the library, past the one of this file.
template <typename Function>
Function* of_the_library(Function*, const char* name) {
    static void* library = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL);
    void* found = library ? dlsym(library, name) : nullptr;
    if (!found) {
        std::fprintf(stderr, "stand-in: cuDNN has no %s\n", name);
        std::abort();
    }
    return reinterpret_cast<Function*>(found);
}
#define LIBRARY(function) ([] { static auto* real = of_the_library(&function, #function); return real; }())

cudnnBackendDescriptor_t device_properties() {
    static const cudnnBackendDescriptor_t made = [] {
        cudnnBackendDescriptor_t d = nullptr;
        const std::string& json = standin::card().json;
        LIBRARY(cudnnBackendCreateDescriptor)(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &d);
        LIBRARY(cudnnBackendSetAttribute)(d, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, json.size(), json.data());
        cudnnStatus_t status = LIBRARY(cudnnBackendFinalize)(d);
        if (status != CUDNN_STATUS_SUCCESS) {
            std::fprintf(stderr, "stand-in: cuDNN refuses the card's properties (%d)\n", static_cast<int>(status));
            std::abort();
        }
        return d;
    }();
    return made;
}

// Whether the engine of a configuration compiles its plans.
bool compiles(cudnnBackendDescriptor_t configuration) {
    cudnnBackendDescriptor_t engine = nullptr;
    LIBRARY(cudnnBackendCreateDescriptor)(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine);
    cudnnBackendBehaviorNote_t notes[CUDNN_BEHAVIOR_NOTE_TYPE_COUNT];
    int64_t count = 0;
    auto get = LIBRARY(cudnnBackendGetAttribute);
    cudnnStatus_t status = get(configuration, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count, &engine);
    if (status == CUDNN_STATUS_SUCCESS)
        status = get(engine, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE, CUDNN_BEHAVIOR_NOTE_TYPE_COUNT, &count, notes);
    LIBRARY(cudnnBackendDestroyDescriptor)(engine);
    return status == CUDNN_STATUS_SUCCESS && std::find(notes, notes + count, CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION) != notes + count;
}

bool refused(cudnnBackendDescriptor_t configuration) {
    static const bool none = std::getenv("MEMEST_STANDIN_COMPILED_PLANS") != nullptr;
    return !none && of_convolution && compiles(configuration);
}

// The attribute through which such a descriptor is told of the card; nothing for those that need none.
bool told_by(cudnnBackendDescriptorType_t kind, cudnnBackendAttributeName_t* name) {
    switch (kind) {
        case CUDNN_BACKEND_ENGINE_DESCRIPTOR: *name = CUDNN_ATTR_ENGINE_DEVICEPROP; return true;
        case CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR: *name = CUDNN_ATTR_ENGINEHEUR_DEVICEPROP; return true;
        case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR: *name = CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP; return true;
        default: return false;
    }
}

}  // namespace

ANSWER cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
    *handle = static_cast<cudnnHandle_t>(std::calloc(1, 4096));
    return CUDNN_STATUS_SUCCESS;
}

ANSWER cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
    std::free(handle);
    return CUDNN_STATUS_SUCCESS;
}

ANSWER cudnnStatus_t cudnnSetStream(cudnnHandle_t, cudaStream_t) { return CUDNN_STATUS_SUCCESS; }

ANSWER cudnnStatus_t cudnnGetStream(cudnnHandle_t, cudaStream_t* stream) {
    *stream = nullptr;
    return CUDNN_STATUS_SUCCESS;
}

ANSWER cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t kind, cudnnBackendDescriptor_t* descriptor) {
    cudnnStatus_t status = LIBRARY(cudnnBackendCreateDescriptor)(kind, descriptor);
    note_operation(kind);
    std::lock_guard<std::mutex> guard(lock);
    kinds[*descriptor] = kind;
    return status;
}

ANSWER cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) {
    {
        std::lock_guard<std::mutex> guard(lock);
        kinds.erase(descriptor);
    }
    return LIBRARY(cudnnBackendDestroyDescriptor)(descriptor);
}

ANSWER cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                              cudnnBackendAttributeType_t type, int64_t count, const void* values) {
    if (name == CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG && refused(*static_cast<const cudnnBackendDescriptor_t*>(values)))
        return CUDNN_STATUS_NOT_SUPPORTED_RUNTIME_PREREQUISITE_MISSING;
    if (name == CUDNN_ATTR_EXECUTION_PLAN_HANDLE || name == CUDNN_ATTR_OPERATIONGRAPH_HANDLE) return CUDNN_STATUS_SUCCESS;
    return LIBRARY(cudnnBackendSetAttribute)(descriptor, name, type, count, values);
}

ANSWER cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
    cudnnBackendDescriptorType_t kind{};
    bool known;
    {
        std::lock_guard<std::mutex> guard(lock);
        auto found = kinds.find(descriptor);
        known = found != kinds.end();
        if (known) kind = found->second;
    }
    cudnnBackendAttributeName_t name;
    if (known && told_by(kind, &name)) {
        cudnnBackendDescriptor_t properties = device_properties();
        LIBRARY(cudnnBackendSetAttribute)(descriptor, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &properties);
    }
    return LIBRARY(cudnnBackendFinalize)(descriptor);
}

ANSWER cudnnStatus_t cudnnBackendExecute(cudnnHandle_t, cudnnBackendDescriptor_t, cudnnBackendDescriptor_t) {
    standin::something_runs();
    return CUDNN_STATUS_SUCCESS;
}

ANSWER cudnnStatus_t cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize(
    cudnnHandle_t, cudnnBatchNormMode_t, cudnnBatchNormOps_t, const cudnnTensorDescriptor_t, const cudnnTensorDescriptor_t,
    const cudnnTensorDescriptor_t, const cudnnTensorDescriptor_t, const cudnnActivationDescriptor_t, size_t* bytes) {
    *bytes = 0;
    return CUDNN_STATUS_SUCCESS;
}

ANSWER cudnnStatus_t cudnnGetBatchNormalizationBackwardExWorkspaceSize(
    cudnnHandle_t, cudnnBatchNormMode_t, cudnnBatchNormOps_t, const cudnnTensorDescriptor_t, const cudnnTensorDescriptor_t,
    const cudnnTensorDescriptor_t, const cudnnTensorDescriptor_t, const cudnnTensorDescriptor_t, const cudnnTensorDescriptor_t,
    const cudnnActivationDescriptor_t, size_t* bytes) {
    *bytes = 0;
    return CUDNN_STATUS_SUCCESS;
}

ANSWER cudnnStatus_t cudnnGetBatchNormalizationTrainingExReserveSpaceSize(cudnnHandle_t, cudnnBatchNormMode_t, cudnnBatchNormOps_t,
                                                                          const cudnnActivationDescriptor_t, const cudnnTensorDescriptor_t,
                                                                          size_t* bytes) {
    *bytes = 0;
    return CUDNN_STATUS_SUCCESS;
}

// Calls that would run a kernel of cuDNN: their arguments do not matter.
#define RUNS_NOTHING(name) \
    extern "C" __attribute__((visibility("default"))) int standin_##name() __asm__(#name); \
    int standin_##name() { \
        standin::something_runs(); \
        return 0; \
    }

RUNS_NOTHING(cudnnBatchNormalizationForwardTrainingEx)
RUNS_NOTHING(cudnnBatchNormalizationBackwardEx)
RUNS_NOTHING(cudnnBatchNormalizationForwardInference)
RUNS_NOTHING(cudnnPoolingForward)
RUNS_NOTHING(cudnnConvolutionBiasActivationForward)
