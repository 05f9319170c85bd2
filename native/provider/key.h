/*
 * A key as OpenSSL holds it: the public half, and what it takes to ask the gateway for signatures.
 * There is no private half. Immutable but for two atomics, so that threads and contexts share it
 * without a lock.
 */
#pragma once

#include "frame.h"
#include "reference.h"

#include <openssl/core.h>
#include <openssl/types.h>
#include <stdatomic.h>
#include <stdbool.h>

struct provider;

enum key_type { KEY_RSA, KEY_EC, KEY_ED25519 };

struct key {
    struct provider *provider;
    atomic_uint references;
    /* A whole deadline went by without an HSM, and nothing was signed since. */
    atomic_bool waited_in_vain;
    enum key_type type;
    /* In the provider's own library context; NULL between `new` and `import`. */
    EVP_PKEY *public_key;
    /* SHA-256 of the SubjectPublicKeyInfo. */
    uint8_t key_id[KEY_ID_BYTES];
    size_t signature_bytes_max;
    /* Whether it came from a reference, and so can sign. */
    bool signs;
    bool has_token;
    uint8_t token[TOKEN_BYTES];
    char endpoint[REFERENCE_ENDPOINT_BYTES_MAX + 1];
};

/* The name of the type with OpenSSL. */
const char *key_type_name(enum key_type type);

/* NULL with an error raised. */
struct key *key_new(struct provider *provider, enum key_type type);
struct key *key_from_reference(struct provider *provider, const uint8_t *der, size_t bytes);
/* Takes over `public_key`; false with an error raised when it is none that the gateway serves. */
bool key_set_public(struct key *key, EVP_PKEY *public_key);
/* Gives the key to an application that loads it; what the application does not take is released. */
int key_give(struct key *key, OSSL_CALLBACK *callback, void *argument);
struct key *key_share(struct key *key);
/* The last one wipes the token. NULL is allowed. */
void key_free(struct key *key);
