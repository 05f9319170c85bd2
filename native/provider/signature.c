#include "signature.h"
#include "client.h"
#include "error.h"
#include "provider.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

static void *signature_new(void *provider, const char *properties)
{
    struct signature *signature = calloc(1, sizeof *signature);
    (void)properties;
    if (signature != NULL) {
        signature->provider = provider;
        signature->salt = SALT_AUTO;
    }
    return signature;
}

static void forget_message(struct signature *signature)
{
    if (signature->message != NULL) {
        OPENSSL_cleanse(signature->message, FRAME_INPUT_BYTES_MAX);
        free(signature->message);
    }
    EVP_MD_CTX_free(signature->digest);
    signature->message = NULL;
    signature->message_bytes = 0;
    signature->digest = NULL;
}

static void signature_free(void *context)
{
    struct signature *signature = context;
    if (signature == NULL)
        return;
    forget_message(signature);
    key_free(signature->key);
    free(signature);
}

static void *signature_dup(void *context)
{
    const struct signature *from = context;
    struct signature *to = malloc(sizeof *to);
    if (to == NULL)
        return NULL;
    *to = *from;
    to->message = NULL;
    to->digest = NULL;
    if (to->key != NULL)
        key_share(to->key);
    if (from->message != NULL && (to->message = malloc(FRAME_INPUT_BYTES_MAX)) != NULL)
        memcpy(to->message, from->message, from->message_bytes);
    if (from->digest != NULL && (to->digest = EVP_MD_CTX_new()) != NULL &&
        EVP_MD_CTX_copy_ex(to->digest, from->digest) != 1) {
        EVP_MD_CTX_free(to->digest);
        to->digest = NULL;
    }
    if ((from->message != NULL && to->message == NULL) ||
        (from->digest != NULL && to->digest == NULL)) {
        signature_free(to);
        return NULL;
    }
    return to;
}

/* Without a key the last one is used again. libssl comes here to ask what is supported: nothing
 * leaves the process. */
static int start(struct signature *signature, struct key *key, enum operation operation,
                 const OSSL_PARAM params[])
{
    if (key == NULL)
        key = signature->key;
    if (key == NULL || key->public_key == NULL)
        return RAISE(signature->provider, REASON_STATE, "no key");
    if (!key->signs)
        return RAISE(signature->provider, REASON_KEY_UNSUPPORTED, "a public key does not sign");
    key_share(key);
    key_free(signature->key);
    forget_message(signature);
    signature->key = key;
    signature->operation = operation;
    signature->is_pss = false;
    signature->salt = SALT_AUTO;
    signature->mgf_hash = HASH_NONE;
    return params == NULL || signature_set_params(signature, params);
}

static int sign_init(void *context, void *key, const OSSL_PARAM params[])
{
    struct signature *signature = context;
    signature->hash = HASH_NONE;
    return start(signature, key, OPERATION_DIGEST, params);
}

static int digest_sign_init(void *context, const char *name, void *key, const OSSL_PARAM params[])
{
    struct signature *signature = context;
    signature->hash = HASH_SHA256;
    if (name != NULL && name[0] != '\0' && (signature->hash = digest_find(name)) == HASH_NONE)
        return RAISE(signature->provider, REASON_DIGEST, "%s: SHA-256, SHA-384 and SHA-512 are",
                     name);
    return start(signature, key, OPERATION_MESSAGE, params);
}

static int digest_sign_init_ed25519(void *context, const char *name, void *key,
                                    const OSSL_PARAM params[])
{
    struct signature *signature = context;
    signature->hash = HASH_NONE;
    if (name != NULL && name[0] != '\0')
        return RAISE(signature->provider, REASON_DIGEST, "Ed25519 takes none");
    return start(signature, key, OPERATION_MESSAGE, params);
}

static enum wire_algorithm algorithm_of(const struct signature *signature)
{
    switch (signature->key->type) {
    case KEY_EC:
        return ALGORITHM_ECDSA;
    case KEY_ED25519:
        return ALGORITHM_EDDSA;
    default:
        return signature->is_pss ? ALGORITHM_RSA_PSS : ALGORITHM_RSA_PKCS1;
    }
}

/* Without `out` the longest length is told and nothing is asked; true then, too. */
static bool is_size_query(const struct signature *signature, const unsigned char *out,
                          size_t *out_bytes)
{
    if (out != NULL)
        return false;
    *out_bytes = signature->key->signature_bytes_max;
    return true;
}

static int finish(const struct signature *signature, enum wire_input kind, enum wire_hash hash,
                  const uint8_t *input, size_t input_bytes, unsigned char *out, size_t *out_bytes,
                  size_t capacity)
{
    struct signing signing = {
        .algorithm = algorithm_of(signature),
        .hash = hash,
        .mgf_hash = signature->mgf_hash != HASH_NONE ? signature->mgf_hash : hash,
        .input_kind = kind,
        .input = input,
        .input_bytes = input_bytes,
    };
    if (capacity < signature->key->signature_bytes_max)
        return RAISE(signature->provider, REASON_BUFFER, "%zu bytes, %zu needed", capacity,
                     signature->key->signature_bytes_max);
    if (signature->is_pss && !signature_salt_bytes(signature, &signing.salt_bytes))
        return 0;
    return client_sign(signature->key, &signing, out, out_bytes);
}

/* A digest that the application made. Which hash it is of has to be named, but for ECDSA, where its
 * length tells. */
static int sign(void *context, unsigned char *out, size_t *out_bytes, size_t capacity,
                const unsigned char *digest, size_t bytes)
{
    const struct signature *signature = context;
    if (signature->key == NULL || signature->operation != OPERATION_DIGEST)
        return RAISE(signature->provider, REASON_STATE, NULL);
    if (is_size_query(signature, out, out_bytes))
        return 1;
    enum wire_hash hash = signature->hash;
    if (hash == HASH_NONE && signature->key->type == KEY_EC)
        hash = digest_of_bytes(bytes);
    if (hash == HASH_NONE)
        return RAISE(signature->provider, REASON_DIGEST, "it has to be named");
    if (bytes != digest_bytes(hash))
        return RAISE(signature->provider, REASON_INPUT, "a digest of %s has %zu bytes, not %zu",
                     digest_name(hash), digest_bytes(hash), bytes);
    return finish(signature, INPUT_DIGEST, hash, digest, bytes, out, out_bytes, capacity);
}

/* Hashes here what does not fit into a frame; the gateway then sees the digest alone. */
static bool hash_more(struct signature *signature, const uint8_t *data, size_t bytes)
{
    if (signature->digest == NULL) {
        EVP_MD *md = EVP_MD_fetch(signature->provider->libctx, digest_name(signature->hash), NULL);
        signature->digest = EVP_MD_CTX_new();
        const bool begun =
            md != NULL && signature->digest != NULL &&
            EVP_DigestInit_ex2(signature->digest, md, NULL) == 1 &&
            EVP_DigestUpdate(signature->digest, signature->message, signature->message_bytes) == 1;
        EVP_MD_free(md);
        if (!begun)
            return false;
    }
    return EVP_DigestUpdate(signature->digest, data, bytes) == 1;
}

static int digest_sign_update(void *context, const unsigned char *data, size_t bytes)
{
    struct signature *signature = context;
    if (signature->key == NULL || signature->operation != OPERATION_MESSAGE)
        return RAISE(signature->provider, REASON_STATE, NULL);
    if (bytes == 0)
        return 1;
    if (signature->digest != NULL || bytes > FRAME_INPUT_BYTES_MAX - signature->message_bytes)
        return hash_more(signature, data, bytes) || RAISE(signature->provider, REASON_MEMORY, NULL);
    if (signature->message == NULL && (signature->message = malloc(FRAME_INPUT_BYTES_MAX)) == NULL)
        return RAISE(signature->provider, REASON_MEMORY, NULL);
    memcpy(signature->message + signature->message_bytes, data, bytes);
    signature->message_bytes += bytes;
    return 1;
}

static int digest_sign_final(void *context, unsigned char *out, size_t *out_bytes, size_t capacity)
{
    struct signature *signature = context;
    if (signature->key == NULL || signature->operation != OPERATION_MESSAGE)
        return RAISE(signature->provider, REASON_STATE, NULL);
    if (is_size_query(signature, out, out_bytes))
        return 1;
    int done;
    if (signature->digest == NULL) {
        done = finish(signature, INPUT_MESSAGE, signature->hash, signature->message,
                      signature->message_bytes, out, out_bytes, capacity);
    } else {
        unsigned char digest[EVP_MAX_MD_SIZE];
        unsigned bytes = 0;
        done = EVP_DigestFinal_ex(signature->digest, digest, &bytes) == 1 &&
               finish(signature, INPUT_DIGEST, signature->hash, digest, bytes, out, out_bytes,
                      capacity);
    }
    forget_message(signature);
    return done;
}

static int digest_sign(void *context, unsigned char *out, size_t *out_bytes, size_t capacity,
                       const unsigned char *message, size_t bytes)
{
    struct signature *signature = context;
    if (signature->key == NULL || signature->operation != OPERATION_MESSAGE)
        return RAISE(signature->provider, REASON_STATE, NULL);
    if (is_size_query(signature, out, out_bytes))
        return 1;
    if (bytes <= FRAME_INPUT_BYTES_MAX)
        return finish(signature, INPUT_MESSAGE, signature->hash, message, bytes, out, out_bytes,
                      capacity);
    if (signature->hash == HASH_NONE)
        return RAISE(signature->provider, REASON_INPUT, "Ed25519 signs at most %d bytes",
                     FRAME_INPUT_BYTES_MAX);
    return digest_sign_update(signature, message, bytes) &&
           digest_sign_final(signature, out, out_bytes, capacity);
}

#define COMMON_FUNCTIONS                                        \
    DISPATCH(OSSL_FUNC_SIGNATURE_NEWCTX, signature_new),        \
        DISPATCH(OSSL_FUNC_SIGNATURE_FREECTX, signature_free),  \
        DISPATCH(OSSL_FUNC_SIGNATURE_DUPCTX, signature_dup),    \
        DISPATCH(OSSL_FUNC_SIGNATURE_DIGEST_SIGN, digest_sign), \
        DISPATCH(OSSL_FUNC_SIGNATURE_GET_CTX_PARAMS, signature_get_params)
#define HASHING_FUNCTIONS                                                     \
    COMMON_FUNCTIONS, DISPATCH(OSSL_FUNC_SIGNATURE_SIGN_INIT, sign_init),     \
        DISPATCH(OSSL_FUNC_SIGNATURE_SIGN, sign),                             \
        DISPATCH(OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT, digest_sign_init),     \
        DISPATCH(OSSL_FUNC_SIGNATURE_DIGEST_SIGN_UPDATE, digest_sign_update), \
        DISPATCH(OSSL_FUNC_SIGNATURE_DIGEST_SIGN_FINAL, digest_sign_final),   \
        DISPATCH(OSSL_FUNC_SIGNATURE_SET_CTX_PARAMS, signature_set_params)

static const OSSL_DISPATCH rsa_functions[] = {
    HASHING_FUNCTIONS,
    DISPATCH(OSSL_FUNC_SIGNATURE_GETTABLE_CTX_PARAMS, signature_gettable_rsa),
    DISPATCH(OSSL_FUNC_SIGNATURE_SETTABLE_CTX_PARAMS, signature_settable_rsa),
    DISPATCH_END,
};
static const OSSL_DISPATCH ecdsa_functions[] = {
    HASHING_FUNCTIONS,
    DISPATCH(OSSL_FUNC_SIGNATURE_GETTABLE_CTX_PARAMS, signature_gettable),
    DISPATCH(OSSL_FUNC_SIGNATURE_SETTABLE_CTX_PARAMS, signature_settable),
    DISPATCH_END,
};
/*
 * One shot only: Ed25519 reads the message twice (RFC 8032, section 5.1.6). Nothing can be set;
 * OpenSSL refuses an algorithm with only one of the functions of a pair.
 */
static const OSSL_DISPATCH ed25519_functions[] = {
    COMMON_FUNCTIONS,
    DISPATCH(OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT, digest_sign_init_ed25519),
    DISPATCH(OSSL_FUNC_SIGNATURE_GETTABLE_CTX_PARAMS, signature_gettable),
    DISPATCH_END,
};

const OSSL_ALGORITHM signature_algorithms[] = {
    {"RSA:rsaEncryption:1.2.840.113549.1.1.1", PROVIDER_PROPERTIES, rsa_functions,
     "RSA signatures of the gateway's HSM"},
    {"ECDSA", PROVIDER_PROPERTIES, ecdsa_functions, "ECDSA signatures of the gateway's HSM"},
    {"ED25519:1.3.101.112", PROVIDER_PROPERTIES, ed25519_functions,
     "Ed25519 signatures of the gateway's HSM"},
    {NULL, NULL, NULL, NULL},
};
