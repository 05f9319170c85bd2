#include "job.h"

#include <cstring>

namespace hsmgate
{

namespace
{

/* A recycled job keeps this much, so that a burst of large ones doesn't stay in locked memory. */
constexpr size_t keptBytesMax = 16 * 1024;

void clearOrRelease(SecretBytes &bytes) noexcept
{
    if (bytes.capacity() > keptBytesMax)
        bytes.release();
    else
        bytes.clear();
}

} // namespace

void Job::load(std::span<const uint8_t> newParams, std::span<const uint8_t> newInput,
               std::span<const uint8_t> newAux, bool keepInput)
{
    /* One byte more, so that an empty input has an address too: SoftHSM answers a NULL pData with
     * CKR_ARGUMENTS_BAD, whatever its length. */
    copies_.resize(newParams.size() + newAux.size() + (keepInput ? 0 : newInput.size()) + 1);
    uint8_t *at = copies_.data();
    const auto copy = [&at](std::span<const uint8_t> from) {
        const std::span<uint8_t> to(at, from.size());
        if (!from.empty())
            std::memcpy(at, from.data(), from.size());
        at += from.size();
        return to;
    };
    params = copy(newParams);
    aux = copy(newAux);
    input = keepInput ? newInput : copy(newInput);
}

void Job::reset() noexcept
{
    clearOrRelease(copies_);
    clearOrRelease(output);
    params = {};
    input = {};
    aux = {};
    hold = nullptr;
    mechanism = 0;
    key = 0;
    key2 = 0;
    outMax = 0;
    outMin = 0;
    finisher = nullptr;
    endsAt = std::chrono::steady_clock::time_point::max();
    isLate = false;
    rv = CKR_OK;
    handle = 0;
    handle2 = 0;
    outputLength = 0;
    hsmMicros = 0;
}

} // namespace hsmgate
