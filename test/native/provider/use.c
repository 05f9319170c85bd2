/* Loading, signing and unloading in every way, from one thread and from many, before and after
 * forks. */
#include "driver.h"

#include <fcntl.h>
#include <openssl/core_names.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void sign_by_updates(OSSL_LIB_CTX *context, EVP_PKEY *key, size_t bytes)
{
    EVP_MD_CTX *signing = EVP_MD_CTX_new();
    uint8_t *message = calloc(1, bytes), signature[1024];
    size_t signature_bytes = 0;
    CHECK(EVP_DigestSignInit_ex(signing, NULL, "SHA384", context, NULL, key, NULL) == 1);
    CHECK(EVP_DigestSignUpdate(signing, message, bytes / 2) == 1);
    CHECK(EVP_DigestSignUpdate(signing, message + bytes / 2, bytes - bytes / 2) == 1);
    CHECK(EVP_DigestSignFinal(signing, NULL, &signature_bytes) == 1);
    CHECK(signature_bytes <= sizeof signature);
    /* The context goes on after the first signature: what was signed is a copy. */
    CHECK(EVP_DigestSignFinal(signing, signature, &signature_bytes) == 1);
    CHECK(EVP_DigestSignUpdate(signing, message, 1) == 1);
    signature_bytes = sizeof signature;
    CHECK(EVP_DigestSignFinal(signing, signature, &signature_bytes) == 1);
    EVP_MD_CTX_free(signing);
    free(message);
}

static void sign_digest(OSSL_LIB_CTX *context, EVP_PKEY *key)
{
    EVP_PKEY_CTX *signing = EVP_PKEY_CTX_new_from_pkey(context, key, NULL);
    uint8_t digest[32] = {1}, signature[1024];
    size_t signature_bytes = sizeof signature;
    CHECK(EVP_PKEY_sign_init(signing) == 1);
    CHECK(EVP_PKEY_CTX_set_signature_md(signing, EVP_sha256()) == 1);
    CHECK(EVP_PKEY_sign(signing, NULL, &signature_bytes, digest, sizeof digest) == 1);
    CHECK(EVP_PKEY_sign(signing, signature, &signature_bytes, digest, sizeof digest) == 1);
    CHECK(EVP_PKEY_sign(signing, signature, &signature_bytes, digest, 31) != 1);
    CHECK(find_error("input of wrong length") != NULL);
    EVP_PKEY_CTX_free(signing);
}

/* What X509_check_private_key does with the key of a certificate: ours equals it, and no other. */
static void compare_with_public(OSSL_LIB_CTX *context, EVP_PKEY *key)
{
    uint8_t *spki = NULL;
    const int bytes = i2d_PUBKEY(key, &spki);
    const uint8_t *at = spki;
    EVP_PKEY *same = d2i_PUBKEY_ex(NULL, &at, bytes, context, NULL);
    EVP_PKEY *other = EVP_PKEY_is_a(key, "RSA")
                          ? EVP_PKEY_Q_keygen(context, NULL, "RSA", (size_t)2048)
                      : EVP_PKEY_is_a(key, "EC") ? EVP_PKEY_Q_keygen(context, NULL, "EC", "P-256")
                                                 : EVP_PKEY_Q_keygen(context, NULL, "ED25519");
    CHECK(same != NULL && other != NULL);
    CHECK(EVP_PKEY_eq(key, same) == 1 && EVP_PKEY_eq(same, key) == 1);
    CHECK(EVP_PKEY_eq(key, other) != 1);
    ERR_clear_error();
    EVP_PKEY_free(same);
    EVP_PKEY_free(other);
    OPENSSL_free(spki);
}

/* loops REFERENCE COUNT: everything from load to unload, again and again; descriptors come back. */
int mode_loops(char **argv)
{
    unsigned descriptors = 0;
    for (int round = atoi(argv[1]); round > 0; round--) {
        struct library library = library_open();
        EVP_PKEY *key = load_key(library.context, argv[0]), *copy = EVP_PKEY_dup(key);
        CHECK(copy != NULL);
        compare_with_public(library.context, key);
        CHECK(sign_and_verify(library.context, key, "abc", 3));
        CHECK(sign_and_verify(library.context, copy, "", 0));
        if (!EVP_PKEY_is_a(key, "ED25519")) {
            sign_by_updates(library.context, key, 100);
            sign_by_updates(library.context, key, 40000);
            sign_digest(library.context, key);
        }
        EVP_PKEY_free(copy);
        EVP_PKEY_free(key);
        library_close(&library);
        if (descriptors == 0)
            descriptors = count_descriptors();
        CHECK(count_descriptors() == descriptors);
    }
    return 0;
}

/* probes REFERENCE: what libssl asks of a key when it is loaded and before each handshake. */
int mode_probes(char **argv)
{
    static const char *const digests[] = {"SHA256", "SHA2-256", "SHA384", "SHA512"};
    struct library library = library_open();
    EVP_PKEY *key = load_key(library.context, argv[0]);
    const unsigned descriptors = count_descriptors();
    const bool hashes = !EVP_PKEY_is_a(key, "ED25519");
    compare_with_public(library.context, key);
    CHECK(EVP_PKEY_get_bits(key) > 0 && EVP_PKEY_get_security_bits(key) > 0);
    for (size_t i = 0; i < (hashes ? sizeof digests / sizeof *digests : 1); i++) {
        EVP_MD_CTX *signing = EVP_MD_CTX_new();
        EVP_PKEY_CTX *options = NULL;
        OSSL_PARAM *params = NULL;
        size_t bytes = 0;
        CHECK(EVP_PKEY_todata(key, EVP_PKEY_KEYPAIR, &params) != 1);
        CHECK(EVP_DigestSignInit_ex(signing, &options, hashes ? digests[i] : NULL, library.context,
                                    NULL, key, NULL) == 1);
        if (EVP_PKEY_is_a(key, "RSA"))
            CHECK(EVP_PKEY_CTX_set_rsa_padding(options, RSA_PKCS1_PSS_PADDING) == 1 &&
                  EVP_PKEY_CTX_set_rsa_pss_saltlen(options, RSA_PSS_SALTLEN_DIGEST) == 1);
        CHECK(EVP_DigestSign(signing, NULL, &bytes, (const uint8_t *)"tbs", 3) == 1);
        CHECK(bytes == (size_t)EVP_PKEY_get_size(key));
        EVP_MD_CTX_free(signing);
    }
    ERR_clear_error();
    CHECK(count_descriptors() == descriptors);
    EVP_PKEY_free(key);
    library_close(&library);
    return 0;
}

struct worker {
    OSSL_LIB_CTX *context;
    EVP_PKEY *key;
    int count;
};

static void *work(void *argument)
{
    const struct worker *worker = argument;
    for (int i = 0; i < worker->count; i++)
        CHECK(sign_and_verify(worker->context, worker->key, &i, sizeof i));
    return NULL;
}

static void run_threads(const struct worker *worker, int count)
{
    pthread_t threads[64];
    CHECK(count <= 64);
    for (int i = 0; i < count; i++)
        CHECK(pthread_create(&threads[i], NULL, work, (void *)worker) == 0);
    for (int i = 0; i < count; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
}

/* threads REFERENCE THREADS COUNT: one key in many threads. */
int mode_threads(char **argv)
{
    struct library library = library_open();
    EVP_PKEY *key = load_key(library.context, argv[0]);
    const struct worker worker = {library.context, key, atoi(argv[2])};
    run_threads(&worker, atoi(argv[1]));
    EVP_PKEY_free(key);
    library_close(&library);
    return 0;
}

static void wait_for(pid_t child)
{
    int status;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

enum { DESCRIPTORS = 1024 };

/* What was opened since the start is not handed to programs that the application runs. */
static void check_closed_on_exec(const bool open_before[DESCRIPTORS])
{
    unsigned found = 0;
    for (int fd = 0; fd < DESCRIPTORS; fd++) {
        const int flags = open_before[fd] ? -1 : fcntl(fd, F_GETFD);
        CHECK(flags < 0 || (flags & FD_CLOEXEC) != 0);
        found += flags >= 0;
    }
    CHECK(found > 0);
}

/* As a server that starts programs from its threads. */
static void *fork_in_thread(void *argument)
{
    const struct worker *worker = argument;
    const pid_t child = fork();
    if (child == 0) {
        CHECK(sign_and_verify(worker->context, worker->key, "child of a thread", 17));
        _exit(0);
    }
    wait_for(child);
    return NULL;
}

/*
 * fork REFERENCE FILE: signs before a fork, in the child, in another child that is forked while a
 * thread waits for its signature (then there is FILE), in one that a thread forks, and after.
 */
int mode_fork(char **argv)
{
    bool open_before[DESCRIPTORS];
    for (int fd = 0; fd < DESCRIPTORS; fd++)
        open_before[fd] = fcntl(fd, F_GETFD) >= 0;
    struct library library = library_open();
    EVP_PKEY *key = load_key(library.context, argv[0]);
    CHECK(sign_and_verify(library.context, key, "parent", 6));
    const unsigned descriptors = count_descriptors();
    pid_t child = fork();
    if (child == 0) {
        CHECK(sign_and_verify(library.context, key, "child", 5));
        /* The parent's connection is closed, one of its own opened. */
        CHECK(count_descriptors() == descriptors);
        check_closed_on_exec(open_before);
        _exit(0);
    }
    wait_for(child);
    const struct worker waiting = {library.context, key, 1};
    pthread_t worker;
    CHECK(pthread_create(&worker, NULL, work, (void *)&waiting) == 0);
    while (access(argv[1], F_OK) != 0)
        usleep(1000);
    child = fork();
    if (child == 0) {
        CHECK(sign_and_verify(library.context, key, "child amid a signature", 22));
        _exit(0);
    }
    wait_for(child);
    CHECK(pthread_join(worker, NULL) == 0);
    CHECK(pthread_create(&worker, NULL, fork_in_thread, (void *)&waiting) == 0);
    CHECK(pthread_join(worker, NULL) == 0);
    CHECK(sign_and_verify(library.context, key, "parent again", 12));
    EVP_PKEY_free(key);
    library_close(&library);
    return 0;
}

/* burst REFERENCE COUNT: one signature after the other; a line each: `<ms> ok` or `<ms> <error>`.
 */
int mode_burst(char **argv)
{
    struct library library = library_open();
    EVP_PKEY *key = load_key(library.context, argv[0]);
    for (int i = atoi(argv[1]); i > 0; i--) {
        const int64_t from = monotonic_ms();
        const bool done = sign_and_verify(library.context, key, "burst", 5);
        const long ms = (long)(monotonic_ms() - from);
        const char *error = done ? "ok" : find_error("hsmgate");
        printf("%ld %s\n", ms, error == NULL ? "?" : error);
        fflush(stdout);
        if (done && getenv("UNTIL_OK") != NULL)
            break;
    }
    EVP_PKEY_free(key);
    library_close(&library);
    return 0;
}

/* refused REFERENCE REFERENCE: both keys share a connection; what the second one was first asked
 * for is never sent. */
int mode_refused(char **argv)
{
    static const uint8_t long_message[16384], message[100];
    struct library library = library_open();
    EVP_PKEY *first = load_key(library.context, argv[0]);
    EVP_PKEY *second = load_key(library.context, argv[1]);
    CHECK(sign_and_verify(library.context, first, message, sizeof message));
    CHECK(!sign_and_verify(library.context, second, long_message, sizeof long_message));
    CHECK(find_error("longer than the gateway takes") != NULL);
    CHECK(sign_and_verify(library.context, second, message, sizeof message));
    CHECK(sign_and_verify(library.context, first, message, sizeof message));
    EVP_PKEY_free(first);
    EVP_PKEY_free(second);
    library_close(&library);
    return 0;
}
