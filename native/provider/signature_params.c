/* Parameters of a signing operation: what libssl gives as numbers and the command line as words. */
#include "error.h"
#include "provider.h"
#include "signature.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rsa.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    int salt;
} salt_names[] = {
    {OSSL_PKEY_RSA_PSS_SALT_LEN_DIGEST, SALT_DIGEST},
    {OSSL_PKEY_RSA_PSS_SALT_LEN_MAX, SALT_MAX},
    {OSSL_PKEY_RSA_PSS_SALT_LEN_AUTO, SALT_AUTO},
    /* OpenSSL 3.1 */
    {"auto-digestmax", SALT_AUTO_DIGEST_MAX},
};
enum { SALT_NAMES = sizeof salt_names / sizeof *salt_names };

bool signature_salt_bytes(const struct signature *signature, uint16_t *salt_bytes)
{
    /* RFC 8017, section 9.1.1: emLen is one byte shorter when the modulus has 8k + 1 bits. */
    const int encoded_bytes = (EVP_PKEY_get_bits(signature->key->public_key) + 6) / 8;
    const int hash_bytes = (int)digest_bytes(signature->hash);
    const int max = encoded_bytes - hash_bytes - 2;
    int salt = signature->salt;
    if (salt == SALT_DIGEST)
        salt = hash_bytes;
    else if (salt == SALT_MAX || salt == SALT_AUTO)
        salt = max;
    else if (salt == SALT_AUTO_DIGEST_MAX)
        salt = hash_bytes < max ? hash_bytes : max;
    if (hash_bytes == 0 || salt < 0 || salt > max)
        return RAISE(signature->provider, REASON_SALT, "%d bytes, at most %d fit", salt, max);
    *salt_bytes = (uint16_t)salt;
    return true;
}

static bool set_padding(struct signature *signature, const OSSL_PARAM *param)
{
    int mode = 0;
    if (param->data_type == OSSL_PARAM_UTF8_STRING && param->data != NULL) {
        const char *name = param->data;
        mode = strcmp(name, OSSL_PKEY_RSA_PAD_MODE_PKCSV15) == 0 ? RSA_PKCS1_PADDING
               : strcmp(name, OSSL_PKEY_RSA_PAD_MODE_PSS) == 0   ? RSA_PKCS1_PSS_PADDING
                                                                 : 0;
    } else if (!OSSL_PARAM_get_int(param, &mode)) {
        return RAISE(signature->provider, REASON_PARAMETER, "pad-mode");
    }
    if (mode != RSA_PKCS1_PADDING && mode != RSA_PKCS1_PSS_PADDING)
        return RAISE(signature->provider, REASON_PADDING, "PKCS#1 v1.5 and PSS are");
    signature->is_pss = mode == RSA_PKCS1_PSS_PADDING;
    return true;
}

static bool set_salt(struct signature *signature, const OSSL_PARAM *param)
{
    int salt = 0;
    if (param->data_type == OSSL_PARAM_UTF8_STRING && param->data != NULL) {
        unsigned i = 0;
        while (i < SALT_NAMES && strcmp(param->data, salt_names[i].name) != 0)
            i++;
        salt = i < SALT_NAMES ? salt_names[i].salt : atoi(param->data);
    } else if (!OSSL_PARAM_get_int(param, &salt)) {
        return RAISE(signature->provider, REASON_PARAMETER, "saltlen");
    }
    if (salt < SALT_AUTO_DIGEST_MAX || salt > UINT16_MAX)
        return RAISE(signature->provider, REASON_SALT, "%d", salt);
    signature->salt = salt;
    return true;
}

static bool set_hash(const struct signature *signature, const OSSL_PARAM *param,
                     enum wire_hash *hash)
{
    const char *name;
    if (!OSSL_PARAM_get_utf8_string_ptr(param, &name) || name == NULL)
        return RAISE(signature->provider, REASON_PARAMETER, "%s", param->key);
    const enum wire_hash found = digest_find(name);
    if (found == HASH_NONE)
        return RAISE(signature->provider, REASON_DIGEST, "%s", name);
    *hash = found;
    return true;
}

int signature_set_params(void *context, const OSSL_PARAM params[])
{
    struct signature *signature = context;
    const OSSL_PARAM *param;
    if (params == NULL)
        return 1;
    if ((param = OSSL_PARAM_locate_const(params, OSSL_SIGNATURE_PARAM_DIGEST)) != NULL) {
        enum wire_hash hash = HASH_NONE;
        if (!set_hash(signature, param, &hash))
            return 0;
        if (signature->operation == OPERATION_MESSAGE && hash != signature->hash)
            return RAISE(signature->provider, REASON_STATE, "the digest is fixed by now");
        signature->hash = hash;
    }
    if (signature->key == NULL || signature->key->type != KEY_RSA)
        return 1;
    if ((param = OSSL_PARAM_locate_const(params, OSSL_SIGNATURE_PARAM_PAD_MODE)) != NULL &&
        !set_padding(signature, param))
        return 0;
    if ((param = OSSL_PARAM_locate_const(params, OSSL_SIGNATURE_PARAM_PSS_SALTLEN)) != NULL &&
        !set_salt(signature, param))
        return 0;
    param = OSSL_PARAM_locate_const(params, OSSL_SIGNATURE_PARAM_MGF1_DIGEST);
    return param == NULL || set_hash(signature, param, &signature->mgf_hash);
}

static bool get_padding(const struct signature *signature, OSSL_PARAM *param)
{
    if (param->data_type == OSSL_PARAM_UTF8_STRING)
        return OSSL_PARAM_set_utf8_string(
            param, signature->is_pss ? OSSL_PKEY_RSA_PAD_MODE_PSS : OSSL_PKEY_RSA_PAD_MODE_PKCSV15);
    return OSSL_PARAM_set_int(param, signature->is_pss ? RSA_PKCS1_PSS_PADDING : RSA_PKCS1_PADDING);
}

static bool get_salt(const struct signature *signature, OSSL_PARAM *param)
{
    if (param->data_type != OSSL_PARAM_UTF8_STRING)
        return OSSL_PARAM_set_int(param, signature->salt);
    for (unsigned i = 0; i < SALT_NAMES; i++)
        if (salt_names[i].salt == signature->salt)
            return OSSL_PARAM_set_utf8_string(param, salt_names[i].name);
    char number[16];
    (void)snprintf(number, sizeof number, "%d", signature->salt);
    return OSSL_PARAM_set_utf8_string(param, number);
}

int signature_get_params(void *context, OSSL_PARAM params[])
{
    const struct signature *signature = context;
    OSSL_PARAM *param;
    if (params == NULL || signature->key == NULL)
        return params == NULL;
    if ((param = OSSL_PARAM_locate(params, OSSL_SIGNATURE_PARAM_ALGORITHM_ID)) != NULL) {
        uint8_t identifier[96];
        const size_t bytes = algorithm_identifier(signature, identifier, sizeof identifier);
        if (bytes == 0 || !OSSL_PARAM_set_octet_string(param, identifier, bytes))
            return 0;
    }
    if ((param = OSSL_PARAM_locate(params, OSSL_SIGNATURE_PARAM_DIGEST)) != NULL &&
        !OSSL_PARAM_set_utf8_string(
            param, signature->hash == HASH_NONE ? "" : digest_name(signature->hash)))
        return 0;
    if (signature->key->type != KEY_RSA)
        return 1;
    if ((param = OSSL_PARAM_locate(params, OSSL_SIGNATURE_PARAM_PAD_MODE)) != NULL &&
        !get_padding(signature, param))
        return 0;
    if ((param = OSSL_PARAM_locate(params, OSSL_SIGNATURE_PARAM_PSS_SALTLEN)) != NULL &&
        !get_salt(signature, param))
        return 0;
    const enum wire_hash mgf_hash =
        signature->mgf_hash != HASH_NONE ? signature->mgf_hash : signature->hash;
    param = OSSL_PARAM_locate(params, OSSL_SIGNATURE_PARAM_MGF1_DIGEST);
    return param == NULL ||
           OSSL_PARAM_set_utf8_string(param, mgf_hash == HASH_NONE ? "" : digest_name(mgf_hash));
}

#define RSA_PARAMS                                                         \
    OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_DIGEST, NULL, 0),          \
        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PAD_MODE, NULL, 0),    \
        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, NULL, 0), \
        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_MGF1_DIGEST, NULL, 0)

const OSSL_PARAM *signature_settable_rsa(void *context, void *provider)
{
    static const OSSL_PARAM params[] = {RSA_PARAMS, OSSL_PARAM_END};
    (void)context, (void)provider;
    return params;
}

const OSSL_PARAM *signature_gettable_rsa(void *context, void *provider)
{
    static const OSSL_PARAM params[] = {
        OSSL_PARAM_octet_string(OSSL_SIGNATURE_PARAM_ALGORITHM_ID, NULL, 0),
        RSA_PARAMS,
        OSSL_PARAM_END,
    };
    (void)context, (void)provider;
    return params;
}

const OSSL_PARAM *signature_settable(void *context, void *provider)
{
    static const OSSL_PARAM params[] = {
        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_DIGEST, NULL, 0),
        OSSL_PARAM_END,
    };
    (void)context, (void)provider;
    return params;
}

const OSSL_PARAM *signature_gettable(void *context, void *provider)
{
    static const OSSL_PARAM params[] = {
        OSSL_PARAM_octet_string(OSSL_SIGNATURE_PARAM_ALGORITHM_ID, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_DIGEST, NULL, 0),
        OSSL_PARAM_END,
    };
    (void)context, (void)provider;
    return params;
}
