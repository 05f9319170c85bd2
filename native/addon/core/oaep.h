/*
 * EME-OAEP decoding (RFC 8017 section 7.1.2 step 3, empty label) for modules that lack the hash
 * that a caller asks for. Constant time: no branch and no memory index depends on the encoded
 * message, and every failure looks the same (Manger's attack). Whether decoding succeeded, and on
 * success the length of the message, are the only things a caller may learn.
 */
#pragma once

#include "hash.h"

#include <cstddef>
#include <cstdint>
#include <span>

namespace hsmgate
{

/*
 * Decodes `encoded` (k bytes, overwritten) and moves the message to its beginning.
 * Returns the length of the message, or -1 when the padding is wrong; then `encoded` is all zero.
 */
ptrdiff_t decodeOaep(HashId hash, std::span<uint8_t> encoded);

} // namespace hsmgate
