/*
 * Uses the provider as applications do: `driver MODE ARGUMENTS`, with $PROVIDER_FOLDER and the
 * provider's own variables. The modes are described where they are written.
 */
#include "driver.h"

#include <dirent.h>
#include <openssl/pem.h>
#include <string.h>
#include <time.h>

struct library library_open(void)
{
    struct library library = {.context = OSSL_LIB_CTX_new()};
    CHECK(library.context != NULL);
    CHECK(OSSL_PROVIDER_set_default_search_path(library.context, getenv("PROVIDER_FOLDER")));
    CHECK((library.base = OSSL_PROVIDER_load(library.context, "default")) != NULL);
    CHECK((library.hsmgate = OSSL_PROVIDER_load(library.context, "hsmgate")) != NULL);
    return library;
}

void library_close(struct library *library)
{
    CHECK(OSSL_PROVIDER_unload(library->hsmgate));
    CHECK(OSSL_PROVIDER_unload(library->base));
    OSSL_LIB_CTX_free(library->context);
}

EVP_PKEY *load_key(OSSL_LIB_CTX *context, const char *path)
{
    BIO *file = BIO_new_file(path, "r");
    CHECK(file != NULL);
    EVP_PKEY *key = PEM_read_bio_PrivateKey_ex(file, NULL, NULL, NULL, context, NULL);
    CHECK(key != NULL);
    BIO_free(file);
    return key;
}

static const char *digest_for(EVP_PKEY *key)
{
    return EVP_PKEY_is_a(key, "ED25519") ? NULL : "SHA256";
}

/* With a buffer that ends where the signature does. */
static uint8_t *sign_into_heap(OSSL_LIB_CTX *context, EVP_PKEY *key, const void *message,
                               size_t bytes, size_t *signature_bytes)
{
    EVP_MD_CTX *signing = EVP_MD_CTX_new();
    uint8_t *signature = NULL;
    if (EVP_DigestSignInit_ex(signing, NULL, digest_for(key), context, NULL, key, NULL) == 1 &&
        EVP_DigestSign(signing, NULL, signature_bytes, message, bytes) == 1) {
        signature = malloc(*signature_bytes);
        if (EVP_DigestSign(signing, signature, signature_bytes, message, bytes) != 1) {
            free(signature);
            signature = NULL;
        }
    }
    EVP_MD_CTX_free(signing);
    return signature;
}

size_t sign_message(OSSL_LIB_CTX *context, EVP_PKEY *key, const void *message, size_t bytes)
{
    size_t signature_bytes = 0;
    uint8_t *signature = sign_into_heap(context, key, message, bytes, &signature_bytes);
    free(signature);
    return signature == NULL ? 0 : signature_bytes;
}

bool sign_and_verify(OSSL_LIB_CTX *context, EVP_PKEY *key, const void *message, size_t bytes)
{
    size_t signature_bytes = 0;
    uint8_t *signature = sign_into_heap(context, key, message, bytes, &signature_bytes);
    if (signature == NULL)
        return false;
    /* The public half in the default provider. */
    uint8_t *spki = NULL;
    const int spki_bytes = i2d_PUBKEY(key, &spki);
    const uint8_t *at = spki;
    EVP_PKEY *public_key = d2i_PUBKEY_ex(NULL, &at, spki_bytes, context, NULL);
    EVP_MD_CTX *verifying = EVP_MD_CTX_new();
    const bool verified =
        EVP_DigestVerifyInit_ex(verifying, NULL, digest_for(key), context, NULL, public_key,
                                NULL) == 1 &&
        EVP_DigestVerify(verifying, signature, signature_bytes, message, bytes) == 1;
    EVP_MD_CTX_free(verifying);
    EVP_PKEY_free(public_key);
    OPENSSL_free(spki);
    free(signature);
    return verified;
}

const char *find_error(const char *text)
{
    static char found[512];
    const char *result = NULL, *data;
    unsigned long error;
    int flags;
    while ((error = ERR_get_error_all(NULL, NULL, NULL, &data, &flags)) != 0) {
        char whole[512], head[256];
        ERR_error_string_n(error, head, sizeof head);
        snprintf(whole, sizeof whole, "%s:%s", head, (flags & ERR_TXT_STRING) != 0 ? data : "");
        if (result == NULL && strstr(whole, text) != NULL) {
            memcpy(found, whole, sizeof found);
            result = found;
        }
    }
    return result;
}

unsigned count_descriptors(void)
{
    unsigned count = 0;
    DIR *folder = opendir("/proc/self/fd");
    CHECK(folder != NULL);
    while (readdir(folder) != NULL)
        count++;
    closedir(folder);
    return count;
}

int64_t monotonic_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int arguments;
        int (*run)(char **argv);
    } modes[] = {
        {"loops", 2, mode_loops},     {"threads", 3, mode_threads}, {"fork", 2, mode_fork},
        {"private", 1, mode_private}, {"burst", 2, mode_burst},     {"async", 3, mode_async},
        {"fuzz", 3, mode_fuzz},       {"refused", 2, mode_refused}, {"probes", 1, mode_probes},
    };
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (argc == 2 + modes[i].arguments && strcmp(argv[1], modes[i].name) == 0)
            return modes[i].run(argv + 2);
    fprintf(stderr, "no such mode, or not its arguments\n");
    return 2;
}
