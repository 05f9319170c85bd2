/*
 * The key reference, the file that stands where a private key would be:
 *
 *     KeyReference ::= SEQUENCE {                       -- DER, IMPLICIT TAGS, at most 16 KiB
 *       version   INTEGER (1),
 *       keyId     OCTET STRING (SIZE (32)),             -- SHA-256 of the DER of publicKey
 *       publicKey SubjectPublicKeyInfo,
 *       endpoint  [0] UTF8String (SIZE (1..64)) OPTIONAL,
 *       token     [1] OCTET STRING (SIZE (32)) OPTIONAL,
 *       comment   [2] UTF8String (SIZE (0..256)) OPTIONAL }
 *
 * Pure: no allocation, no OpenSSL. src/tls-reference.ts writes and reads the same, and
 * test/vectors/key-reference.json holds both to it. Whether the key id fits is asked in key.c.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define REFERENCE_LABEL "HSMGATE KEY REFERENCE"

enum {
    REFERENCE_DER_BYTES_MAX = 16384,
    REFERENCE_FILE_BYTES_MAX = 1 << 20,
    REFERENCE_ENDPOINT_BYTES_MAX = 64,
    REFERENCE_COMMENT_BYTES_MAX = 256
};

struct bytes {
    const uint8_t *data;
    size_t count;
};

/* Views into the DER; `data` is NULL where a member is absent. */
struct reference {
    struct bytes key_id;
    struct bytes public_key;
    struct bytes endpoint;
    struct bytes token;
    struct bytes comment;
};

/* NULL when read, else why not, in words for an operator. */
const char *reference_decode(const uint8_t *der, size_t bytes, struct reference *reference);
