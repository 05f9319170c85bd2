#include "oaep.h"

#include "secret.h"

#include <cstring>

namespace hsmgate
{

namespace
{

/* A mask is all ones for true, all zeros for false. */
using Mask = uint64_t;

/* Hides the value from the optimiser, which might otherwise turn masks back into branches. */
inline Mask opaque(Mask value)
{
    __asm__("" : "+r"(value));
    return value;
}

inline Mask isZero(uint64_t value)
{
    return opaque(static_cast<Mask>(0) - ((~value & (value - 1)) >> 63));
}

inline Mask isEqual(uint64_t a, uint64_t b)
{
    return isZero(a ^ b);
}

inline uint64_t select(Mask mask, uint64_t whenTrue, uint64_t whenFalse)
{
    return (opaque(mask) & whenTrue) | (opaque(~mask) & whenFalse);
}

} // namespace

ptrdiff_t decodeOaep(HashId hash, std::span<uint8_t> encoded)
{
    const size_t hashLength = hashBytes(hash);
    /* The length of the modulus is public. */
    if (encoded.size() < 2 * hashLength + 2) {
        wipe(encoded.data(), encoded.size());
        return -1;
    }
    const std::span<uint8_t> seed = encoded.subspan(1, hashLength);
    const std::span<uint8_t> block = encoded.subspan(1 + hashLength);
    mgf1Xor(hash, block, seed);
    mgf1Xor(hash, seed, block);

    uint8_t labelHash[hashBytesMax];
    Hash(hash).finish(labelHash);

    Mask good = isZero(encoded[0]);
    for (size_t i = 0; i < hashLength; i++)
        good &= isEqual(block[i], labelHash[i]);

    /* PS is zeros; the first byte that isn't must be 0x01. */
    Mask found = 0;
    uint64_t separator = hashLength;
    for (size_t i = hashLength; i < block.size(); i++) {
        const Mask one = isEqual(block[i], 1);
        const Mask zero = isZero(block[i]);
        separator = select(~found & one, i, separator);
        good &= found | one | zero;
        found |= one;
    }
    good &= found;

    /* Moves the message left to a fixed place by powers of two, so that the access pattern does not
     * tell its length. */
    const size_t first = hashLength + 1;
    const uint64_t shift = separator - hashLength;
    for (size_t step = 1; step < block.size() - hashLength; step <<= 1) {
        const Mask move = ~isZero(shift & step);
        for (size_t i = first; i + step < block.size(); i++)
            block[i] = static_cast<uint8_t>(select(move, block[i + step], block[i]));
    }
    const uint64_t length = block.size() - 1 - separator;

    /* RFC 8017 lets |M| be anything up to k - 2 hLen - 2; the loop's bounds are public, its mask is
     * not. */
    const size_t lengthMax = block.size() - first;
    Mask inside = ~static_cast<Mask>(0);
    for (size_t i = 0; i < lengthMax; i++) {
        inside &= ~isEqual(i, length);
        encoded[i] = static_cast<uint8_t>(block[first + i] & inside & good);
    }
    wipe(encoded.data() + lengthMax, encoded.size() - lengthMax);
    return static_cast<ptrdiff_t>(select(good, length, ~static_cast<uint64_t>(0)));
}

} // namespace hsmgate
