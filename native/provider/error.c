#include "error.h"
#include "provider.h"

#include <stdarg.h>
#include <stddef.h>

const OSSL_ITEM error_reasons[] = {
    {REASON_REFERENCE, "key reference not readable"},
    {REASON_KEY_UNSUPPORTED, "kind of key not supported"},
    {REASON_PRIVATE_EXPORT, "private key never leaves the HSM"},
    {REASON_KEY_MISMATCH, "key reference belongs to another public key"},
    {REASON_FILE, "file not readable"},
    {REASON_SETTING, "setting not valid"},
    {REASON_PARAMETER, "parameter not valid"},
    {REASON_DIGEST, "digest not supported"},
    {REASON_PADDING, "padding not supported"},
    {REASON_SALT, "salt length not valid"},
    {REASON_STATE, "operation not initialised"},
    {REASON_INPUT, "input of wrong length"},
    {REASON_BUFFER, "signature buffer too small"},
    {REASON_MEMORY, "out of memory"},
    {REASON_ENDPOINT_UNKNOWN, "endpoint of the key reference not configured"},
    {REASON_ENDPOINTS_DOWN, "all endpoints down"},
    {REASON_ENDPOINT_FORBIDDEN, "no permission for the signing socket"},
    {REASON_DEADLINE, "deadline exceeded"},
    {REASON_POOL, "no connection free before the deadline"},
    {REASON_PROTOCOL, "gateway broke the protocol"},
    {REASON_LOST, "connection lost"},
    {REASON_SYSTEM, "system call failed"},
    {REASON_UNAUTHENTICATED, "gateway refused the token"},
    {REASON_DENIED, "gateway denied the signature"},
    {REASON_NOT_FOUND, "gateway does not know the key"},
    {REASON_UNSUPPORTED, "gateway does not support the operation"},
    {REASON_BUSY, "gateway busy"},
    {REASON_HSM, "HSM failed"},
    {REASON_GATEWAY, "gateway failed"},
    {0, NULL},
};

const char *error_reason_text(enum reason reason)
{
    /* They stand in their order. */
    return error_reasons[reason - 1].ptr;
}

int error_raise_at(const struct provider *provider, const char *file, int line,
                   const char *function, enum reason reason, const char *format, ...)
{
    if (provider->new_error == NULL || provider->set_error_debug == NULL ||
        provider->vset_error == NULL)
        return 0;
    va_list arguments;
    va_start(arguments, format);
    provider->new_error(provider->core);
    provider->set_error_debug(provider->core, file, line, function);
    provider->vset_error(provider->core, (uint32_t)reason, format, arguments);
    va_end(arguments);
    return 0;
}
