#include "counters.h"

#include <algorithm>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace hsmgate::shim
{

namespace
{

constexpr size_t tableBytes = counterCount * sizeof(Counter);

Counter *map(int flags, int descriptor)
{
    void *memory = mmap(nullptr, tableBytes, PROT_READ | PROT_WRITE, flags, descriptor, 0);
    return memory == MAP_FAILED ? nullptr : static_cast<Counter *>(memory);
}

void setName(Counter &counter, std::string_view name)
{
    std::memcpy(counter.name, name.data(), std::min(name.size(), sizeof counter.name - 1));
}

} // namespace

/* Zero bytes are a valid table of free entries, in a new file as in fresh memory. */
Counters::Counters() : entries_(map(MAP_PRIVATE | MAP_ANONYMOUS, -1)) {}

bool Counters::share(const std::string &path)
{
    const int descriptor = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (descriptor < 0)
        return false;
    struct stat file {
    };
    Counter *shared = nullptr;
    /* Growing to the same size twice is harmless, so processes may race here. */
    if (fstat(descriptor, &file) == 0 &&
        (file.st_size == static_cast<off_t>(tableBytes) || ftruncate(descriptor, tableBytes) == 0))
        shared = map(MAP_SHARED, descriptor);
    close(descriptor);
    if (shared == nullptr)
        return false;
    entries_ = shared;
    for (size_t i = 0; i < functionCount; i++) {
        uint64_t free = 0;
        if (entries_[i].key.compare_exchange_strong(free, i + 1))
            setName(entries_[i], functionNames[i]);
    }
    return true;
}

Counter *Counters::claim(uint64_t key, const std::string &name)
{
    for (size_t i = functionCount; i < counterCount; i++) {
        uint64_t found = 0;
        if (entries_[i].key.compare_exchange_strong(found, key)) {
            setName(entries_[i], name);
            return &entries_[i];
        }
        if (found == key)
            return &entries_[i];
    }
    return nullptr;
}

} // namespace hsmgate::shim
