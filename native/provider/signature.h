/*
 * The context of one signing operation. Parameters and size queries are answered here; only the
 * last step, signature_finish, asks the gateway. One thread at a time, as EVP_MD_CTX has it.
 */
#pragma once

#include "digest.h"
#include "key.h"

#include <openssl/core.h>
#include <openssl/types.h>
#include <stdbool.h>

enum operation { OPERATION_NONE, OPERATION_DIGEST, OPERATION_MESSAGE };

/* As OpenSSL numbers them (RSA_PSS_SALTLEN_*), beside lengths in bytes. */
enum salt { SALT_DIGEST = -1, SALT_AUTO = -2, SALT_MAX = -3, SALT_AUTO_DIGEST_MAX = -4 };

struct signature {
    struct provider *provider;
    struct key *key;
    enum operation operation;
    /* HASH_NONE: not named. */
    enum wire_hash hash;
    bool is_pss;
    /* HASH_NONE: the same as `hash`. */
    enum wire_hash mgf_hash;
    int salt;
    /* The message so far; what is longer than one frame goes into `digest` instead. */
    uint8_t *message;
    size_t message_bytes;
    EVP_MD_CTX *digest;
};

/* Bytes of salt that `signature` would use; false with an error raised when they don't fit the key.
 */
bool signature_salt_bytes(const struct signature *signature, uint16_t *salt_bytes);

int signature_set_params(void *context, const OSSL_PARAM params[]);
int signature_get_params(void *context, OSSL_PARAM params[]);
const OSSL_PARAM *signature_settable_rsa(void *context, void *provider);
const OSSL_PARAM *signature_settable(void *context, void *provider);
const OSSL_PARAM *signature_gettable_rsa(void *context, void *provider);
const OSSL_PARAM *signature_gettable(void *context, void *provider);

/* The DER AlgorithmIdentifier of what `signature` makes; 0 when there is none. */
size_t algorithm_identifier(const struct signature *signature, uint8_t *out, size_t capacity);
