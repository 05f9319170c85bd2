#include "failure.h"
#include "log.h"
#include "provider.h"

#include <stdio.h>
#include <string.h>

static void note(struct failure *failure, enum reason reason, unsigned endpoint, const char *text,
                 size_t bytes)
{
    failure->reason = reason;
    failure->endpoint = endpoint;
    if (bytes >= sizeof failure->text)
        bytes = sizeof failure->text - 1;
    memcpy(failure->text, text, bytes);
    failure->text[bytes] = '\0';
}

void failure_note(struct failure *failure, enum reason reason, unsigned endpoint, const char *text)
{
    note(failure, reason, endpoint, text, strlen(text));
}

void failure_note_errno(struct failure *failure, enum reason reason, unsigned endpoint, int error)
{
    char text[64];
    (void)snprintf(text, sizeof text, "errno %d", error);
    failure_note(failure, reason, endpoint, text);
}

static enum reason reason_of_gateway_error(uint16_t code)
{
    switch (code) {
    case GATEWAY_UNAUTHENTICATED:
        return REASON_UNAUTHENTICATED;
    case GATEWAY_POLICY_DENIED:
        return REASON_DENIED;
    case GATEWAY_KEY_NOT_FOUND:
        return REASON_NOT_FOUND;
    case GATEWAY_UNSUPPORTED:
        return REASON_UNSUPPORTED;
    case GATEWAY_BUSY:
        return REASON_BUSY;
    case GATEWAY_HSM:
        return REASON_HSM;
    case GATEWAY_DEADLINE:
        return REASON_DEADLINE;
    default:
        return REASON_GATEWAY;
    }
}

void failure_note_gateway(struct failure *failure, unsigned endpoint,
                          const struct frame_error *error)
{
    note(failure, reason_of_gateway_error(error->code), endpoint, error->text, error->text_bytes);
}

void failure_raise(const struct failure *failure, struct provider *provider)
{
    const char *endpoint = failure->endpoint == NO_ENDPOINT
                               ? ""
                               : provider->settings.endpoints[failure->endpoint].name;
    char text[sizeof provider->settings.endpoints[0].name + 2 + sizeof failure->text];
    (void)snprintf(text, sizeof text, "%s%s%s", endpoint,
                   endpoint[0] == '\0' || failure->text[0] == '\0' ? "" : ": ", failure->text);
    if (text[0] == '\0')
        RAISE(provider, failure->reason, NULL);
    else
        RAISE(provider, failure->reason, "%s", text);
    log_failure(provider, error_reason_text(failure->reason), text);
}
