#include "hash.h"

#include "secret.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace hsmgate
{

namespace
{

/* FIPS 180-4 section 4.2.3. The constants of SHA-256 (4.2.2) are the upper halves of the first 64.
 */
constexpr uint64_t roundConstants[80] = {
    0x428a2f98d728ae22ULL, 0x7137449123ef65cdULL, 0xb5c0fbcfec4d3b2fULL, 0xe9b5dba58189dbbcULL,
    0x3956c25bf348b538ULL, 0x59f111f1b605d019ULL, 0x923f82a4af194f9bULL, 0xab1c5ed5da6d8118ULL,
    0xd807aa98a3030242ULL, 0x12835b0145706fbeULL, 0x243185be4ee4b28cULL, 0x550c7dc3d5ffb4e2ULL,
    0x72be5d74f27b896fULL, 0x80deb1fe3b1696b1ULL, 0x9bdc06a725c71235ULL, 0xc19bf174cf692694ULL,
    0xe49b69c19ef14ad2ULL, 0xefbe4786384f25e3ULL, 0x0fc19dc68b8cd5b5ULL, 0x240ca1cc77ac9c65ULL,
    0x2de92c6f592b0275ULL, 0x4a7484aa6ea6e483ULL, 0x5cb0a9dcbd41fbd4ULL, 0x76f988da831153b5ULL,
    0x983e5152ee66dfabULL, 0xa831c66d2db43210ULL, 0xb00327c898fb213fULL, 0xbf597fc7beef0ee4ULL,
    0xc6e00bf33da88fc2ULL, 0xd5a79147930aa725ULL, 0x06ca6351e003826fULL, 0x142929670a0e6e70ULL,
    0x27b70a8546d22ffcULL, 0x2e1b21385c26c926ULL, 0x4d2c6dfc5ac42aedULL, 0x53380d139d95b3dfULL,
    0x650a73548baf63deULL, 0x766a0abb3c77b2a8ULL, 0x81c2c92e47edaee6ULL, 0x92722c851482353bULL,
    0xa2bfe8a14cf10364ULL, 0xa81a664bbc423001ULL, 0xc24b8b70d0f89791ULL, 0xc76c51a30654be30ULL,
    0xd192e819d6ef5218ULL, 0xd69906245565a910ULL, 0xf40e35855771202aULL, 0x106aa07032bbd1b8ULL,
    0x19a4c116b8d2d0c8ULL, 0x1e376c085141ab53ULL, 0x2748774cdf8eeb99ULL, 0x34b0bcb5e19b48a8ULL,
    0x391c0cb3c5c95a63ULL, 0x4ed8aa4ae3418acbULL, 0x5b9cca4f7763e373ULL, 0x682e6ff3d6b2b8a3ULL,
    0x748f82ee5defb2fcULL, 0x78a5636f43172f60ULL, 0x84c87814a1f0ab72ULL, 0x8cc702081a6439ecULL,
    0x90befffa23631e28ULL, 0xa4506cebde82bde9ULL, 0xbef9a3f7b2c67915ULL, 0xc67178f2e372532bULL,
    0xca273eceea26619cULL, 0xd186b8c721c0c207ULL, 0xeada7dd6cde0eb1eULL, 0xf57d4f7fee6ed178ULL,
    0x06f067aa72176fbaULL, 0x0a637dc5a2c898a6ULL, 0x113f9804bef90daeULL, 0x1b710b35131c471bULL,
    0x28db77f523047d84ULL, 0x32caab7b40c72493ULL, 0x3c9ebe0a15c9bebcULL, 0x431d67c49c100d4cULL,
    0x4cc5d4becb3e42b6ULL, 0x597f299cfc657e2aULL, 0x5fcb6fab3ad6faecULL, 0x6c44198c4a475817ULL,
};

constexpr uint64_t initialSha1[8] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
constexpr uint64_t initialSha256[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                       0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
constexpr uint64_t initialSha384[8] = {
    0xcbbb9d5dc1059ed8ULL, 0x629a292a367cd507ULL, 0x9159015a3070dd17ULL, 0x152fecd8f70e5939ULL,
    0x67332667ffc00b31ULL, 0x8eb44a8768581511ULL, 0xdb0c2e0d64f98fa7ULL, 0x47b5481dbefa4fa4ULL};
constexpr uint64_t initialSha512[8] = {
    0x6a09e667f3bcc908ULL, 0xbb67ae8584caa73bULL, 0x3c6ef372fe94f82bULL, 0xa54ff53a5f1d36f1ULL,
    0x510e527fade682d1ULL, 0x9b05688c2b3e6c1fULL, 0x1f83d9abfb41bd6bULL, 0x5be0cd19137e2179ULL};

const uint64_t *initialState(HashId id)
{
    switch (id) {
    case HashId::sha1:
        return initialSha1;
    case HashId::sha256:
        return initialSha256;
    case HashId::sha384:
        return initialSha384;
    case HashId::sha512:
        break;
    }
    return initialSha512;
}

template <typename Word> Word readBigEndian(const uint8_t *bytes)
{
    Word value = 0;
    for (size_t i = 0; i < sizeof(Word); i++)
        value = static_cast<Word>(value << 8) | bytes[i];
    return value;
}

/* Rotation counts of FIPS 180-4 sections 4.1.2 and 4.1.3. */
template <typename Word> struct Sha2;
template <> struct Sha2<uint32_t> {
    static constexpr int rounds = 64;
    static uint32_t constant(int t) { return static_cast<uint32_t>(roundConstants[t] >> 32); }
    static uint32_t bigSigma0(uint32_t x)
    {
        return std::rotr(x, 2) ^ std::rotr(x, 13) ^ std::rotr(x, 22);
    }
    static uint32_t bigSigma1(uint32_t x)
    {
        return std::rotr(x, 6) ^ std::rotr(x, 11) ^ std::rotr(x, 25);
    }
    static uint32_t sigma0(uint32_t x) { return std::rotr(x, 7) ^ std::rotr(x, 18) ^ (x >> 3); }
    static uint32_t sigma1(uint32_t x) { return std::rotr(x, 17) ^ std::rotr(x, 19) ^ (x >> 10); }
};
template <> struct Sha2<uint64_t> {
    static constexpr int rounds = 80;
    static uint64_t constant(int t) { return roundConstants[t]; }
    static uint64_t bigSigma0(uint64_t x)
    {
        return std::rotr(x, 28) ^ std::rotr(x, 34) ^ std::rotr(x, 39);
    }
    static uint64_t bigSigma1(uint64_t x)
    {
        return std::rotr(x, 14) ^ std::rotr(x, 18) ^ std::rotr(x, 41);
    }
    static uint64_t sigma0(uint64_t x) { return std::rotr(x, 1) ^ std::rotr(x, 8) ^ (x >> 7); }
    static uint64_t sigma1(uint64_t x) { return std::rotr(x, 19) ^ std::rotr(x, 61) ^ (x >> 6); }
};

} // namespace

std::optional<HashId> hashOf(CK_MECHANISM_TYPE mechanism)
{
    switch (mechanism) {
    case CKM_SHA_1:
        return HashId::sha1;
    case CKM_SHA256:
        return HashId::sha256;
    case CKM_SHA384:
        return HashId::sha384;
    case CKM_SHA512:
        return HashId::sha512;
    default:
        return std::nullopt;
    }
}

size_t hashBytes(HashId id)
{
    switch (id) {
    case HashId::sha1:
        return 20;
    case HashId::sha256:
        return 32;
    case HashId::sha384:
        return 48;
    case HashId::sha512:
        break;
    }
    return 64;
}

Hash::Hash(HashId id) : id_(id), blockBytes_(id == HashId::sha1 || id == HashId::sha256 ? 64 : 128)
{
    std::copy_n(initialState(id), 8, state_);
}

Hash::~Hash()
{
    wipe(state_, sizeof state_);
    wipe(block_, sizeof block_);
}

void Hash::update(std::span<const uint8_t> bytes)
{
    total_ += bytes.size();
    while (!bytes.empty()) {
        const size_t taken = std::min(bytes.size(), blockBytes_ - filled_);
        std::memcpy(block_ + filled_, bytes.data(), taken);
        filled_ += taken;
        bytes = bytes.subspan(taken);
        if (filled_ == blockBytes_) {
            compress(block_);
            filled_ = 0;
        }
    }
}

void Hash::finish(uint8_t *digest)
{
    const uint64_t bits = total_ * 8;
    const size_t lengthBytes = blockBytes_ / 8;
    block_[filled_++] = 0x80;
    if (filled_ > blockBytes_ - lengthBytes) {
        std::memset(block_ + filled_, 0, blockBytes_ - filled_);
        compress(block_);
        filled_ = 0;
    }
    std::memset(block_ + filled_, 0, blockBytes_ - filled_);
    for (size_t i = 0; i < 8; i++)
        block_[blockBytes_ - 1 - i] = static_cast<uint8_t>(bits >> (8 * i));
    compress(block_);
    const size_t wordBytes = blockBytes_ / 16;
    for (size_t i = 0; i < hashBytes(id_); i++)
        digest[i] =
            static_cast<uint8_t>(state_[i / wordBytes] >> (8 * (wordBytes - 1 - i % wordBytes)));
}

void Hash::compress(const uint8_t *block)
{
    if (id_ == HashId::sha1)
        compressSha1(block);
    else if (blockBytes_ == 64)
        compressSha2<uint32_t>(block);
    else
        compressSha2<uint64_t>(block);
}

void Hash::compressSha1(const uint8_t *block)
{
    uint32_t w[80];
    for (int t = 0; t < 16; t++)
        w[t] = readBigEndian<uint32_t>(block + 4 * t);
    for (int t = 16; t < 80; t++)
        w[t] = std::rotl(w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16], 1);
    uint32_t a = static_cast<uint32_t>(state_[0]), b = static_cast<uint32_t>(state_[1]);
    uint32_t c = static_cast<uint32_t>(state_[2]), d = static_cast<uint32_t>(state_[3]);
    uint32_t e = static_cast<uint32_t>(state_[4]);
    for (int t = 0; t < 80; t++) {
        uint32_t f, k;
        if (t < 20) {
            f = (b & c) ^ (~b & d);
            k = 0x5a827999;
        } else if (t < 40) {
            f = b ^ c ^ d;
            k = 0x6ed9eba1;
        } else if (t < 60) {
            f = (b & c) ^ (b & d) ^ (c & d);
            k = 0x8f1bbcdc;
        } else {
            f = b ^ c ^ d;
            k = 0xca62c1d6;
        }
        const uint32_t next = std::rotl(a, 5) + f + e + k + w[t];
        e = d;
        d = c;
        c = std::rotl(b, 30);
        b = a;
        a = next;
    }
    const uint32_t sums[5] = {a, b, c, d, e};
    for (int i = 0; i < 5; i++)
        state_[i] = static_cast<uint32_t>(state_[i] + sums[i]);
    wipe(w, sizeof w);
}

template <typename Word> void Hash::compressSha2(const uint8_t *block)
{
    using Sigma = Sha2<Word>;
    Word w[Sigma::rounds];
    for (int t = 0; t < 16; t++)
        w[t] = readBigEndian<Word>(block + sizeof(Word) * static_cast<size_t>(t));
    for (int t = 16; t < Sigma::rounds; t++)
        w[t] = Sigma::sigma1(w[t - 2]) + w[t - 7] + Sigma::sigma0(w[t - 15]) + w[t - 16];
    Word v[8];
    for (int i = 0; i < 8; i++)
        v[i] = static_cast<Word>(state_[i]);
    for (int t = 0; t < Sigma::rounds; t++) {
        const Word choice = (v[4] & v[5]) ^ (~v[4] & v[6]);
        const Word majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
        const Word t1 = v[7] + Sigma::bigSigma1(v[4]) + choice + Sigma::constant(t) + w[t];
        const Word t2 = Sigma::bigSigma0(v[0]) + majority;
        v[7] = v[6];
        v[6] = v[5];
        v[5] = v[4];
        v[4] = v[3] + t1;
        v[3] = v[2];
        v[2] = v[1];
        v[1] = v[0];
        v[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++)
        state_[i] = static_cast<Word>(static_cast<Word>(state_[i]) + v[i]);
    wipe(w, sizeof w);
    wipe(v, sizeof v);
}

void mgf1Xor(HashId id, std::span<const uint8_t> seed, std::span<uint8_t> target)
{
    uint8_t mask[hashBytesMax];
    const size_t length = hashBytes(id);
    uint32_t counter = 0;
    for (size_t at = 0; at < target.size(); at += length, counter++) {
        const uint8_t encoded[4] = {
            static_cast<uint8_t>(counter >> 24), static_cast<uint8_t>(counter >> 16),
            static_cast<uint8_t>(counter >> 8), static_cast<uint8_t>(counter)};
        Hash hash(id);
        hash.update(seed);
        hash.update(encoded);
        hash.finish(mask);
        for (size_t i = 0; i < length && at + i < target.size(); i++)
            target[at + i] = static_cast<uint8_t>(target[at + i] ^ mask[i]);
    }
    wipe(mask, sizeof mask);
}

} // namespace hsmgate
