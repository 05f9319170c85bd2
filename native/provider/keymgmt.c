/*
 * Keys for OpenSSL. Whatever needs the public half is answered by the private library context's own
 * provider; whatever needs the private half is refused, because there is none. Never touches the
 * network.
 */
#include "error.h"
#include "key.h"
#include "provider.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <string.h>

static void *new_rsa(void *context)
{
    return key_new(context, KEY_RSA);
}

static void *new_ec(void *context)
{
    return key_new(context, KEY_EC);
}

static void *new_ed25519(void *context)
{
    return key_new(context, KEY_ED25519);
}

static void keymgmt_free(void *key)
{
    key_free(key);
}

static void *keymgmt_dup(const void *key, int selection)
{
    (void)selection;
    return key_share((struct key *)key);
}

/* The object that a decoder or the store made: a pointer to it, which is ours from now on. */
static void *keymgmt_load(const void *reference, size_t bytes)
{
    if (reference == NULL || bytes != sizeof(struct key *))
        return NULL;
    struct key **place = *(struct key * *const *)&reference;
    struct key *key = *place;
    *place = NULL;
    return key;
}

static int keymgmt_has(const void *data, int selection)
{
    const struct key *key = data;
    if (key == NULL || key->public_key == NULL)
        return 0;
    return (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) == 0 || key->signs;
}

static void hex_of(const uint8_t *bytes, size_t count, char *text)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < count; i++) {
        text[2 * i] = digits[bytes[i] >> 4];
        text[2 * i + 1] = digits[bytes[i] & 15];
    }
    text[2 * count] = '\0';
}

static int keymgmt_match(const void *left, const void *right, int selection)
{
    const struct key *a = left, *b = right;
    if (a->public_key == NULL || b->public_key == NULL)
        return 0;
    ERR_set_mark();
    const int same = (selection & OSSL_KEYMGMT_SELECT_KEYPAIR) != 0
                         ? EVP_PKEY_eq(a->public_key, b->public_key) == 1
                         : EVP_PKEY_parameters_eq(a->public_key, b->public_key) == 1;
    ERR_pop_to_mark();
    if (same || a->signs == b->signs)
        return same;
    const struct key *reference = a->signs ? a : b, *other = a->signs ? b : a;
    char reference_id[2 * KEY_ID_BYTES + 1], other_id[2 * KEY_ID_BYTES + 1];
    hex_of(reference->key_id, KEY_ID_BYTES, reference_id);
    hex_of(other->key_id, KEY_ID_BYTES, other_id);
    return RAISE(a->provider, REASON_KEY_MISMATCH, "reference %s, certificate %s", reference_id,
                 other_id);
}

static int keymgmt_import(void *data, int selection, const OSSL_PARAM params[])
{
    struct key *key = data;
    if ((selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) != 0)
        return RAISE(key->provider, REASON_KEY_UNSUPPORTED, "private keys are not imported");
    if ((selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY) == 0 || key->public_key != NULL)
        return 0;
    EVP_PKEY *public_key = NULL;
    EVP_PKEY_CTX *context =
        EVP_PKEY_CTX_new_from_name(key->provider->libctx, key_type_name(key->type), NULL);
    const bool made =
        context != NULL && EVP_PKEY_fromdata_init(context) == 1 &&
        EVP_PKEY_fromdata(context, &public_key, EVP_PKEY_PUBLIC_KEY, (OSSL_PARAM *)params) == 1;
    EVP_PKEY_CTX_free(context);
    return made && key_set_public(key, public_key);
}

/*
 * libssl asks for everything twice in each handshake and takes any success for a key that another
 * provider can sign with: refused without a word then, because a failure is what it expects.
 */
static int keymgmt_export(void *data, int selection, OSSL_CALLBACK *callback, void *argument)
{
    const struct key *key = data;
    if ((selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) != 0 || key->public_key == NULL)
        return 0;
    return EVP_PKEY_export(key->public_key, selection, callback, argument);
}

static const OSSL_PARAM rsa_public_params[] = {
    OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_N, NULL, 0),
    OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_E, NULL, 0),
    OSSL_PARAM_END,
};
static const OSSL_PARAM ec_public_params[] = {
    OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
    OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0),
    OSSL_PARAM_END,
};
static const OSSL_PARAM ed25519_public_params[] = {
    OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0),
    OSSL_PARAM_END,
};

static const OSSL_PARAM *rsa_types(int selection)
{
    return (selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY) != 0 ? rsa_public_params : NULL;
}

static const OSSL_PARAM *ec_types(int selection)
{
    return (selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY) != 0 ? ec_public_params : NULL;
}

static const OSSL_PARAM *ed25519_types(int selection)
{
    return (selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY) != 0 ? ed25519_public_params : NULL;
}

static int keymgmt_get_params(void *data, OSSL_PARAM params[])
{
    const struct key *key = data;
    return key->public_key != NULL && EVP_PKEY_get_params(key->public_key, params);
}

#define COMMON_PARAMS                                        \
    OSSL_PARAM_int(OSSL_PKEY_PARAM_BITS, NULL),              \
        OSSL_PARAM_int(OSSL_PKEY_PARAM_SECURITY_BITS, NULL), \
        OSSL_PARAM_int(OSSL_PKEY_PARAM_MAX_SIZE, NULL),      \
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_DEFAULT_DIGEST, NULL, 0)

static const OSSL_PARAM *rsa_gettable(void *context)
{
    static const OSSL_PARAM params[] = {
        COMMON_PARAMS,
        OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_N, NULL, 0),
        OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_E, NULL, 0),
        OSSL_PARAM_END,
    };
    (void)context;
    return params;
}

static const OSSL_PARAM *ec_gettable(void *context)
{
    static const OSSL_PARAM params[] = {
        COMMON_PARAMS,
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_EC_ENCODING, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, NULL, 0),
        OSSL_PARAM_BN(OSSL_PKEY_PARAM_EC_PUB_X, NULL, 0),
        OSSL_PARAM_BN(OSSL_PKEY_PARAM_EC_PUB_Y, NULL, 0),
        OSSL_PARAM_END,
    };
    (void)context;
    return params;
}

static const OSSL_PARAM *ed25519_gettable(void *context)
{
    static const OSSL_PARAM params[] = {
        COMMON_PARAMS,
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_MANDATORY_DIGEST, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, NULL, 0),
        OSSL_PARAM_END,
    };
    (void)context;
    return params;
}

/* Only the EC type is called otherwise by its signature algorithm. */
static const char *ec_operation_name(int operation)
{
    return operation == OSSL_OP_SIGNATURE ? "ECDSA" : NULL;
}

#define COMMON_FUNCTIONS                                                                          \
    DISPATCH(OSSL_FUNC_KEYMGMT_FREE, keymgmt_free), DISPATCH(OSSL_FUNC_KEYMGMT_DUP, keymgmt_dup), \
        DISPATCH(OSSL_FUNC_KEYMGMT_LOAD, keymgmt_load),                                           \
        DISPATCH(OSSL_FUNC_KEYMGMT_HAS, keymgmt_has),                                             \
        DISPATCH(OSSL_FUNC_KEYMGMT_MATCH, keymgmt_match),                                         \
        DISPATCH(OSSL_FUNC_KEYMGMT_IMPORT, keymgmt_import),                                       \
        DISPATCH(OSSL_FUNC_KEYMGMT_EXPORT, keymgmt_export),                                       \
        DISPATCH(OSSL_FUNC_KEYMGMT_GET_PARAMS, keymgmt_get_params)

static const OSSL_DISPATCH rsa_functions[] = {
    COMMON_FUNCTIONS,
    DISPATCH(OSSL_FUNC_KEYMGMT_NEW, new_rsa),
    DISPATCH(OSSL_FUNC_KEYMGMT_IMPORT_TYPES, rsa_types),
    DISPATCH(OSSL_FUNC_KEYMGMT_EXPORT_TYPES, rsa_types),
    DISPATCH(OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS, rsa_gettable),
    DISPATCH_END,
};
static const OSSL_DISPATCH ec_functions[] = {
    COMMON_FUNCTIONS,
    DISPATCH(OSSL_FUNC_KEYMGMT_NEW, new_ec),
    DISPATCH(OSSL_FUNC_KEYMGMT_IMPORT_TYPES, ec_types),
    DISPATCH(OSSL_FUNC_KEYMGMT_EXPORT_TYPES, ec_types),
    DISPATCH(OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS, ec_gettable),
    DISPATCH(OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME, ec_operation_name),
    DISPATCH_END,
};
static const OSSL_DISPATCH ed25519_functions[] = {
    COMMON_FUNCTIONS,
    DISPATCH(OSSL_FUNC_KEYMGMT_NEW, new_ed25519),
    DISPATCH(OSSL_FUNC_KEYMGMT_IMPORT_TYPES, ed25519_types),
    DISPATCH(OSSL_FUNC_KEYMGMT_EXPORT_TYPES, ed25519_types),
    DISPATCH(OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS, ed25519_gettable),
    DISPATCH_END,
};

/* Names as OpenSSL's default provider has them: different aliases for one name would clash. */
const OSSL_ALGORITHM keymgmt_algorithms[] = {
    {"RSA:rsaEncryption:1.2.840.113549.1.1.1", PROVIDER_PROPERTIES, rsa_functions,
     "RSA keys in the gateway's HSM"},
    {"EC:id-ecPublicKey:1.2.840.10045.2.1", PROVIDER_PROPERTIES, ec_functions,
     "EC keys in the gateway's HSM"},
    {"ED25519:1.3.101.112", PROVIDER_PROPERTIES, ed25519_functions,
     "Ed25519 keys in the gateway's HSM"},
    {NULL, NULL, NULL, NULL},
};
