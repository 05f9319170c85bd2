#include "client.h"
#include "attempt.h"
#include "error.h"
#include "failure.h"
#include "pool.h"
#include "provider.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

enum {
    /* Of the time that is left, for the first of two attempts. */
    FIRST_ATTEMPT_PERCENT = 60,
    ATTEMPTS_MAX = 2,
    BACKOFF_FIRST_MS = 10,
    BACKOFF_MAX_MS = 40,
    /* Each of these asks the gateway, and leaves a record there. */
    BACKOFF_HSM_MAX_MS = 160
};

/* One signature under way. */
struct operation {
    struct question question;
    const struct settings *settings;
    int64_t deadline_ns;
    unsigned attempts;
    unsigned backoff_ms;
    /* The endpoint that failed last; another one is asked first. */
    unsigned avoided;
};

static bool is_candidate(const struct operation *operation, unsigned endpoint)
{
    return strcmp(operation->settings->endpoints[endpoint].alias,
                  operation->question.key->endpoint) == 0;
}

static int64_t attempt_end(const struct operation *operation)
{
    const int64_t now = now_ns();
    if (operation->attempts + 1 >= ATTEMPTS_MAX)
        return operation->deadline_ns;
    return now + (operation->deadline_ns - now) * FIRST_ATTEMPT_PERCENT / 100;
}

/* Each endpoint of the key once, the one that failed last at the end. */
static enum step try_all(struct operation *operation, bool *all_open)
{
    const unsigned count = operation->settings->endpoint_count;
    *all_open = true;
    for (unsigned turn = 0; turn < 2; turn++)
        for (unsigned endpoint = 0; endpoint < count; endpoint++) {
            if (!is_candidate(operation, endpoint) ||
                (endpoint == operation->avoided) != (turn == 1))
                continue;
            const enum breaker_state breaker = pool_breaker(operation->question.pool, endpoint);
            if (breaker == BREAKER_OPEN)
                continue;
            const bool probe = breaker == BREAKER_PROBE;
            const enum step step =
                attempt(&operation->question, endpoint, probe, attempt_end(operation));
            if (step != STEP_AWAY) {
                operation->avoided = endpoint;
                return step;
            }
            if (probe)
                pool_failed(operation->question.pool, endpoint, true);
            else
                *all_open = false;
        }
    return STEP_AWAY;
}

/* Waits a little; false when the deadline would be over. */
static bool back_off(struct operation *operation, unsigned max_ms)
{
    const int64_t until_ns = now_ns() + ms_to_ns(operation->backoff_ms);
    if (until_ns >= operation->deadline_ns)
        return false;
    operation->backoff_ms = operation->backoff_ms * 2 > max_ms ? max_ms : operation->backoff_ms * 2;
    return wait_until(&operation->question.wait, -1, 0, until_ns) != WAIT_FAILED;
}

static void count_absence(struct operation *operation)
{
    for (unsigned endpoint = 0; endpoint < operation->settings->endpoint_count; endpoint++)
        if (is_candidate(operation, endpoint))
            pool_failed(operation->question.pool, endpoint, false);
}

static bool has_candidate(const struct operation *operation)
{
    for (unsigned endpoint = 0; endpoint < operation->settings->endpoint_count; endpoint++)
        if (is_candidate(operation, endpoint))
            return true;
    return false;
}

static bool run(struct operation *operation)
{
    struct question *question = &operation->question;
    if (!has_candidate(operation)) {
        failure_note(&question->failure, REASON_ENDPOINT_UNKNOWN, NO_ENDPOINT,
                     question->key->endpoint);
        return false;
    }
    for (;;) {
        bool all_open;
        switch (try_all(operation, &all_open)) {
        case STEP_DONE:
            return true;
        case STEP_GIVE_UP:
            return false;
        case STEP_FAILED_ATTEMPT:
            /* Another endpoint is asked at once, the same one after a moment. */
            if (++operation->attempts < ATTEMPTS_MAX && now_ns() < operation->deadline_ns &&
                (question->failure.reason == REASON_LOST || back_off(operation, BACKOFF_MAX_MS)))
                break;
            if (question->failure.reason == REASON_HSM)
                atomic_store(&question->key->waited_in_vain, true);
            return false;
        case STEP_NO_HSM:
            /* A module that restarts is waited for, as a gateway is; but only once, so that
             * handshakes with a key that is gone don't hold up the others of a process. */
            if (!back_off(operation, BACKOFF_HSM_MAX_MS)) {
                atomic_store(&question->key->waited_in_vain, true);
                return false;
            }
            break;
        case STEP_AWAY:
            if (all_open) {
                if (operation->attempts == 0)
                    failure_note(&question->failure, REASON_ENDPOINTS_DOWN, NO_ENDPOINT, "");
                return false;
            }
            if (!back_off(operation, BACKOFF_MAX_MS)) {
                failure_note(&question->failure, REASON_ENDPOINTS_DOWN, NO_ENDPOINT, "");
                count_absence(operation);
                return false;
            }
            break;
        }
    }
}

bool client_sign(struct key *key, const struct signing *signing, uint8_t *signature,
                 size_t *signature_bytes)
{
    struct provider *provider = key->provider;
    const int error_before = errno;
    uint8_t trace_id[TRACE_ID_BYTES];
    struct operation operation = {
        .question =
            {
                .key = key,
                .pool = pool_get(provider),
                .request =
                    {
                        .key_id = key->key_id,
                        .algorithm = signing->algorithm,
                        .hash = signing->hash,
                        .mgf_hash = signing->mgf_hash,
                        .salt_bytes = signing->salt_bytes,
                        .input_kind = signing->input_kind,
                        .input = signing->input,
                        .input_bytes = signing->input_bytes,
                        .trace_id = trace_id,
                    },
                .signature = signature,
            },
        .settings = &provider->settings,
        .deadline_ns = now_ns() + ms_to_ns(provider->settings.deadline_ms),
        .backoff_ms = BACKOFF_FIRST_MS,
        .avoided = NO_ENDPOINT,
    };
    struct question *question = &operation.question;
    if (question->pool == NULL)
        return RAISE(provider, REASON_MEMORY, NULL);
    /* Ties the records of a repeated request together; without entropy they stay untied. */
    if (getrandom(trace_id, sizeof trace_id, GRND_NONBLOCK) != (ssize_t)sizeof trace_id)
        question->request.trace_id = NULL;
    wait_begin(&question->wait, provider->settings.async);
    const bool done = run(&operation);
    wait_end(&question->wait);
    if (done)
        *signature_bytes = question->signature_bytes;
    else
        failure_raise(&question->failure, provider);
    errno = error_before;
    return done;
}
