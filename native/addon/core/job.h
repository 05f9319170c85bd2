/*
 * One unit of work of a pool: what to do, with copies of everything that it reads, and its result.
 * A job has one owner at a time: the submitter, the queue, one session thread, the completion list,
 * the submitter again. Jobs are recycled with their memory.
 */
#pragma once

#include "cryptoki.h"
#include "secret.h"

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>

namespace hsmgate
{

/* The wire values of `jobOp` in src/hsm/worker/addon.ts. */
enum class Op : uint8_t {
    sign = 1,
    verify = 2,
    encrypt = 3,
    decrypt = 4,
    encryptVerify = 5,
    random = 6,
    find = 7,
    getAttributes = 8,
    derive = 9,
    deriveValue = 10,
    generateKey = 11,
    generateKeyPair = 12,
    wrap = 13,
    unwrap = 14,
    createObject = 15,
    destroy = 16,
    oaepDecrypt = 17,
    setAttributes = 18,
    decapsulate = 19,
};
constexpr uint32_t opLast = 19;

/* Larger inputs stay where they are; their owner keeps them alive and unchanged until the job is
 * complete. */
constexpr size_t copiedInputBytesMax = 4096;
/* Parameters and templates are parsed on the session thread and therefore always copied. */
constexpr size_t packedBytesMax = 64 * 1024;
constexpr size_t inputBytesMax = 16 * 1024 * 1024;
constexpr size_t outputBytesMax = 16 * 1024 * 1024;

class Pool;
struct Job;

/* Takes finished jobs on the session thread, instead of the pool's completion list. */
class Finisher
{
public:
    virtual void finish(Pool &pool, std::unique_ptr<Job> job) noexcept = 0;

protected:
    ~Finisher() = default;
};

struct Job {
    uint32_t id = 0;
    Op op = Op::random;
    CK_MECHANISM_TYPE mechanism = 0;
    CK_OBJECT_HANDLE key = 0;
    CK_OBJECT_HANDLE key2 = 0;
    size_t outMax = 0;
    /* For the finisher, which takes less as a failure. */
    size_t outMin = 0;
    Finisher *finisher = nullptr;
    /* A job that no session took before is given back untouched, as `isLate`. */
    std::chrono::steady_clock::time_point endsAt = std::chrono::steady_clock::time_point::max();
    bool isLate = false;

    /* Views into `copies`, or of memory that `hold` keeps alive. */
    std::span<uint8_t> params;
    std::span<const uint8_t> input;
    std::span<const uint8_t> aux;
    /* The submitter's business; the core only carries it. */
    void *hold = nullptr;

    CK_RV rv = CKR_OK;
    CK_OBJECT_HANDLE handle = 0;
    CK_OBJECT_HANDLE handle2 = 0;
    SecretBytes output;
    size_t outputLength = 0;

    std::chrono::steady_clock::time_point submitted;
    double queueMicros = 0;
    double hsmMicros = 0;

    /* Copies params, aux and, unless `keepInput`, input. Throws std::bad_alloc. The caller has
     * checked the limits above. */
    void load(std::span<const uint8_t> params, std::span<const uint8_t> input,
              std::span<const uint8_t> aux, bool keepInput);
    /* Wipes everything that was copied or produced, and forgets what it was about. */
    void reset() noexcept;

private:
    SecretBytes copies_;
};

} // namespace hsmgate
