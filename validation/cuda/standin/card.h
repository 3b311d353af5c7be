// The card that is stood in for. Everything follows from the JSON of device properties that cuDNN takes: the file named by
// MEMEST_STANDIN_CARD, read once. MEMEST_STANDIN_DEVICES says how many such cards there are (one, if unset) and MEMEST_STANDIN_BYTES how
// many bytes a process may take of each (all of them, if unset).
#pragma once
#include <cstdint>
#include <string>

#define ANSWER extern "C" __attribute__((visibility("default")))

namespace standin {

struct Card {
    std::string json, title;
    int major, minor;
    int multiprocessors, threads_per_multiprocessor, blocks_per_multiprocessor, threads_per_block;
    int shared_per_block, shared_per_block_optin, shared_reserved, registers;
    int l2_bytes, sm_clock_khz, memory_clock_khz;
    uint64_t memory_bytes, usable_bytes;
    int count;

    int shared_per_multiprocessor() const { return shared_per_block_optin + shared_reserved; }
};

const Card& card();
int current_device();
int attribute(int which);

// An opaque handle for what has no content here: streams, events, descriptors.
uint64_t new_handle();

// Remembers the error that the next cudaGetLastError reports, and gives it back.
int failed(int error);

// The driver's entry point of that name: those of virtual memory and of devices are answered, all others succeed and do nothing.
void* driver_entry(const std::string& name);

// Of memory.cpp and runtime.cpp, for driver_entry.
void* memory_entry(const std::string& name);
void* device_entry(const std::string& name);

// A kernel runs, which may write anywhere.
void something_runs();

bool on_device(const void* address);
int device_of(const void* address);

}  // namespace standin
