/*
 * Key reference files for OpenSSL's decoders, in two steps as its own keys go: PEM with our label
 * becomes DER of a structure of our own; of the decoders of that structure the one of the key's
 * type makes the key. No network.
 */
#include "error.h"
#include "key.h"
#include "pem.h"
#include "provider.h"
#include "reference.h"

#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/core_object.h>
#include <openssl/crypto.h>
#include <openssl/params.h>
#include <stdlib.h>

#define STRUCTURE "hsmgate-reference"

struct decoder {
    struct provider *provider;
    enum key_type type;
};

static void *decoder_new(void *provider, enum key_type type)
{
    struct decoder *decoder = calloc(1, sizeof *decoder);
    if (decoder != NULL) {
        decoder->provider = provider;
        decoder->type = type;
    }
    return decoder;
}

static void *decoder_new_rsa(void *provider)
{
    return decoder_new(provider, KEY_RSA);
}

static void *decoder_new_ec(void *provider)
{
    return decoder_new(provider, KEY_EC);
}

static void *decoder_new_ed25519(void *provider)
{
    return decoder_new(provider, KEY_ED25519);
}

static void decoder_free(void *decoder)
{
    free(decoder);
}

static int decoder_does_selection(void *provider, int selection)
{
    (void)provider;
    return selection == 0 || (selection & OSSL_KEYMGMT_SELECT_KEYPAIR) != 0;
}

/*
 * Success without a callback means: not for me, ask the others. The key is made here already,
 * because of failures in later steps an application like `openssl pkey` hears nothing.
 */
static int decode_pem(void *context, OSSL_CORE_BIO *core_in, int selection, OSSL_CALLBACK *callback,
                      void *argument, OSSL_PASSPHRASE_CALLBACK *passphrase,
                      void *passphrase_argument)
{
    const struct decoder *decoder = context;
    uint8_t *der;
    size_t bytes;
    (void)selection, (void)passphrase, (void)passphrase_argument;
    BIO *in = BIO_new_from_core_bio(decoder->provider->libctx, core_in);
    if (in == NULL)
        return 0;
    const enum pem_outcome outcome = pem_read(decoder->provider, in, &der, &bytes);
    BIO_free(in);
    if (outcome != PEM_REFERENCE)
        return outcome != PEM_BROKEN_REFERENCE;
    struct key *key = key_from_reference(decoder->provider, der, bytes);
    int done = 0;
    if (key != NULL) {
        int object_type = OSSL_OBJECT_PKEY;
        const OSSL_PARAM object[] = {
            OSSL_PARAM_construct_utf8_string(OSSL_OBJECT_PARAM_DATA_TYPE,
                                             (char *)key_type_name(key->type), 0),
            OSSL_PARAM_construct_utf8_string(OSSL_OBJECT_PARAM_DATA_STRUCTURE, (char *)STRUCTURE,
                                             0),
            OSSL_PARAM_construct_octet_string(OSSL_OBJECT_PARAM_DATA, der, bytes),
            OSSL_PARAM_construct_int(OSSL_OBJECT_PARAM_TYPE, &object_type),
            OSSL_PARAM_construct_end(),
        };
        done = callback(object, argument);
    }
    key_free(key);
    pem_release(der, bytes);
    return done;
}

/* All there is to read, but no more than one byte above the limit, which the parser then refuses.
 */
static uint8_t *read_der(const struct decoder *decoder, OSSL_CORE_BIO *core_in, size_t *bytes)
{
    const size_t capacity = REFERENCE_DER_BYTES_MAX + 1;
    BIO *in = BIO_new_from_core_bio(decoder->provider->libctx, core_in);
    uint8_t *der = malloc(capacity);
    *bytes = 0;
    while (in != NULL && der != NULL && *bytes < capacity) {
        const int count = BIO_read(in, der + *bytes, (int)(capacity - *bytes));
        if (count <= 0)
            break;
        *bytes += (size_t)count;
    }
    BIO_free(in);
    return der;
}

/*
 * Also called for all other DER that an application reads without saying what it is, and a failure
 * would keep the decoders of other providers from it: success without a callback, and no error,
 * for what is no reference. What is wrong with one in PEM was said there.
 */
static int decode_der(void *context, OSSL_CORE_BIO *core_in, int selection, OSSL_CALLBACK *callback,
                      void *argument, OSSL_PASSPHRASE_CALLBACK *passphrase,
                      void *passphrase_argument)
{
    const struct decoder *decoder = context;
    size_t bytes;
    (void)selection, (void)passphrase, (void)passphrase_argument;
    uint8_t *der = read_der(decoder, core_in, &bytes);
    if (der == NULL)
        return 0;
    struct reference reference;
    struct key *key = reference_decode(der, bytes, &reference) == NULL
                          ? key_from_reference(decoder->provider, der, bytes)
                          : NULL;
    OPENSSL_cleanse(der, bytes);
    free(der);
    if (key == NULL || key->type != decoder->type) {
        key_free(key);
        return 1;
    }
    return key_give(key, callback, argument);
}

static const OSSL_DISPATCH pem_functions[] = {
    DISPATCH(OSSL_FUNC_DECODER_NEWCTX, decoder_new_rsa),
    DISPATCH(OSSL_FUNC_DECODER_FREECTX, decoder_free),
    DISPATCH(OSSL_FUNC_DECODER_DECODE, decode_pem),
    DISPATCH_END,
};

#define DER_FUNCTIONS(new)                                                      \
    {                                                                           \
        DISPATCH(OSSL_FUNC_DECODER_NEWCTX, new),                                \
            DISPATCH(OSSL_FUNC_DECODER_FREECTX, decoder_free),                  \
            DISPATCH(OSSL_FUNC_DECODER_DOES_SELECTION, decoder_does_selection), \
            DISPATCH(OSSL_FUNC_DECODER_DECODE, decode_der), DISPATCH_END,       \
    }
static const OSSL_DISPATCH rsa_functions[] = DER_FUNCTIONS(decoder_new_rsa);
static const OSSL_DISPATCH ec_functions[] = DER_FUNCTIONS(decoder_new_ec);
static const OSSL_DISPATCH ed25519_functions[] = DER_FUNCTIONS(decoder_new_ed25519);

#define DER_PROPERTIES PROVIDER_PROPERTIES ",input=der,structure=" STRUCTURE

const OSSL_ALGORITHM decoder_algorithms[] = {
    {"DER", PROVIDER_PROPERTIES ",input=pem", pem_functions, "PEM of key references"},
    {"RSA:rsaEncryption:1.2.840.113549.1.1.1", DER_PROPERTIES, rsa_functions,
     "key references of RSA keys"},
    {"EC:id-ecPublicKey:1.2.840.10045.2.1", DER_PROPERTIES, ec_functions,
     "key references of EC keys"},
    {"ED25519:1.3.101.112", DER_PROPERTIES, ed25519_functions, "key references of Ed25519 keys"},
    {NULL, NULL, NULL, NULL},
};
