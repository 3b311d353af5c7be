// Device memory: addresses that nobody may read. Pages of 2 MiB are given out upwards from a base of each device, and from that base again
// once nothing is held, so that what a case is given does not depend on the cases before it. What is copied from a device is zero, but for
// little copies that nothing has run since: numbers that ranks tell each other, which come back as they were given.
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <vector>

#include "card.h"

namespace standin {
namespace {

constexpr uint64_t PAGE = 2u << 20;
constexpr uint64_t BASE = 0x200000000000;  // far from where Linux puts programs, heaps and mapped files
constexpr uint64_t SPAN = 0x10000000000;   // of one device: 1 TiB
constexpr int MOST = 16;                   // devices

uint64_t in_pages(uint64_t bytes) { return (bytes + PAGE - 1) / PAGE * PAGE; }

struct Device {
    uint64_t next = 0, used = 0;               // offsets from the device's base; bytes behind addresses or handles
    std::map<uint64_t, uint64_t> held;         // cudaMalloc: address and bytes
    std::map<uint64_t, uint64_t> reserved;     // virtual addresses without memory: address and bytes
};

std::mutex lock;
Device devices[MOST];
std::map<uint64_t, std::pair<int, uint64_t>> chunks;  // cuMemCreate: handle, device and bytes

uint64_t addresses(Device& d, int number, uint64_t bytes) {
    if (d.held.empty() && d.reserved.empty()) d.next = 0;
    uint64_t at = BASE + number * SPAN + d.next;
    d.next += in_pages(bytes);
    return at;
}

bool take(Device& d, uint64_t bytes) {
    if (d.used + in_pages(bytes) > card().usable_bytes) return false;
    d.used += in_pages(bytes);
    return true;
}

CUresult reserve_addresses(CUdeviceptr* address, size_t bytes, size_t, CUdeviceptr, unsigned long long) {
    std::lock_guard<std::mutex> guard(lock);
    Device& d = devices[current_device()];
    *address = addresses(d, current_device(), bytes);
    d.reserved[*address] = bytes;
    return CUDA_SUCCESS;
}

CUresult free_addresses(CUdeviceptr address, size_t) {
    std::lock_guard<std::mutex> guard(lock);
    devices[device_of(reinterpret_cast<void*>(address))].reserved.erase(address);
    return CUDA_SUCCESS;
}

CUresult create_chunk(CUmemGenericAllocationHandle* handle, size_t bytes, const CUmemAllocationProp* wanted, unsigned long long) {
    std::lock_guard<std::mutex> guard(lock);
    int number = wanted ? wanted->location.id : current_device();
    if (!take(devices[number], bytes)) return CUDA_ERROR_OUT_OF_MEMORY;
    *handle = new_handle();
    chunks[*handle] = {number, in_pages(bytes)};
    return CUDA_SUCCESS;
}

CUresult release_chunk(CUmemGenericAllocationHandle handle) {
    std::lock_guard<std::mutex> guard(lock);
    auto found = chunks.find(handle);
    if (found == chunks.end()) return CUDA_ERROR_INVALID_VALUE;
    devices[found->second.first].used -= found->second.second;
    chunks.erase(found);
    return CUDA_SUCCESS;
}

CUresult granularity(size_t* bytes, const CUmemAllocationProp*, CUmemAllocationGranularity_flags) {
    *bytes = PAGE;
    return CUDA_SUCCESS;
}

std::map<uint64_t, uint64_t> pinned;  // host memory that the driver gave: address and bytes

bool is_pinned(const void* address) {
    std::lock_guard<std::mutex> guard(lock);
    uint64_t at = reinterpret_cast<uint64_t>(address);
    auto next = pinned.upper_bound(at);
    return next != pinned.begin() && at < std::prev(next)->first + std::prev(next)->second;
}

constexpr size_t MOST_REMEMBERED = 1 << 20;
std::map<uint64_t, std::vector<char>> told;  // what was copied to a device since something ran, by address

int counted = 0;  // what a number of four bytes says that a kernel would have counted

// Of what was copied to that address, all or nothing.
const std::vector<char>* remembered(const void* from, size_t bytes) {
    auto found = told.find(reinterpret_cast<uint64_t>(from));
    return found != told.end() && found->second.size() == bytes ? &found->second : nullptr;
}

void remember(uint64_t at, size_t bytes, const char* content) {
    std::vector<char> copy;
    if (content && bytes <= MOST_REMEMBERED) copy.assign(content, content + bytes);
    auto first = told.lower_bound(at);
    if (first != told.begin() && std::prev(first)->first + std::prev(first)->second.size() > at) --first;
    told.erase(first, told.lower_bound(at + bytes));
    if (!copy.empty()) told[at] = std::move(copy);
}

void copied(void* to, const void* from, size_t bytes) {
    std::lock_guard<std::mutex> guard(lock);
    const std::vector<char>* found = on_device(from) ? remembered(from, bytes) : nullptr;
    const char* content = found ? found->data() : on_device(from) ? nullptr : static_cast<const char*>(from);
    if (on_device(to))
        remember(reinterpret_cast<uint64_t>(to), bytes, content);
    else if (content)
        std::memmove(to, content, bytes);
    else {
        std::memset(to, 0, bytes);
        if (bytes == sizeof counted) std::memcpy(to, &counted, bytes);
    }
}

}  // namespace

bool on_device(const void* address) {
    uint64_t at = reinterpret_cast<uint64_t>(address);
    return at >= BASE && at < BASE + MOST * SPAN;
}

void something_runs() {
    std::lock_guard<std::mutex> guard(lock);
    told.clear();
}

int device_of(const void* address) { return on_device(address) ? (reinterpret_cast<uint64_t>(address) - BASE) / SPAN : 0; }

void* memory_entry(const std::string& name) {
    if (name == "cuMemAddressReserve") return reinterpret_cast<void*>(reserve_addresses);
    if (name == "cuMemAddressFree") return reinterpret_cast<void*>(free_addresses);
    if (name == "cuMemCreate") return reinterpret_cast<void*>(create_chunk);
    if (name == "cuMemRelease") return reinterpret_cast<void*>(release_chunk);
    if (name == "cuMemGetAllocationGranularity") return reinterpret_cast<void*>(granularity);
    return nullptr;
}

}  // namespace standin

using namespace standin;

// For an oracle that knows what a kernel would have counted.
ANSWER void standin_says(int number) { counted = number; }

ANSWER cudaError_t cudaMalloc(void** address, size_t bytes) {
    std::lock_guard<std::mutex> guard(lock);
    Device& d = devices[current_device()];
    *address = nullptr;
    if (!take(d, bytes)) return static_cast<cudaError_t>(failed(cudaErrorMemoryAllocation));
    uint64_t at = addresses(d, current_device(), bytes);
    d.held[at] = in_pages(bytes);
    *address = reinterpret_cast<void*>(at);
    return cudaSuccess;
}

ANSWER cudaError_t cudaFree(void* address) {
    std::lock_guard<std::mutex> guard(lock);
    Device& d = devices[device_of(address)];
    auto found = d.held.find(reinterpret_cast<uint64_t>(address));
    if (found == d.held.end()) return cudaSuccess;
    d.used -= found->second;
    d.held.erase(found);
    return cudaSuccess;
}

ANSWER cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total) {
    std::lock_guard<std::mutex> guard(lock);
    *total = card().memory_bytes;
    *free_bytes = card().usable_bytes - devices[current_device()].used;
    return cudaSuccess;
}

ANSWER cudaError_t cudaHostAlloc(void** address, size_t bytes, unsigned) {
    std::lock_guard<std::mutex> guard(lock);
    *address = std::calloc(1, bytes ? bytes : 1);
    pinned[reinterpret_cast<uint64_t>(*address)] = bytes;
    return cudaSuccess;
}

ANSWER cudaError_t cudaFreeHost(void* address) {
    std::lock_guard<std::mutex> guard(lock);
    pinned.erase(reinterpret_cast<uint64_t>(address));
    std::free(address);
    return cudaSuccess;
}

ANSWER cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
    copied(to, from, bytes);
    return cudaSuccess;
}

ANSWER cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
    copied(to, from, bytes);
    return cudaSuccess;
}

ANSWER cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height,
                                     cudaMemcpyKind, cudaStream_t) {
    for (size_t row = 0; row < height; row++)
        copied(static_cast<char*>(to) + row * to_pitch, static_cast<const char*>(from) + row * from_pitch, width);
    return cudaSuccess;
}

ANSWER cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* found, const void* address) {
    std::memset(found, 0, sizeof *found);
    found->type = on_device(address) ? cudaMemoryTypeDevice : is_pinned(address) ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
    found->device = device_of(address);
    found->devicePointer = on_device(address) ? const_cast<void*>(address) : nullptr;
    return cudaSuccess;
}
