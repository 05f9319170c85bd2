/*
 * Errors on the application's OpenSSL queue, through the core's upcalls: what nginx logs and what
 * `openssl` prints. The reason is a fixed string, the text after it names what and where. Never a
 * token, a message to be signed or a signature.
 */
#pragma once

#include <openssl/core.h>

struct provider;

enum reason {
    REASON_REFERENCE = 1,
    REASON_KEY_UNSUPPORTED,
    REASON_PRIVATE_EXPORT,
    REASON_KEY_MISMATCH,
    REASON_FILE,
    REASON_SETTING,
    REASON_PARAMETER,
    REASON_DIGEST,
    REASON_PADDING,
    REASON_SALT,
    REASON_STATE,
    REASON_INPUT,
    REASON_BUFFER,
    REASON_MEMORY,
    REASON_ENDPOINT_UNKNOWN,
    REASON_ENDPOINTS_DOWN,
    REASON_ENDPOINT_FORBIDDEN,
    REASON_DEADLINE,
    REASON_POOL,
    REASON_PROTOCOL,
    REASON_LOST,
    REASON_SYSTEM,
    REASON_UNAUTHENTICATED,
    REASON_DENIED,
    REASON_NOT_FOUND,
    REASON_UNSUPPORTED,
    REASON_BUSY,
    REASON_HSM,
    REASON_GATEWAY
};

extern const OSSL_ITEM error_reasons[];
const char *error_reason_text(enum reason reason);

/* `format` may be NULL. Returns 0, so that a failing function can end with it. */
int error_raise_at(const struct provider *provider, const char *file, int line,
                   const char *function, enum reason reason, const char *format, ...)
    __attribute__((format(printf, 6, 7)));

#define RAISE(provider, ...) \
    error_raise_at(provider, __FILE_NAME__, __LINE__, __func__, __VA_ARGS__)
