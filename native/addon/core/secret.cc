#include "secret.h"

#include <cstdlib>
#include <cstring>
#include <new>
#include <string.h>
#include <sys/mman.h>
#include <utility>

namespace hsmgate
{

namespace
{

constexpr size_t pageBytes = 4096;
constexpr size_t smallBytes = 64;

size_t roundUp(size_t length)
{
    const size_t unit = length < pageBytes ? smallBytes : pageBytes;
    return (length + unit - 1) / unit * unit;
}

uint8_t *allocate(size_t capacity)
{
    const bool wholePages = capacity >= pageBytes;
    void *memory = std::aligned_alloc(wholePages ? pageBytes : smallBytes, capacity);
    if (memory == nullptr)
        throw std::bad_alloc();
    if (wholePages) {
        /* Best effort: RLIMIT_MEMLOCK may be smaller than what a loaded pool needs. */
        (void)mlock(memory, capacity);
        (void)madvise(memory, capacity, MADV_DONTDUMP);
    }
    std::memset(memory, 0, capacity);
    return static_cast<uint8_t *>(memory);
}

void deallocate(uint8_t *memory, size_t capacity)
{
    if (capacity >= pageBytes) {
        (void)madvise(memory, capacity, MADV_DODUMP);
        (void)munlock(memory, capacity);
    }
    std::free(memory);
}

} // namespace

void wipe(void *memory, size_t length) noexcept
{
    if (length > 0)
        explicit_bzero(memory, length);
}

bool equalConstantTime(std::span<const uint8_t> a, std::span<const uint8_t> b) noexcept
{
    if (a.size() != b.size())
        return false;
    volatile uint8_t difference = 0;
    for (size_t i = 0; i < a.size(); i++)
        difference = static_cast<uint8_t>(difference | (a[i] ^ b[i]));
    return difference == 0;
}

SecretBytes::SecretBytes(std::span<const uint8_t> bytes)
{
    resize(bytes.size());
    if (!bytes.empty())
        std::memcpy(data_, bytes.data(), bytes.size());
}

SecretBytes::SecretBytes(SecretBytes &&other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)),
      capacity_(std::exchange(other.capacity_, 0))
{
}

SecretBytes &SecretBytes::operator=(SecretBytes &&other) noexcept
{
    if (this != &other) {
        release();
        data_ = std::exchange(other.data_, nullptr);
        size_ = std::exchange(other.size_, 0);
        capacity_ = std::exchange(other.capacity_, 0);
    }
    return *this;
}

void SecretBytes::resize(size_t length)
{
    if (length > capacity_) {
        const size_t capacity = roundUp(length);
        if (capacity < length)
            throw std::bad_alloc();
        uint8_t *grown = allocate(capacity);
        if (size_ > 0)
            std::memcpy(grown, data_, size_);
        const size_t kept = size_;
        release();
        data_ = grown;
        capacity_ = capacity;
        size_ = kept;
    }
    /* Bytes beyond size_ are always zero: allocation and clearing see to it. */
    if (length < size_)
        wipe(data_ + length, size_ - length);
    size_ = length;
}

void SecretBytes::clear() noexcept
{
    wipe(data_, size_);
    size_ = 0;
}

void SecretBytes::release() noexcept
{
    if (data_ == nullptr)
        return;
    clear();
    deallocate(data_, capacity_);
    data_ = nullptr;
    capacity_ = 0;
}

} // namespace hsmgate
