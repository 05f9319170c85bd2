/*
 * `hsmgate:` URIs for OSSL_STORE: `hsmgate:/etc/hsmgate/site.ref.pem` is the one key reference in
 * that file. It is read when the store is opened, at most a megabyte of it. No network.
 */
#include "error.h"
#include "key.h"
#include "pem.h"
#include "provider.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/params.h>
#include <openssl/store.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

struct store {
    struct provider *provider;
    /* NULL once handed out, or when the application expects something else. */
    struct key *key;
};

/* The whole file, wiped and freed by the caller; NULL with an error raised. */
static uint8_t *read_file(const struct provider *provider, const char *path, size_t *bytes)
{
    struct stat status;
    uint8_t *content = NULL;
    const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    *bytes = 0;
    if (file < 0 || fstat(file, &status) != 0) {
        RAISE(provider, REASON_FILE, "%s: %s", path, strerror(errno));
    } else if (!S_ISREG(status.st_mode) || status.st_size > REFERENCE_FILE_BYTES_MAX) {
        RAISE(provider, REASON_FILE, "%s: no file of at most 1 MiB", path);
    } else if ((content = malloc((size_t)status.st_size + 1)) != NULL) {
        ssize_t count;
        while (*bytes < (size_t)status.st_size &&
               (count = read(file, content + *bytes, (size_t)status.st_size - *bytes)) > 0)
            *bytes += (size_t)count;
    }
    if (file >= 0)
        close(file);
    return content;
}

static struct key *read_key(struct provider *provider, const char *path)
{
    size_t bytes;
    uint8_t *content = read_file(provider, path, &bytes);
    if (content == NULL)
        return NULL;
    uint8_t *found = NULL, *der;
    size_t found_bytes = 0, der_bytes;
    unsigned references = 0;
    BIO *in = BIO_new_mem_buf(content, (int)bytes);
    enum pem_outcome outcome;
    while (in != NULL && (outcome = pem_read(provider, in, &der, &der_bytes)) != PEM_NONE) {
        if (outcome == PEM_OTHER_BLOCK)
            continue;
        references++;
        if (outcome == PEM_BROKEN_REFERENCE)
            break;
        pem_release(found, found_bytes);
        found = der;
        found_bytes = der_bytes;
    }
    BIO_free(in);
    OPENSSL_cleanse(content, bytes);
    free(content);
    struct key *key = NULL;
    if (references == 0)
        RAISE(provider, REASON_REFERENCE, "%s: there is none in it", path);
    else if (references > 1)
        RAISE(provider, REASON_REFERENCE, "%s: there is more than one in it", path);
    else if (found != NULL)
        key = key_from_reference(provider, found, found_bytes);
    pem_release(found, found_bytes);
    return key;
}

/* The path in `hsmgate:path` or `hsmgate://path`, percent-decoded (RFC 3986); NULL when it is none.
 */
static char *path_of(const char *uri)
{
    if (strncasecmp(uri, "hsmgate:", 8) != 0)
        return NULL;
    const char *from = uri + 8;
    if (strncmp(from, "//", 2) == 0)
        from += 2;
    char *path = malloc(strlen(from) + 1);
    if (path == NULL || *from == '\0') {
        free(path);
        return NULL;
    }
    char *to = path;
    for (; *from != '\0'; from++, to++) {
        *to = *from;
        if (*from != '%')
            continue;
        const int high = OPENSSL_hexchar2int((unsigned char)from[1]);
        const int low = high < 0 ? -1 : OPENSSL_hexchar2int((unsigned char)from[2]);
        if (low < 0 || (high == 0 && low == 0)) {
            free(path);
            return NULL;
        }
        *to = (char)(high << 4 | low);
        from += 2;
    }
    *to = '\0';
    return path;
}

static void *store_open(void *context, const char *uri)
{
    struct provider *provider = context;
    char *path = path_of(uri);
    if (path == NULL) {
        RAISE(provider, REASON_FILE, "the URI names no file: hsmgate:/path/of/reference.pem");
        return NULL;
    }
    struct store *store = calloc(1, sizeof *store);
    struct key *key = store == NULL ? NULL : read_key(provider, path);
    free(path);
    if (key == NULL) {
        free(store);
        return NULL;
    }
    store->provider = provider;
    store->key = key;
    return store;
}

static const OSSL_PARAM *store_settable_params(void *context)
{
    static const OSSL_PARAM params[] = {
        OSSL_PARAM_int(OSSL_STORE_PARAM_EXPECT, NULL),
        OSSL_PARAM_END,
    };
    (void)context;
    return params;
}

static int store_set_params(void *context, const OSSL_PARAM params[])
{
    struct store *store = context;
    const OSSL_PARAM *expect = OSSL_PARAM_locate_const(params, OSSL_STORE_PARAM_EXPECT);
    int type = 0;
    if (expect == NULL)
        return 1;
    if (!OSSL_PARAM_get_int(expect, &type))
        return 0;
    if (type != 0 && type != OSSL_STORE_INFO_PKEY && type != OSSL_STORE_INFO_PUBKEY) {
        key_free(store->key);
        store->key = NULL;
    }
    return 1;
}

static int store_load(void *context, OSSL_CALLBACK *callback, void *argument,
                      OSSL_PASSPHRASE_CALLBACK *passphrase, void *passphrase_argument)
{
    struct store *store = context;
    (void)passphrase, (void)passphrase_argument;
    if (store->key == NULL)
        return 0;
    struct key *key = store->key;
    store->key = NULL;
    return key_give(key, callback, argument);
}

static int store_eof(void *context)
{
    const struct store *store = context;
    return store->key == NULL;
}

static int store_close(void *context)
{
    struct store *store = context;
    key_free(store->key);
    free(store);
    return 1;
}

static const OSSL_DISPATCH store_functions[] = {
    DISPATCH(OSSL_FUNC_STORE_OPEN, store_open),
    DISPATCH(OSSL_FUNC_STORE_SETTABLE_CTX_PARAMS, store_settable_params),
    DISPATCH(OSSL_FUNC_STORE_SET_CTX_PARAMS, store_set_params),
    DISPATCH(OSSL_FUNC_STORE_LOAD, store_load),
    DISPATCH(OSSL_FUNC_STORE_EOF, store_eof),
    DISPATCH(OSSL_FUNC_STORE_CLOSE, store_close),
    DISPATCH_END,
};

const OSSL_ALGORITHM store_algorithms[] = {
    {"hsmgate", PROVIDER_PROPERTIES, store_functions, "key references by path"},
    {NULL, NULL, NULL, NULL},
};
