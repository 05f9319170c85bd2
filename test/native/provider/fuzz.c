/* Damaged key reference files through OpenSSL's own reading of keys. */
#include "driver.h"

#include <openssl/pem.h>
#include <openssl/store.h>
#include <string.h>

static uint64_t state;

/* splitmix64 */
static uint64_t next_random(void)
{
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static size_t read_whole(const char *path, char **content)
{
    FILE *file = fopen(path, "r");
    CHECK(file != NULL);
    *content = malloc(1 << 16);
    const size_t bytes = fread(*content, 1, 1 << 16, file);
    fclose(file);
    return bytes;
}

/* DER with a changed byte or two, put into PEM again, so that mutations reach the inner structures.
 */
static BIO *damage_der(const char *pem, size_t bytes)
{
    BIO *in = BIO_new_mem_buf(pem, (int)bytes), *out = BIO_new(BIO_s_mem());
    char *label, *header;
    unsigned char *der;
    long der_bytes;
    CHECK(PEM_read_bio(in, &label, &header, &der, &der_bytes) == 1);
    for (uint64_t edits = 1 + next_random() % 3; edits > 0; edits--)
        der[next_random() % (uint64_t)der_bytes] = (unsigned char)next_random();
    CHECK(PEM_write_bio(out, label, "", der, der_bytes) > 0);
    OPENSSL_free(label), OPENSSL_free(header), OPENSSL_free(der);
    BIO_free(in);
    return out;
}

static BIO *damage_text(const char *pem, size_t bytes)
{
    BIO *out = BIO_new(BIO_s_mem());
    const size_t cut = next_random() % 3 == 0 ? next_random() % bytes : bytes;
    for (size_t i = 0; i < cut; i++) {
        const uint64_t lot = next_random() % 200;
        char character = pem[i];
        if (lot == 0)
            character = (char)next_random();
        if (lot != 1)
            CHECK(BIO_write(out, &character, 1) == 1);
        if (lot == 2)
            CHECK(BIO_write(out, "\n", 1) == 1);
    }
    return out;
}

/* fuzz REFERENCE ROUNDS SEED: prints how many were still keys. */
int mode_fuzz(char **argv)
{
    struct library library = library_open();
    char *pem;
    const size_t bytes = read_whole(argv[0], &pem);
    unsigned long keys = 0;
    state = strtoull(argv[2], NULL, 10);
    for (long round = atol(argv[1]); round > 0; round--) {
        BIO *damaged = next_random() % 2 == 0 ? damage_der(pem, bytes) : damage_text(pem, bytes);
        EVP_PKEY *key =
            PEM_read_bio_PrivateKey_ex(damaged, NULL, NULL, NULL, library.context, NULL);
        keys += key != NULL;
        EVP_PKEY_free(key);
        BIO_free(damaged);
        ERR_clear_error();
    }
    printf("%lu\n", keys);
    free(pem);
    library_close(&library);
    return 0;
}
