/*
 * How long one signature of a TLS 1.3 server takes in the application: EVP_DigestSign as libssl
 * calls it, one thread, over and over.
 *
 *   sign --key <PEM file, or engine:<URI>> --seconds s [--every microseconds]
 *
 * --every begins a signature each so many microseconds, as a server does, whose caches are cold in
 * between. OPENSSL_CONF says which provider or engine there is. RSA keys sign with PSS, all with
 * SHA-256. Prints one line of JSON.
 */
#define OPENSSL_SUPPRESS_DEPRECATED /* engines */
#include <openssl/engine.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { MOST = 1 << 20, WARM_UP = 30 };

#define CHECK(condition)                                     \
    do {                                                     \
        if (!(condition)) {                                  \
            fprintf(stderr, "sign: %s fails\n", #condition); \
            ERR_print_errors_fp(stderr);                     \
            exit(1);                                         \
        }                                                    \
    } while (0)

static double now_micros(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void sleep_until(double micros)
{
    const struct timespec due = {.tv_sec = (time_t)(micros / 1e6),
                                 .tv_nsec =
                                     (long)((micros - (double)(time_t)(micros / 1e6) * 1e6) * 1e3)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
}

static double cpu_micros(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static EVP_PKEY *load(const char *name)
{
    if (strncmp(name, "engine:", 7) == 0) {
        ENGINE *engine = ENGINE_by_id("pkcs11");
        CHECK(engine != NULL && ENGINE_init(engine) == 1);
        return ENGINE_load_private_key(engine, name + 7, NULL, NULL);
    }
    BIO *file = BIO_new_file(name, "r");
    CHECK(file != NULL);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(file, NULL, NULL, NULL);
    BIO_free(file);
    return key;
}

/* RFC 8446 section 4.4.3. */
static size_t certificate_verify(unsigned char *message)
{
    static const char context[] = "TLS 1.3, server CertificateVerify";
    memset(message, ' ', 64);
    memcpy(message + 64, context, sizeof context);
    memset(message + 64 + sizeof context, 7, 32);
    return 64 + sizeof context + 32;
}

static void sign_once(EVP_PKEY *key)
{
    unsigned char message[256], signature[1024];
    size_t bytes = sizeof signature;
    const size_t message_bytes = certificate_verify(message);
    EVP_MD_CTX *signing = EVP_MD_CTX_new();
    EVP_PKEY_CTX *options = NULL;
    CHECK(EVP_DigestSignInit(signing, &options, EVP_sha256(), NULL, key) == 1);
    if (EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA) {
        CHECK(EVP_PKEY_CTX_set_rsa_padding(options, RSA_PKCS1_PSS_PADDING) == 1);
        CHECK(EVP_PKEY_CTX_set_rsa_pss_saltlen(options, RSA_PSS_SALTLEN_DIGEST) == 1);
    }
    CHECK(EVP_DigestSign(signing, signature, &bytes, message, message_bytes) == 1);
    EVP_MD_CTX_free(signing);
}

static int compare(const void *one, const void *other)
{
    const float a = *(const float *)one, b = *(const float *)other;
    return (a > b) - (a < b);
}

int main(int argc, char **argv)
{
    const char *name = NULL;
    double seconds = 1, every_micros = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--key") == 0)
            name = argv[i + 1];
        else if (strcmp(argv[i], "--seconds") == 0)
            seconds = strtod(argv[i + 1], NULL);
        else if (strcmp(argv[i], "--every") == 0)
            every_micros = strtod(argv[i + 1], NULL);
    }
    CHECK(name != NULL && seconds > 0 && seconds <= 60);
    CHECK(OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG, NULL) == 1);
    EVP_PKEY *key = load(name);
    CHECK(key != NULL);
    for (int i = 0; i < WARM_UP; i++)
        sign_once(key);
    float *micros = calloc(MOST, sizeof *micros);
    CHECK(micros != NULL);
    size_t count = 0;
    const double cpu = cpu_micros(), start = now_micros(), end = start + seconds * 1e6;
    double before = start;
    while (before < end && count < MOST) {
        sign_once(key);
        const double after = now_micros();
        micros[count++] = (float)(after - before);
        while (every_micros > 0 && now_micros() < start + every_micros * (double)count)
            sleep_until(start + every_micros * (double)count);
        before = now_micros();
    }
    const double used = cpu_micros() - cpu;
    qsort(micros, count, sizeof *micros, compare);
    printf("{\"perSecond\":%.1f,\"p50Micros\":%.1f,\"p99Micros\":%.1f,\"cpuMicros\":%.1f}\n",
           (double)count * 1e6 / (before - start), (double)micros[count / 2],
           (double)micros[count * 99 / 100], used / (double)count);
    EVP_PKEY_free(key);
    return 0;
}
