// Counts what a whole process takes from torch's CPU allocator, whichever thread asks. The profiler sees only threads it runs in.
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <torch/extension.h>

#include <mutex>
#include <unordered_map>
#include <vector>

namespace {

std::mutex mutex;
std::unordered_map<void*, int64_t> sizes;
std::vector<int64_t> events;
int64_t live = 0;
int64_t peak = 0;
bool recording = false;
c10::Allocator* inner = nullptr;
c10::DeleterFnPtr inner_deleter = nullptr;

void note(int64_t delta) {
  live += delta;
  peak = std::max(peak, live);
  if (recording) {
    events.push_back(delta);
  }
}

void release(void* data) {
  if (data != nullptr) {
    std::lock_guard<std::mutex> guard(mutex);
    auto found = sizes.find(data);
    if (found != sizes.end()) {
      note(-found->second);
      sizes.erase(found);
    }
  }
  inner_deleter(data);
}

struct CountingAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    c10::DataPtr data = inner->allocate(bytes);
    void* address = data.get();
    if (address != nullptr) {
      std::lock_guard<std::mutex> guard(mutex);
      sizes[address] = static_cast<int64_t>(bytes);
      note(static_cast<int64_t>(bytes));
    }
    data.compare_exchange_deleter(inner_deleter, &release);
    return data;
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return &release;
  }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    inner->copy_data(to, from, bytes);
  }
};

CountingAllocator counting;

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("install", [] {
    inner = c10::GetCPUAllocator();
    inner_deleter = inner->raw_deleter();
    c10::SetCPUAllocator(&counting, 1);
  });
  m.def("live", [] { return live; });
  m.def("start", [] {
    std::lock_guard<std::mutex> guard(mutex);
    events.clear();
    peak = live;
    recording = true;
    return live;
  });
  m.def("stop", [] {
    std::lock_guard<std::mutex> guard(mutex);
    recording = false;
    return std::make_pair(peak, events);
  });
}
