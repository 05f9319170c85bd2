#include "key.h"
#include "error.h"
#include "provider.h"

#include <openssl/core_names.h>
#include <openssl/core_object.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

enum { RSA_BITS_MIN = 2048, RSA_BITS_MAX = 8 * FRAME_RESULT_BYTES_MAX };

const char *key_type_name(enum key_type type)
{
    static const char *const names[] = {"RSA", "EC", "ED25519"};
    return names[type];
}

struct key *key_new(struct provider *provider, enum key_type type)
{
    struct key *key = calloc(1, sizeof *key);
    if (key == NULL) {
        RAISE(provider, REASON_MEMORY, NULL);
        return NULL;
    }
    key->provider = provider;
    key->type = type;
    atomic_init(&key->references, 1);
    atomic_init(&key->waited_in_vain, false);
    return key;
}

struct key *key_share(struct key *key)
{
    atomic_fetch_add_explicit(&key->references, 1, memory_order_relaxed);
    return key;
}

void key_free(struct key *key)
{
    if (key == NULL || atomic_fetch_sub_explicit(&key->references, 1, memory_order_acq_rel) != 1)
        return;
    EVP_PKEY_free(key->public_key);
    OPENSSL_cleanse(key->token, sizeof key->token);
    free(key);
}

static bool find_type(const EVP_PKEY *public_key, enum key_type *type)
{
    for (enum key_type candidate = KEY_RSA; candidate <= KEY_ED25519; candidate++)
        if (EVP_PKEY_is_a(public_key, key_type_name(candidate))) {
            *type = candidate;
            return true;
        }
    return false;
}

static bool is_served_curve(const EVP_PKEY *public_key)
{
    char group[32];
    size_t bytes;
    return EVP_PKEY_get_group_name(public_key, group, sizeof group, &bytes) == 1 &&
           (strcmp(group, "prime256v1") == 0 || strcmp(group, "secp384r1") == 0 ||
            strcmp(group, "secp521r1") == 0);
}

static bool compute_key_id(const struct provider *provider, const EVP_PKEY *public_key,
                           uint8_t key_id[KEY_ID_BYTES])
{
    unsigned char *spki = NULL;
    size_t digest_bytes = 0;
    const int bytes = i2d_PUBKEY(public_key, &spki);
    const bool done = bytes > 0 && EVP_Q_digest(provider->libctx, "SHA256", NULL, spki,
                                                (size_t)bytes, key_id, &digest_bytes) == 1;
    OPENSSL_free(spki);
    return done;
}

bool key_set_public(struct key *key, EVP_PKEY *public_key)
{
    const struct provider *provider = key->provider;
    EVP_PKEY_free(key->public_key);
    key->public_key = public_key;
    enum key_type type;
    if (!find_type(public_key, &type) || type != key->type)
        return RAISE(provider, REASON_KEY_UNSUPPORTED, "RSA, EC and Ed25519 are");
    if (type == KEY_RSA && (EVP_PKEY_get_bits(public_key) < RSA_BITS_MIN ||
                            EVP_PKEY_get_bits(public_key) > RSA_BITS_MAX))
        return RAISE(provider, REASON_KEY_UNSUPPORTED, "RSA has %d to %d bits", RSA_BITS_MIN,
                     RSA_BITS_MAX);
    if (type == KEY_EC && !is_served_curve(public_key))
        return RAISE(provider, REASON_KEY_UNSUPPORTED, "EC curves are P-256, P-384 and P-521");
    const int signature_bytes = EVP_PKEY_get_size(public_key);
    if (signature_bytes <= 0 || !compute_key_id(provider, public_key, key->key_id))
        return RAISE(provider, REASON_KEY_UNSUPPORTED, "its public half is not usable");
    key->signature_bytes_max = (size_t)signature_bytes;
    return true;
}

struct key *key_from_reference(struct provider *provider, const uint8_t *der, size_t bytes)
{
    struct reference reference;
    const char *trouble = reference_decode(der, bytes, &reference);
    if (trouble != NULL) {
        RAISE(provider, REASON_REFERENCE, "%s", trouble);
        return NULL;
    }
    uint8_t key_id[KEY_ID_BYTES];
    size_t digest_bytes;
    if (EVP_Q_digest(provider->libctx, "SHA256", NULL, reference.public_key.data,
                     reference.public_key.count, key_id, &digest_bytes) != 1 ||
        CRYPTO_memcmp(key_id, reference.key_id.data, KEY_ID_BYTES) != 0) {
        RAISE(provider, REASON_REFERENCE, "its key id is not the SHA-256 of its public key");
        return NULL;
    }
    const unsigned char *spki = reference.public_key.data;
    EVP_PKEY *public_key =
        d2i_PUBKEY_ex(NULL, &spki, (long)reference.public_key.count, provider->libctx, NULL);
    enum key_type type;
    if (public_key == NULL || spki != reference.public_key.data + reference.public_key.count ||
        !find_type(public_key, &type)) {
        EVP_PKEY_free(public_key);
        RAISE(provider, REASON_KEY_UNSUPPORTED,
              "the public key in the reference is no RSA, EC or Ed25519 key");
        return NULL;
    }
    struct key *key = key_new(provider, type);
    if (key == NULL) {
        EVP_PKEY_free(public_key);
        return NULL;
    }
    if (!key_set_public(key, public_key)) {
        key_free(key);
        return NULL;
    }
    /* As the reference has it: the gateway computes it over the same bytes. */
    memcpy(key->key_id, key_id, sizeof key_id);
    key->signs = true;
    if (reference.endpoint.data != NULL)
        memcpy(key->endpoint, reference.endpoint.data, reference.endpoint.count);
    if (reference.token.data != NULL) {
        key->has_token = true;
        memcpy(key->token, reference.token.data, TOKEN_BYTES);
    }
    return key;
}

int key_give(struct key *key, OSSL_CALLBACK *callback, void *argument)
{
    int object_type = OSSL_OBJECT_PKEY;
    const OSSL_PARAM object[] = {
        OSSL_PARAM_construct_int(OSSL_OBJECT_PARAM_TYPE, &object_type),
        OSSL_PARAM_construct_utf8_string(OSSL_OBJECT_PARAM_DATA_TYPE,
                                         (char *)key_type_name(key->type), 0),
        OSSL_PARAM_construct_octet_string(OSSL_OBJECT_PARAM_REFERENCE, &key, sizeof key),
        OSSL_PARAM_construct_end(),
    };
    /* keymgmt's load takes the key out of the reference. */
    const int done = callback(object, argument);
    key_free(key);
    return done;
}
