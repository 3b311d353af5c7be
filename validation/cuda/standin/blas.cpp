// cuBLAS and cuBLASLt: every product succeeds, and the first algorithm asked for is found. torch gives both their workspaces, so they
// allocate nothing by themselves.
#define __CUDA_FP16_H__  // numbers of 16 bits are no matter here, and their headers need more than torch's packages bring
#define __CUDA_BF16_H__
struct __half;
struct __nv_bfloat16;
#include <cublasLt.h>

#include <cstdlib>
#include <cstring>

#include "card.h"

namespace {

template <typename Descriptor>
cublasStatus_t made(Descriptor* descriptor) {
    *descriptor = static_cast<Descriptor>(std::calloc(1, 512));
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t dropped(void* descriptor) {
    std::free(descriptor);
    return CUBLAS_STATUS_SUCCESS;
}

}  // namespace

ANSWER cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) { return made(handle); }

ANSWER cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) { return dropped(handle); }

ANSWER cublasStatus_t cublasGetMathMode(cublasHandle_t, cublasMath_t* mode) {
    *mode = CUBLAS_DEFAULT_MATH;
    return CUBLAS_STATUS_SUCCESS;
}

ANSWER cublasStatus_t cublasGetPointerMode_v2(cublasHandle_t, cublasPointerMode_t* mode) {
    *mode = CUBLAS_POINTER_MODE_HOST;
    return CUBLAS_STATUS_SUCCESS;
}

// torch sets it before each call of a handle.
ANSWER cublasStatus_t cublasSetStream_v2(cublasHandle_t, cudaStream_t) {
    standin::something_runs();
    return CUBLAS_STATUS_SUCCESS;
}

ANSWER size_t cublasLtGetVersion() { return CUBLAS_VERSION; }

ANSWER cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* descriptor, cublasComputeType_t, cudaDataType_t) {
    return made(descriptor);
}

ANSWER cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t descriptor) { return dropped(descriptor); }

ANSWER cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* descriptor) { return made(descriptor); }

ANSWER cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t descriptor) { return dropped(descriptor); }

ANSWER cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* descriptor, cudaDataType, uint64_t, uint64_t, int64_t) {
    return made(descriptor);
}

ANSWER cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t descriptor) { return dropped(descriptor); }

ANSWER cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                                     cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatmulPreference_t,
                                                     int wanted, cublasLtMatmulHeuristicResult_t* found, int* count) {
    standin::something_runs();
    std::memset(found, 0, wanted * sizeof *found);
    *count = wanted < 1 ? 0 : 1;
    return CUBLAS_STATUS_SUCCESS;
}
