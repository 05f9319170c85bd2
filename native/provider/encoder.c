/*
 * What may be shown of a key: its SubjectPublicKeyInfo and a description. Formats of private keys
 * are here only to say why not.
 */
#include "error.h"
#include "key.h"
#include "provider.h"

#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

static void *encoder_new(void *provider)
{
    return provider;
}

static void encoder_free(void *provider)
{
    (void)provider;
}

static int selects_public_alone(void *provider, int selection)
{
    (void)provider;
    return selection == 0 || ((selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY) != 0 &&
                              (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) == 0);
}

static int selects_private(void *provider, int selection)
{
    (void)provider;
    return (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) != 0;
}

static int selects_key(void *provider, int selection)
{
    (void)provider;
    return selection == 0 || (selection & OSSL_KEYMGMT_SELECT_KEYPAIR) != 0;
}

typedef int write_fn(BIO *out, const struct key *key);

static int write_der(BIO *out, const struct key *key)
{
    return i2d_PUBKEY_bio(out, key->public_key);
}

static int write_pem(BIO *out, const struct key *key)
{
    return PEM_write_bio_PUBKEY(out, key->public_key);
}

static int write_text(BIO *out, const struct key *key)
{
    if (key->signs && BIO_printf(out, "hsmgate key reference, private key in the HSM\n") <= 0)
        return 0;
    return EVP_PKEY_print_public(out, key->public_key, 0, NULL);
}

/* `object` describes keys that another provider holds: those are not ours to write. */
static int encode(struct provider *provider, OSSL_CORE_BIO *core_out, const void *data,
                  const OSSL_PARAM object[], write_fn *write)
{
    const struct key *key = data;
    if (object != NULL || key == NULL || key->public_key == NULL)
        return 0;
    BIO *out = BIO_new_from_core_bio(provider->libctx, core_out);
    const int done = out != NULL && write(out, key) > 0;
    BIO_free(out);
    return done;
}

static int encode_der(void *context, OSSL_CORE_BIO *out, const void *key, const OSSL_PARAM object[],
                      int selection, OSSL_PASSPHRASE_CALLBACK *passphrase, void *argument)
{
    (void)selection, (void)passphrase, (void)argument;
    return encode(context, out, key, object, write_der);
}

static int encode_pem(void *context, OSSL_CORE_BIO *out, const void *key, const OSSL_PARAM object[],
                      int selection, OSSL_PASSPHRASE_CALLBACK *passphrase, void *argument)
{
    (void)selection, (void)passphrase, (void)argument;
    return encode(context, out, key, object, write_pem);
}

static int encode_text(void *context, OSSL_CORE_BIO *out, const void *key,
                       const OSSL_PARAM object[], int selection,
                       OSSL_PASSPHRASE_CALLBACK *passphrase, void *argument)
{
    (void)selection, (void)passphrase, (void)argument;
    return encode(context, out, key, object, write_text);
}

static int refuse_private(void *context, OSSL_CORE_BIO *out, const void *key,
                          const OSSL_PARAM object[], int selection,
                          OSSL_PASSPHRASE_CALLBACK *passphrase, void *argument)
{
    (void)out, (void)key, (void)object, (void)selection, (void)passphrase, (void)argument;
    return RAISE(context, REASON_PRIVATE_EXPORT, "only the public key can be written");
}

#define FUNCTIONS(selects, encodes)                                    \
    {                                                                  \
        DISPATCH(OSSL_FUNC_ENCODER_NEWCTX, encoder_new),               \
            DISPATCH(OSSL_FUNC_ENCODER_FREECTX, encoder_free),         \
            DISPATCH(OSSL_FUNC_ENCODER_DOES_SELECTION, selects),       \
            DISPATCH(OSSL_FUNC_ENCODER_ENCODE, encodes), DISPATCH_END, \
    }
static const OSSL_DISPATCH der_functions[] = FUNCTIONS(selects_public_alone, encode_der);
static const OSSL_DISPATCH pem_functions[] = FUNCTIONS(selects_public_alone, encode_pem);
static const OSSL_DISPATCH text_functions[] = FUNCTIONS(selects_key, encode_text);
static const OSSL_DISPATCH refusing_functions[] = FUNCTIONS(selects_private, refuse_private);

#define OUTPUT(form) PROVIDER_PROPERTIES ",output=" form
#define PUBLIC(form) OUTPUT(form) ",structure=SubjectPublicKeyInfo"
#define ENCODERS(names)                                                                          \
    {names, PUBLIC("der"), der_functions, "public key"},                                         \
        {names, PUBLIC("pem"), pem_functions, "public key"},                                     \
        {names, OUTPUT("text"), text_functions, "description"},                                  \
        {names, OUTPUT("der") ",structure=PrivateKeyInfo", refusing_functions, "refused"},       \
        {names, OUTPUT("pem") ",structure=PrivateKeyInfo", refusing_functions, "refused"},       \
        {names, OUTPUT("der") ",structure=EncryptedPrivateKeyInfo", refusing_functions,          \
         "refused"},                                                                             \
    {                                                                                            \
        names, OUTPUT("pem") ",structure=EncryptedPrivateKeyInfo", refusing_functions, "refused" \
    }

const OSSL_ALGORITHM encoder_algorithms[] = {
    ENCODERS("RSA:rsaEncryption:1.2.840.113549.1.1.1"),
    ENCODERS("EC:id-ecPublicKey:1.2.840.10045.2.1"),
    ENCODERS("ED25519:1.3.101.112"),
    {NULL, NULL, NULL, NULL},
};
