#include "reference.h"
#include "frame.h"
#include "text.h"

#include <stdbool.h>
#include <string.h>

enum {
    TAG_INTEGER = 0x02,
    TAG_OCTETS = 0x04,
    TAG_SEQUENCE = 0x30,
    TAG_ENDPOINT = 0x80,
    TAG_TOKEN = 0x81,
    TAG_COMMENT = 0x82
};

/* Takes the value with `tag` at the head of `rest`; `whole` includes its header. Lengths are DER:
 * definite and as short as can be. */
static bool take(struct bytes *rest, uint8_t tag, struct bytes *value, struct bytes *whole)
{
    const uint8_t *at = rest->data;
    if (rest->count < 2 || at[0] != tag)
        return false;
    size_t header = 2, length = at[1];
    if (length >= 0x80) {
        const size_t width = length & 0x7f;
        if (width == 0 || width > 2 || rest->count < 2 + width)
            return false;
        length = 0;
        for (size_t i = 0; i < width; i++)
            length = length << 8 | at[2 + i];
        if (length < 0x80 || (width == 2 && length < 0x100))
            return false;
        header += width;
    }
    if (length > rest->count - header)
        return false;
    *value = (struct bytes){at + header, length};
    if (whole != NULL)
        *whole = (struct bytes){at, header + length};
    rest->data += header + length;
    rest->count -= header + length;
    return true;
}

/* A member that may be absent: true without effect when another tag, or nothing, follows. */
static bool take_optional(struct bytes *rest, uint8_t tag, struct bytes *value)
{
    *value = (struct bytes){NULL, 0};
    return rest->count == 0 || rest->data[0] != tag || take(rest, tag, value, NULL);
}

const char *reference_decode(const uint8_t *der, size_t bytes, struct reference *reference)
{
    struct bytes outer = {der, bytes}, rest, version;
    if (bytes > REFERENCE_DER_BYTES_MAX)
        return "it is longer than 16 KiB";
    if (!take(&outer, TAG_SEQUENCE, &rest, NULL))
        return "it is no DER sequence, or cut off";
    if (outer.count != 0)
        return "bytes follow its end";
    if (!take(&rest, TAG_INTEGER, &version, NULL))
        return "it lacks a version";
    if (version.count != 1 || version.data[0] != 1)
        return "its version is not 1";
    if (!take(&rest, TAG_OCTETS, &reference->key_id, NULL) ||
        reference->key_id.count != KEY_ID_BYTES)
        return "it lacks a key id of 32 bytes";
    struct bytes inner;
    if (!take(&rest, TAG_SEQUENCE, &inner, &reference->public_key))
        return "it lacks a public key";
    if (!take_optional(&rest, TAG_ENDPOINT, &reference->endpoint) ||
        (reference->endpoint.data != NULL &&
         (reference->endpoint.count < 1 ||
          reference->endpoint.count > REFERENCE_ENDPOINT_BYTES_MAX ||
          !text_is_utf8(reference->endpoint.data, reference->endpoint.count))))
        return "its endpoint is not 1 to 64 bytes of UTF-8";
    if (!take_optional(&rest, TAG_TOKEN, &reference->token) ||
        (reference->token.data != NULL && reference->token.count != TOKEN_BYTES))
        return "its token has not 32 bytes";
    if (!take_optional(&rest, TAG_COMMENT, &reference->comment) ||
        (reference->comment.data != NULL &&
         (reference->comment.count > REFERENCE_COMMENT_BYTES_MAX ||
          !text_is_utf8(reference->comment.data, reference->comment.count))))
        return "its comment is not UTF-8 of at most 256 bytes";
    if (rest.count != 0)
        return "it has members that this version does not know, or in another order";
    return NULL;
}
