/* One PEM block at a time, because what follows in a file belongs to other readers. */
#pragma once

#include <openssl/types.h>
#include <stdbool.h>
#include <stdint.h>

struct provider;

enum pem_outcome { PEM_NONE, PEM_OTHER_BLOCK, PEM_REFERENCE, PEM_BROKEN_REFERENCE };

/*
 * Reads the next block. Of a reference the DER comes back; release it with pem_release, which wipes
 * it. A reference with headers, as encrypted keys have them, is broken and an error raised.
 */
enum pem_outcome pem_read(const struct provider *provider, BIO *in, uint8_t **der, long *bytes);
void pem_release(uint8_t *der, long bytes);
