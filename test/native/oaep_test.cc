#include "check.h"
#include "oaep.h"

#include <algorithm>
#include <cstring>

using namespace hsmgate;
using namespace hsmgate::test;

namespace
{

const HashId all[] = {HashId::sha1, HashId::sha256, HashId::sha384, HashId::sha512};
constexpr size_t modulusBytes = 256;

/* The data block before masking: lHash, zeros, 0x01, message (RFC 8017 section 7.1.1). */
std::vector<uint8_t> dataBlock(HashId id, std::span<const uint8_t> message)
{
    std::vector<uint8_t> block(modulusBytes - 1 - hashBytes(id));
    Hash(id).finish(block.data());
    block[block.size() - message.size() - 1] = 1;
    std::copy(message.begin(), message.end(), block.end() - static_cast<ptrdiff_t>(message.size()));
    return block;
}

std::vector<uint8_t> mask(HashId id, uint8_t first, const std::vector<uint8_t> &block)
{
    std::vector<uint8_t> encoded(modulusBytes);
    encoded[0] = first;
    const std::span<uint8_t> seed(encoded.data() + 1, hashBytes(id));
    for (size_t i = 0; i < seed.size(); i++)
        seed[i] = static_cast<uint8_t>(31 * i + 7);
    const std::span<uint8_t> masked = std::span(encoded).subspan(1 + seed.size());
    std::copy(block.begin(), block.end(), masked.begin());
    mgf1Xor(id, seed, masked);
    mgf1Xor(id, masked, seed);
    return encoded;
}

std::vector<uint8_t> pattern(size_t length)
{
    std::vector<uint8_t> bytes(length);
    for (size_t i = 0; i < length; i++)
        bytes[i] = static_cast<uint8_t>(i * 13 + 1);
    return bytes;
}

bool allZero(std::span<const uint8_t> bytes)
{
    return std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; });
}

} // namespace

TEST("OAEP decoding gives back a message of every length")
{
    for (const HashId id : all) {
        for (size_t length = 0; length <= modulusBytes - 2 * hashBytes(id) - 2; length++) {
            const std::vector<uint8_t> message = pattern(length);
            std::vector<uint8_t> encoded = mask(id, 0, dataBlock(id, message));
            CHECK_EQUAL(decodeOaep(id, encoded), static_cast<ptrdiff_t>(length));
            CHECK(std::equal(message.begin(), message.end(), encoded.begin()));
            CHECK(allZero(std::span(encoded).subspan(length)));
        }
    }
}

TEST("OAEP decoding keeps a message that begins with zeros and ones")
{
    const std::vector<uint8_t> message = {0, 0, 1, 0, 1, 1};
    std::vector<uint8_t> encoded = mask(HashId::sha256, 0, dataBlock(HashId::sha256, message));
    CHECK_EQUAL(decodeOaep(HashId::sha256, encoded), ptrdiff_t{6});
    CHECK(std::equal(message.begin(), message.end(), encoded.begin()));
}

TEST("OAEP decoding refuses every kind of damage alike and leaves no message behind")
{
    for (const HashId id : all) {
        const std::vector<uint8_t> message = pattern(20);
        const std::vector<uint8_t> good = dataBlock(id, message);
        std::vector<std::vector<uint8_t>> damaged;
        damaged.push_back(mask(id, 1, good));
        damaged.push_back(mask(id, 0x80, good));
        for (size_t i = 0; i < hashBytes(id); i++) {
            std::vector<uint8_t> block = good;
            block[i] = static_cast<uint8_t>(block[i] ^ 0x80);
            damaged.push_back(mask(id, 0, block));
        }
        for (const uint8_t wrong : {uint8_t{2}, uint8_t{0x81}, uint8_t{0xff}}) {
            std::vector<uint8_t> separator = good;
            separator[separator.size() - message.size() - 1] = wrong;
            damaged.push_back(mask(id, 0, separator));
            std::vector<uint8_t> padding = good;
            padding[hashBytes(id)] = wrong;
            damaged.push_back(mask(id, 0, padding));
        }
        std::vector<uint8_t> noSeparator = good;
        std::fill(noSeparator.begin() + static_cast<ptrdiff_t>(hashBytes(id)), noSeparator.end(),
                  uint8_t{0});
        damaged.push_back(mask(id, 0, noSeparator));
        std::vector<uint8_t> flipped = mask(id, 0, good);
        flipped[modulusBytes - 1] ^= 1;
        damaged.push_back(flipped);
        for (std::vector<uint8_t> &encoded : damaged) {
            CHECK_EQUAL(decodeOaep(id, encoded), ptrdiff_t{-1});
            CHECK(allZero(encoded));
        }
    }
}

TEST("OAEP decoding refuses a modulus that is too short for the hash")
{
    for (size_t length = 0; length < 2 * 64 + 2; length++) {
        std::vector<uint8_t> encoded(length, 1);
        CHECK_EQUAL(decodeOaep(HashId::sha512, encoded), ptrdiff_t{-1});
        CHECK(allZero(encoded));
    }
}
