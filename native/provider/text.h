/* UTF-8 (RFC 3629). Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool text_is_utf8(const uint8_t *text, size_t bytes);
/* UTF-8 without control characters: one line of a log. */
bool text_is_plain(const uint8_t *text, size_t bytes);
