/*
 * PEM (RFC 7468), one block at a time, because what follows in a file belongs to other readers. Not
 * OpenSSL's reader: that one says no more of a reference that is cut off than of a file without
 * any, and has no limit.
 */
#pragma once

#include <openssl/types.h>
#include <stddef.h>
#include <stdint.h>

struct provider;

enum pem_outcome { PEM_NONE, PEM_OTHER_BLOCK, PEM_REFERENCE, PEM_BROKEN_REFERENCE };

/*
 * Reads up to the end of the next block. Of a reference the DER comes back, at most 16 KiB; release
 * it with pem_release, which wipes it. Why a reference is broken is raised.
 */
enum pem_outcome pem_read(const struct provider *provider, BIO *in, uint8_t **der, size_t *bytes);
void pem_release(uint8_t *der, size_t bytes);
