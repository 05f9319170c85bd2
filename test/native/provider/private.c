/* Every way by which OpenSSL lets a private key out has to fail; every way for the public half
 * works. */
#include "driver.h"

#include <openssl/core_names.h>
#include <openssl/encoder.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/x509.h>
#include <string.h>

static void check_params(EVP_PKEY *key)
{
    static const char *const secret[] = {OSSL_PKEY_PARAM_PRIV_KEY, OSSL_PKEY_PARAM_RSA_D,
                                         OSSL_PKEY_PARAM_RSA_FACTOR1,
                                         OSSL_PKEY_PARAM_RSA_EXPONENT1};
    for (size_t i = 0; i < sizeof secret / sizeof *secret; i++) {
        BIGNUM *number = NULL;
        uint8_t bytes[512];
        size_t count;
        CHECK(EVP_PKEY_get_bn_param(key, secret[i], &number) != 1);
        CHECK(EVP_PKEY_get_octet_string_param(key, secret[i], bytes, sizeof bytes, &count) != 1);
    }
    uint8_t raw[256];
    size_t raw_bytes = sizeof raw;
    CHECK(EVP_PKEY_get_raw_private_key(key, raw, &raw_bytes) != 1);
}

static void check_encoders(EVP_PKEY *key)
{
    static const char *const forms[] = {"DER", "PEM", "PVK", "MSBLOB"};
    static const char *const structures[] = {
        NULL, "PrivateKeyInfo", "EncryptedPrivateKeyInfo", "type-specific", "pkcs8", "pkcs1"};
    for (size_t form = 0; form < sizeof forms / sizeof *forms; form++)
        for (size_t i = 0; i < sizeof structures / sizeof *structures; i++) {
            OSSL_ENCODER_CTX *encoder = OSSL_ENCODER_CTX_new_for_pkey(
                key, EVP_PKEY_KEYPAIR, forms[form], structures[i], NULL);
            uint8_t *data = NULL;
            size_t bytes = 0;
            CHECK(encoder == NULL || OSSL_ENCODER_to_data(encoder, &data, &bytes) != 1);
            OSSL_ENCODER_CTX_free(encoder);
        }
}

/* private REFERENCE */
int mode_private(char **argv)
{
    struct library library = library_open();
    EVP_PKEY *key = load_key(library.context, argv[0]);
    OSSL_PARAM *params = NULL;
    uint8_t *der = NULL;
    BIO *out = BIO_new(BIO_s_mem());

    CHECK(EVP_PKEY_todata(key, EVP_PKEY_KEYPAIR, &params) != 1 && params == NULL);
    CHECK(i2d_PrivateKey(key, &der) <= 0 && der == NULL);
    CHECK(EVP_PKEY2PKCS8(key) == NULL);
    CHECK(i2d_PKCS8PrivateKey_bio(out, key, NULL, NULL, 0, NULL, NULL) != 1);
    CHECK(i2d_PKCS8PrivateKey_bio(out, key, EVP_aes_128_cbc(), "x", 1, NULL, NULL) != 1);
    CHECK(PEM_write_bio_PrivateKey(out, key, NULL, NULL, 0, NULL, NULL) != 1);
    CHECK(PEM_write_bio_PrivateKey_traditional(out, key, NULL, NULL, 0, NULL, NULL) != 1);
    CHECK(PKCS12_create("x", "x", key, NULL, NULL, 0, 0, 0, 0, 0) == NULL);
    check_params(key);
    check_encoders(key);
    CHECK(BIO_pending(out) == 0);
    CHECK(find_error("private key never leaves the HSM") != NULL);

    CHECK(EVP_PKEY_todata(key, EVP_PKEY_PUBLIC_KEY, &params) == 1);
    OSSL_PARAM_free(params);
    CHECK(i2d_PUBKEY(key, &der) > 0);
    CHECK(PEM_write_bio_PUBKEY(out, key) == 1);
    CHECK(EVP_PKEY_print_private(out, key, 0, NULL) == 1);
    char *text;
    const long bytes = BIO_get_mem_data(out, &text);
    CHECK(bytes > 0 && memmem(text, (size_t)bytes, "priv:", 5) == NULL &&
          memmem(text, (size_t)bytes, "prime1", 6) == NULL);
    OPENSSL_free(der);
    BIO_free(out);
    EVP_PKEY_free(key);
    library_close(&library);
    return 0;
}
