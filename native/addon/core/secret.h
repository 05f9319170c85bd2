/*
 * Memory for plaintext, key material and PINs. A buffer is wiped before it shrinks, moves or ends;
 * buffers of a page or more are page-aligned, locked against swapping and left out of core dumps as
 * far as the limits of the process allow. Not thread-safe.
 */
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace hsmgate
{

void wipe(void *memory, size_t length) noexcept;

/* 1 when equal; time depends on the lengths alone. */
bool equalConstantTime(std::span<const uint8_t> a, std::span<const uint8_t> b) noexcept;

class SecretBytes
{
public:
    SecretBytes() = default;
    explicit SecretBytes(size_t length) { resize(length); }
    explicit SecretBytes(std::span<const uint8_t> bytes);
    SecretBytes(SecretBytes &&other) noexcept;
    SecretBytes &operator=(SecretBytes &&other) noexcept;
    SecretBytes(const SecretBytes &) = delete;
    SecretBytes &operator=(const SecretBytes &) = delete;
    ~SecretBytes() { release(); }

    /* Keeps the first min(old, new) bytes, wipes what falls away, zero-fills what is new. Throws
     * std::bad_alloc. */
    void resize(size_t length);
    /* Wipes and empties; the memory stays for the next use. */
    void clear() noexcept;
    /* Wipes, empties and frees. */
    void release() noexcept;

    uint8_t *data() noexcept { return data_; }
    const uint8_t *data() const noexcept { return data_; }
    size_t size() const noexcept { return size_; }
    size_t capacity() const noexcept { return capacity_; }
    bool empty() const noexcept { return size_ == 0; }
    std::span<uint8_t> span() noexcept { return {data_, size_}; }
    std::span<const uint8_t> span() const noexcept { return {data_, size_}; }

private:
    uint8_t *data_ = nullptr;
    size_t size_ = 0;
    size_t capacity_ = 0;
};

} // namespace hsmgate
