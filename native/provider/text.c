#include "text.h"

/* Bytes of the UTF-8 character (RFC 3629) at `text`, 0 when there is none. */
static size_t utf8_character(const uint8_t *text, size_t bytes)
{
    const uint8_t first = text[0];
    if (first < 0x80)
        return 1;
    const size_t count = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4 || count > bytes)
        return 0;
    for (size_t i = 1; i < count; i++)
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    const uint8_t second = text[1];
    if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) ||
        (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f))
        return 0;
    return count;
}

bool text_is_utf8(const uint8_t *text, size_t bytes)
{
    for (size_t at = 0, count; at < bytes; at += count)
        if ((count = utf8_character(text + at, bytes - at)) == 0)
            return false;
    return true;
}

bool text_is_plain(const uint8_t *text, size_t bytes)
{
    for (size_t at = 0; at < bytes; at++)
        if (text[at] < 0x20 || text[at] == 0x7f)
            return false;
    return text_is_utf8(text, bytes);
}
