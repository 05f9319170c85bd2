/*
 * One instance of the provider, as one OSSL_LIB_CTX of the application loads it: the core's
 * upcalls, the settings, a library context of its own for public-key work and the pool of
 * connections to the gateway. Everything but the pool and the log is immutable after init, so any
 * thread may use it.
 */
#pragma once

#include "log.h"
#include "settings.h"

#include <openssl/core.h>
#include <openssl/core_dispatch.h>
#include <openssl/types.h>
#include <stdatomic.h>

#define PROVIDER_NAME "hsmgate"
#define PROVIDER_VERSION "0.1.0"
#define PROVIDER_PROPERTIES "provider=hsmgate"

struct pool;

struct provider {
    const OSSL_CORE_HANDLE *core;
    OSSL_FUNC_core_new_error_fn *new_error;
    OSSL_FUNC_core_set_error_debug_fn *set_error_debug;
    OSSL_FUNC_core_vset_error_fn *vset_error;
    /* Not the application's: never our own algorithms, never its openssl.cnf. */
    OSSL_LIB_CTX *libctx;
    struct settings settings;
    /* Of the process that used it last (pool.h). */
    _Atomic(struct pool *) pool;
    struct log log;
};

/* A pointer to a function as OSSL_DISPATCH wants it. */
#define DISPATCH(id, function)         \
    {                                  \
        id, (void (*)(void))(function) \
    }
#define DISPATCH_END \
    {                \
        0, NULL      \
    }

extern const OSSL_ALGORITHM keymgmt_algorithms[];
extern const OSSL_ALGORITHM signature_algorithms[];
extern const OSSL_ALGORITHM decoder_algorithms[];
extern const OSSL_ALGORITHM encoder_algorithms[];
extern const OSSL_ALGORITHM store_algorithms[];
