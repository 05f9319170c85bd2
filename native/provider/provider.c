/* The face of the library: the one exported function, and what the core may ask of a provider. */
#include "provider.h"
#include "error.h"
#include "pool.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/params.h>
#include <stdlib.h>

static const OSSL_PARAM *gettable_params(void *context)
{
    static const OSSL_PARAM params[] = {
        OSSL_PARAM_DEFN(OSSL_PROV_PARAM_NAME, OSSL_PARAM_UTF8_PTR, NULL, 0),
        OSSL_PARAM_DEFN(OSSL_PROV_PARAM_VERSION, OSSL_PARAM_UTF8_PTR, NULL, 0),
        OSSL_PARAM_DEFN(OSSL_PROV_PARAM_BUILDINFO, OSSL_PARAM_UTF8_PTR, NULL, 0),
        OSSL_PARAM_DEFN(OSSL_PROV_PARAM_STATUS, OSSL_PARAM_INTEGER, NULL, 0),
        OSSL_PARAM_END,
    };
    (void)context;
    return params;
}

static int get_params(void *context, OSSL_PARAM params[])
{
    (void)context;
    OSSL_PARAM *param = OSSL_PARAM_locate(params, OSSL_PROV_PARAM_NAME);
    if (param != NULL && !OSSL_PARAM_set_utf8_ptr(param, "hsmgate signing provider"))
        return 0;
    param = OSSL_PARAM_locate(params, OSSL_PROV_PARAM_VERSION);
    if (param != NULL && !OSSL_PARAM_set_utf8_ptr(param, PROVIDER_VERSION))
        return 0;
    param = OSSL_PARAM_locate(params, OSSL_PROV_PARAM_BUILDINFO);
    if (param != NULL && !OSSL_PARAM_set_utf8_ptr(param, PROVIDER_VERSION " HKS/1"))
        return 0;
    param = OSSL_PARAM_locate(params, OSSL_PROV_PARAM_STATUS);
    return param == NULL || OSSL_PARAM_set_int(param, 1);
}

static const OSSL_ALGORITHM *query_operation(void *context, int operation, int *no_cache)
{
    (void)context;
    *no_cache = 0;
    switch (operation) {
    case OSSL_OP_KEYMGMT:
        return keymgmt_algorithms;
    case OSSL_OP_SIGNATURE:
        return signature_algorithms;
    case OSSL_OP_DECODER:
        return decoder_algorithms;
    case OSSL_OP_ENCODER:
        return encoder_algorithms;
    case OSSL_OP_STORE:
        return store_algorithms;
    default:
        return NULL;
    }
}

static const OSSL_ITEM *get_reason_strings(void *context)
{
    (void)context;
    return error_reasons;
}

/* Nothing depends on being called: applications end without it, and OpenSSL 4 never calls it at
 * exit. */
static void teardown(void *context)
{
    struct provider *provider = context;
    pool_free_all(provider);
    OSSL_LIB_CTX_free(provider->libctx);
    free(provider);
}

static const OSSL_DISPATCH provider_functions[] = {
    DISPATCH(OSSL_FUNC_PROVIDER_TEARDOWN, teardown),
    DISPATCH(OSSL_FUNC_PROVIDER_GETTABLE_PARAMS, gettable_params),
    DISPATCH(OSSL_FUNC_PROVIDER_GET_PARAMS, get_params),
    DISPATCH(OSSL_FUNC_PROVIDER_QUERY_OPERATION, query_operation),
    DISPATCH(OSSL_FUNC_PROVIDER_GET_REASON_STRINGS, get_reason_strings),
    DISPATCH_END,
};

__attribute__((visibility("default"))) int OSSL_provider_init(const OSSL_CORE_HANDLE *core,
                                                              const OSSL_DISPATCH *in,
                                                              const OSSL_DISPATCH **out,
                                                              void **context);

int OSSL_provider_init(const OSSL_CORE_HANDLE *core, const OSSL_DISPATCH *in,
                       const OSSL_DISPATCH **out, void **context)
{
    OSSL_FUNC_core_get_params_fn *core_get_params = NULL;
    struct provider *provider = calloc(1, sizeof *provider);
    if (provider == NULL)
        return 0;
    provider->core = core;
    for (const OSSL_DISPATCH *entry = in; entry->function_id != 0; entry++) {
        switch (entry->function_id) {
        case OSSL_FUNC_CORE_GET_PARAMS:
            core_get_params = OSSL_FUNC_core_get_params(entry);
            break;
        case OSSL_FUNC_CORE_NEW_ERROR:
            provider->new_error = OSSL_FUNC_core_new_error(entry);
            break;
        case OSSL_FUNC_CORE_SET_ERROR_DEBUG:
            provider->set_error_debug = OSSL_FUNC_core_set_error_debug(entry);
            break;
        case OSSL_FUNC_CORE_VSET_ERROR:
            provider->vset_error = OSSL_FUNC_core_vset_error(entry);
            break;
        default:
            break;
        }
    }
    /* From the dispatch table, because BIO_new_from_core_bio needs the core's BIO functions. */
    if (!settings_load(provider, core_get_params, &provider->settings) ||
        (provider->libctx = OSSL_LIB_CTX_new_from_dispatch(core, in)) == NULL) {
        free(provider);
        return 0;
    }
    *out = provider_functions;
    *context = provider;
    return 1;
}
