#include "digest.h"

#include <strings.h>

static const struct {
    const char *names[5];
    size_t bytes;
} digests[] = {
    [HASH_NONE] = {{"none"}, 0},
    [HASH_SHA256] = {{"SHA256", "SHA2-256", "SHA-256", "2.16.840.1.101.3.4.2.1"}, 32},
    [HASH_SHA384] = {{"SHA384", "SHA2-384", "SHA-384", "2.16.840.1.101.3.4.2.2"}, 48},
    [HASH_SHA512] = {{"SHA512", "SHA2-512", "SHA-512", "2.16.840.1.101.3.4.2.3"}, 64},
};

enum wire_hash digest_find(const char *name)
{
    for (enum wire_hash hash = HASH_SHA256; hash <= HASH_SHA512; hash++)
        for (const char *const *known = digests[hash].names; *known != NULL; known++)
            if (strcasecmp(name, *known) == 0)
                return hash;
    return HASH_NONE;
}

const char *digest_name(enum wire_hash hash)
{
    return digests[hash].names[0];
}

size_t digest_bytes(enum wire_hash hash)
{
    return digests[hash].bytes;
}

enum wire_hash digest_of_bytes(size_t bytes)
{
    for (enum wire_hash hash = HASH_SHA256; hash <= HASH_SHA512; hash++)
        if (digests[hash].bytes == bytes)
            return hash;
    return HASH_NONE;
}
