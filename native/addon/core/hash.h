/*
 * SHA-1, SHA-256, SHA-384, SHA-512 (FIPS 180-4) and MGF1 (RFC 8017 appendix B.2.1), for OAEP
 * decoding only. Own code, because the Node binary exports OpenSSL's symbols and a second libcrypto
 * in the process would clash with them. No branch and no memory index depends on the data. State is
 * wiped at the end.
 */
#pragma once

#include "cryptoki.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace hsmgate
{

enum class HashId : uint8_t { sha1, sha256, sha384, sha512 };

constexpr size_t hashBytesMax = 64;

/* The hash that a digest mechanism (CKM_SHA_1, CKM_SHA256, ...) names. */
std::optional<HashId> hashOf(CK_MECHANISM_TYPE mechanism);

size_t hashBytes(HashId id);

class Hash
{
public:
    explicit Hash(HashId id);
    ~Hash();
    Hash(const Hash &) = delete;
    Hash &operator=(const Hash &) = delete;

    void update(std::span<const uint8_t> bytes);
    /* Writes hashBytes(id) bytes. The object can't be used afterwards. */
    void finish(uint8_t *digest);

private:
    void compress(const uint8_t *block);
    void compressSha1(const uint8_t *block);
    template <typename Word> void compressSha2(const uint8_t *block);

    HashId id_;
    size_t blockBytes_;
    uint64_t state_[8];
    uint8_t block_[128];
    size_t filled_ = 0;
    uint64_t total_ = 0;
};

/* target ^= MGF1(seed, |target|). */
void mgf1Xor(HashId id, std::span<const uint8_t> seed, std::span<uint8_t> target);

} // namespace hsmgate
