#include "card.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>

namespace standin {
namespace {

[[noreturn]] void refuse(const std::string& why) {
    std::fprintf(stderr, "stand-in: %s\n", why.c_str());
    std::abort();
}

// Where the value of a key starts; the file is one flat object.
size_t value_at(const std::string& json, const std::string& key) {
    size_t at = json.find('"' + key + '"');
    if (at == std::string::npos) refuse("the card's description has no " + key);
    return json.find(':', at) + 1;
}

int64_t number(const std::string& json, const char* key) { return std::strtoll(json.c_str() + value_at(json, key), nullptr, 10); }

std::string text(const std::string& json, const char* key) {
    size_t from = json.find('"', value_at(json, key)) + 1;
    return json.substr(from, json.find('"', from) - from);
}

int64_t setting(const char* name, int64_t otherwise) {
    const char* given = std::getenv(name);
    return given ? std::strtoll(given, nullptr, 10) : otherwise;
}

Card described() {
    const char* path = std::getenv("MEMEST_STANDIN_CARD");
    if (!path) refuse("MEMEST_STANDIN_CARD names no file");
    std::ifstream file(path, std::ios::binary);
    if (!file) refuse(std::string("cannot read ") + path);
    std::string json{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    Card c;
    c.title = text(json, "deviceName");
    int version = number(json, "deviceVer");  // 900 is 9.0
    c.major = version / 100;
    c.minor = version % 100 / 10;
    c.multiprocessors = number(json, "multiProcessorCount");
    c.threads_per_multiprocessor = number(json, "maxThreadsPerSM");
    c.blocks_per_multiprocessor = number(json, "maxCtasPerSM");
    c.threads_per_block = number(json, "maxThreadsPerBlock");
    c.shared_per_block = number(json, "maxSharedMemoryPerBlock");
    c.shared_per_block_optin = number(json, "maxSharedMemoryPerBlockOptin");
    c.shared_reserved = number(json, "reservedSharedMemoryPerBlock");
    c.registers = number(json, "maxRegistersPerSM");
    c.l2_bytes = number(json, "l2CacheSize");
    c.sm_clock_khz = number(json, "smClockRateKHz");
    c.memory_clock_khz = number(json, "memClockRateKHz");
    c.memory_bytes = number(json, "totalGlobalMem");
    c.usable_bytes = setting("MEMEST_STANDIN_BYTES", c.memory_bytes);
    c.count = setting("MEMEST_STANDIN_DEVICES", 1);
    c.json = std::move(json);
    return c;
}

}  // namespace

const Card& card() {
    static const Card c = described();
    return c;
}

uint64_t new_handle() {
    static std::atomic<uint64_t> last{0x1000};
    return last += 16;
}

}  // namespace standin
