/*
 * The frame of the program that uses the provider as an application does. A mode is a function; it
 * asserts with CHECK, which prints place and error queue and ends the program with 1.
 */
#pragma once

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/provider.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                    \
    do {                                                                    \
        if (!(condition)) {                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            ERR_print_errors_fp(stderr);                                    \
            exit(1);                                                        \
        }                                                                   \
    } while (0)

/* A library context with the default provider and the one under test, from $PROVIDER_FOLDER. */
struct library {
    OSSL_LIB_CTX *context;
    OSSL_PROVIDER *base;
    OSSL_PROVIDER *hsmgate;
};

struct library library_open(void);
void library_close(struct library *library);

EVP_PKEY *load_key(OSSL_LIB_CTX *context, const char *path);
/* One signature over `message`, checked with the public half; false when it fails, the error is on
 * the queue then. */
bool sign_and_verify(OSSL_LIB_CTX *context, EVP_PKEY *key, const void *message, size_t bytes);
/* Sign alone, into a buffer of its own; 0 when it fails. */
size_t sign_message(OSSL_LIB_CTX *context, EVP_PKEY *key, const void *message, size_t bytes);
/* The first error on the queue with `text` in it, or NULL; empties the queue. */
const char *find_error(const char *text);
unsigned count_descriptors(void);
int64_t monotonic_ms(void);

int mode_loops(char **argv);
int mode_probes(char **argv);
int mode_threads(char **argv);
int mode_fork(char **argv);
int mode_private(char **argv);
int mode_burst(char **argv);
int mode_async(char **argv);
int mode_fuzz(char **argv);
int mode_refused(char **argv);
