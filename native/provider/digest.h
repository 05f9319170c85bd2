/* The hashes that the protocol knows. */
#pragma once

#include "frame.h"

#include <stdbool.h>

/* Under any of the names that OpenSSL uses for them, in any case; HASH_NONE when it is another. */
enum wire_hash digest_find(const char *name);
const char *digest_name(enum wire_hash hash);
size_t digest_bytes(enum wire_hash hash);
/* The hash with digests of so many bytes, or HASH_NONE. */
enum wire_hash digest_of_bytes(size_t bytes);
