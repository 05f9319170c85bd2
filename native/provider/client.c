#include "client.h"
#include "connection.h"
#include "error.h"
#include "failure.h"
#include "provider.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <string.h>
#include <sys/random.h>

enum {
    /* Of the time that is left, for the first of two attempts. */
    FIRST_ATTEMPT_PERCENT = 60,
    ATTEMPTS_MAX = 2,
    /* Of the time of an attempt, for the gateway. */
    BUDGET_PERCENT = 95,
    /* Connecting and greeting, where nothing may be waited for: the probe of a breaker. */
    PROBE_MS = 100,
    BACKOFF_FIRST_MS = 10,
    BACKOFF_MAX_MS = 40,
    /* Each of these asks the gateway, and leaves a record there. */
    BACKOFF_HSM_MAX_MS = 160
};

/* One signature under way. */
struct operation_state {
    struct key *key;
    struct provider *provider;
    struct pool *pool;
    struct wait wait;
    struct frame_request request;
    int64_t deadline_ns;
    unsigned attempts;
    unsigned backoff_ms;
    /* The endpoint that failed last; another one is asked first. */
    unsigned avoided;
    struct failure failure;
};

static const uint8_t *token_of(const struct key *key)
{
    return key->has_token ? key->token : NULL;
}

static bool is_candidate(const struct operation_state *state, unsigned endpoint)
{
    return strcmp(state->provider->settings.endpoints[endpoint].alias, state->key->endpoint) == 0;
}

static int64_t attempt_end(const struct operation_state *state)
{
    const int64_t now = now_ns();
    if (state->attempts + 1 >= ATTEMPTS_MAX)
        return state->deadline_ns;
    return now + (state->deadline_ns - now) * FIRST_ATTEMPT_PERCENT / 100;
}

static void discard(struct operation_state *state, struct connection *connection)
{
    wait_hold(&state->wait, NULL);
    pool_discard(connection);
}

static void put_back(struct operation_state *state, struct connection *connection)
{
    wait_hold(&state->wait, NULL);
    if (connection->leaving || connection->last_request_id == UINT32_MAX)
        pool_discard(connection);
    else
        pool_put_back(connection);
}

/* What became of one try at one endpoint. */
enum step { STEP_DONE, STEP_AWAY, STEP_NO_HSM, STEP_FAILED_ATTEMPT, STEP_GIVE_UP };

static enum step step_after_gateway_error(struct operation_state *state, unsigned endpoint,
                                          bool probe, const struct frame_error *error)
{
    if (error->code == GATEWAY_SHUTTING_DOWN)
        return STEP_AWAY;
    failure_note_gateway(&state->failure, endpoint, error);
    /* Whoever answers in time is well, whatever the answer; a deadline that it let pass stalled us.
     */
    if (error->code == GATEWAY_DEADLINE)
        pool_failed(state->pool, endpoint, probe);
    else
        pool_succeeded(state->pool, endpoint);
    if (!error->retryable)
        return STEP_GIVE_UP;
    return error->code == GATEWAY_HSM && !atomic_load(&state->key->waited_in_vain)
               ? STEP_NO_HSM
               : STEP_FAILED_ATTEMPT;
}

static enum step step_after_trouble(struct operation_state *state, unsigned endpoint, bool probe,
                                    enum exchange_outcome outcome, int system_error)
{
    switch (outcome) {
    case EXCHANGE_AWAY:
        return STEP_AWAY;
    case EXCHANGE_LOST:
        /* A restart ends all connections at once: what counts is whether one comes back in time. */
        failure_note(&state->failure, REASON_LOST, endpoint, "");
        return STEP_FAILED_ATTEMPT;
    case EXCHANGE_TIMEOUT:
        failure_note(&state->failure, REASON_DEADLINE, endpoint, "no reply");
        pool_failed(state->pool, endpoint, probe);
        return STEP_FAILED_ATTEMPT;
    case EXCHANGE_PROTOCOL:
        failure_note(&state->failure, REASON_PROTOCOL, endpoint, "");
        pool_failed(state->pool, endpoint, probe);
        return STEP_FAILED_ATTEMPT;
    case EXCHANGE_FORBIDDEN:
        failure_note_errno(&state->failure, REASON_ENDPOINT_FORBIDDEN, endpoint, system_error);
        return STEP_GIVE_UP;
    default:
        failure_note_errno(&state->failure, REASON_SYSTEM, endpoint, system_error);
        return STEP_GIVE_UP;
    }
}

/* A little less than we wait ourselves, so that the gateway's own "deadline" is here before we give
 * up the connection. */
static uint32_t budget_ms(const struct connection *connection, int64_t until_ns)
{
    const int64_t left_ms = (until_ns - now_ns()) / 1000000 * BUDGET_PERCENT / 100;
    const int64_t max_ms = connection->limits.max_budget_ms;
    const int64_t budget = max_ms != 0 && left_ms > max_ms ? max_ms : left_ms;
    return budget < 1 ? 1 : (uint32_t)budget;
}

static enum step accept_result(struct operation_state *state, struct connection *connection,
                               bool probe, const struct reply *reply, uint8_t *signature,
                               size_t *signature_bytes)
{
    const unsigned endpoint = connection->endpoint;
    if (reply->head.body_bytes > state->key->signature_bytes_max) {
        discard(state, connection);
        return step_after_trouble(state, endpoint, probe, EXCHANGE_PROTOCOL, 0);
    }
    memcpy(signature, reply->body, reply->head.body_bytes);
    *signature_bytes = reply->head.body_bytes;
    pool_succeeded(state->pool, endpoint);
    atomic_store(&state->key->waited_in_vain, false);
    connection->in_used = 0;
    put_back(state, connection);
    return STEP_DONE;
}

/* On an open connection. `stale`: it had ended before the request, which is nobody's failure. */
static enum step ask(struct operation_state *state, struct connection *connection, bool probe,
                     int64_t until_ns, uint8_t *signature, size_t *signature_bytes, bool *stale)
{
    const unsigned endpoint = connection->endpoint;
    struct reply reply = {0};
    /* Before the token takes a place on the connection that the gateway would not hear of. */
    if (state->request.input_bytes > connection->limits.max_input_bytes) {
        failure_note(&state->failure, REASON_INPUT, endpoint, "longer than the gateway takes");
        put_back(state, connection);
        return STEP_GIVE_UP;
    }
    *stale = !connection_number(connection, token_of(state->key), &state->request);
    if (*stale) {
        discard(state, connection);
        return STEP_AWAY;
    }
    state->request.budget_ms = budget_ms(connection, until_ns);
    const enum exchange_outcome outcome =
        connection_exchange(connection, &state->request, &state->wait, until_ns, &reply);
    if (outcome != EXCHANGE_REPLY) {
        *stale = outcome == EXCHANGE_LOST && connection->reused && connection->in_used == 0;
        discard(state, connection);
        return *stale ? STEP_AWAY
                      : step_after_trouble(state, endpoint, probe, outcome, reply.system_error);
    }
    if (reply.head.type == FRAME_RESULT) {
        if (connection->in_used != FRAME_HEAD_BYTES + reply.head.body_bytes)
            connection->leaving = true;
        return accept_result(state, connection, probe, &reply, signature, signature_bytes);
    }
    const enum step step = step_after_gateway_error(state, endpoint, probe, &reply.error);
    if (step == STEP_AWAY || reply.error.code == GATEWAY_UNAUTHENTICATED)
        connection->leaving = true;
    connection->in_used = 0;
    put_back(state, connection);
    return step;
}

/* One endpoint: idle connections first, those that ended meanwhile at no cost. */
static enum step try_endpoint(struct operation_state *state, unsigned endpoint, bool probe,
                              uint8_t *signature, size_t *signature_bytes)
{
    const int64_t until_ns = attempt_end(state);
    bool fresh = probe;
    for (;;) {
        struct connection *connection;
        struct reply reply = {0};
        bool stale = false;
        const enum borrow_outcome borrowed =
            pool_borrow(state->pool, endpoint, fresh, &state->wait, until_ns, &connection);
        if (borrowed == BORROW_TIMEOUT) {
            failure_note(&state->failure, REASON_POOL, NO_ENDPOINT, "");
            return STEP_FAILED_ATTEMPT;
        }
        if (borrowed == BORROWED_IDLE && !connection_is_quiet(connection)) {
            discard(state, connection);
            continue;
        }
        if (borrowed == BORROWED_NEW) {
            const int64_t probe_end = now_ns() + ms_to_ns(PROBE_MS);
            const enum exchange_outcome outcome =
                connection_open(state->provider, connection, token_of(state->key), &state->wait,
                                probe && probe_end < until_ns ? probe_end : until_ns, &reply);
            if (outcome != EXCHANGE_REPLY || reply.head.type == FRAME_ERROR) {
                const enum step step =
                    outcome != EXCHANGE_REPLY
                        ? step_after_trouble(state, endpoint, probe, outcome, reply.system_error)
                        : step_after_gateway_error(state, endpoint, probe, &reply.error);
                discard(state, connection);
                return step;
            }
        }
        const enum step step =
            ask(state, connection, probe, until_ns, signature, signature_bytes, &stale);
        if (!stale)
            return step;
        /* Rather a new one than the next that may have ended too. */
        fresh = true;
    }
}

/* Each endpoint of the key once, the one that failed last at the end. */
static enum step try_all(struct operation_state *state, uint8_t *signature, size_t *signature_bytes,
                         bool *all_open)
{
    const unsigned count = state->provider->settings.endpoint_count;
    *all_open = true;
    for (unsigned turn = 0; turn < 2; turn++)
        for (unsigned endpoint = 0; endpoint < count; endpoint++) {
            if (!is_candidate(state, endpoint) || (endpoint == state->avoided) != (turn == 1))
                continue;
            const enum breaker_state breaker = pool_breaker(state->pool, endpoint);
            if (breaker == BREAKER_OPEN)
                continue;
            const bool probe = breaker == BREAKER_PROBE;
            const enum step step = try_endpoint(state, endpoint, probe, signature, signature_bytes);
            if (step != STEP_AWAY) {
                state->avoided = endpoint;
                return step;
            }
            if (probe)
                pool_failed(state->pool, endpoint, true);
            else
                *all_open = false;
        }
    return STEP_AWAY;
}

/* Waits a little; false when the deadline would be over. */
static bool back_off(struct operation_state *state, unsigned max_ms)
{
    const int64_t until_ns = now_ns() + ms_to_ns(state->backoff_ms);
    if (until_ns >= state->deadline_ns)
        return false;
    state->backoff_ms = state->backoff_ms * 2 > max_ms ? max_ms : state->backoff_ms * 2;
    return wait_until(&state->wait, -1, 0, until_ns) != WAIT_FAILED;
}

static void count_absence(struct operation_state *state)
{
    for (unsigned endpoint = 0; endpoint < state->provider->settings.endpoint_count; endpoint++)
        if (is_candidate(state, endpoint))
            pool_failed(state->pool, endpoint, false);
}

static bool run(struct operation_state *state, uint8_t *signature, size_t *signature_bytes)
{
    for (;;) {
        bool all_open;
        switch (try_all(state, signature, signature_bytes, &all_open)) {
        case STEP_DONE:
            return true;
        case STEP_GIVE_UP:
            return false;
        case STEP_FAILED_ATTEMPT:
            if (++state->attempts >= ATTEMPTS_MAX || now_ns() >= state->deadline_ns)
                return false;
            /* Another endpoint is asked at once, the same one after a moment. */
            if (state->failure.reason != REASON_LOST && !back_off(state, BACKOFF_MAX_MS))
                return false;
            break;
        case STEP_NO_HSM:
            /* A module that restarts is waited for, as a gateway is; but only once, so that
             * handshakes with a key that is gone don't hold up the others of a process. */
            if (!back_off(state, BACKOFF_HSM_MAX_MS)) {
                atomic_store(&state->key->waited_in_vain, true);
                return false;
            }
            break;
        case STEP_AWAY:
            if (all_open) {
                if (state->attempts == 0)
                    failure_note(&state->failure, REASON_ENDPOINTS_DOWN, NO_ENDPOINT, "");
                return false;
            }
            if (!back_off(state, BACKOFF_MAX_MS)) {
                failure_note(&state->failure, REASON_ENDPOINTS_DOWN, NO_ENDPOINT, "");
                count_absence(state);
                return false;
            }
            break;
        }
    }
}

static bool has_candidate(const struct operation_state *state)
{
    for (unsigned endpoint = 0; endpoint < state->provider->settings.endpoint_count; endpoint++)
        if (is_candidate(state, endpoint))
            return true;
    return false;
}

bool client_sign(struct key *key, const struct signing *signing, uint8_t *signature,
                 size_t *signature_bytes)
{
    struct provider *provider = key->provider;
    const int error_before = errno;
    uint8_t trace_id[TRACE_ID_BYTES];
    struct operation_state state = {
        .key = key,
        .provider = provider,
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
        .deadline_ns = now_ns() + ms_to_ns(provider->settings.deadline_ms),
        .backoff_ms = BACKOFF_FIRST_MS,
        .avoided = NO_ENDPOINT,
    };
    if (state.pool == NULL)
        return RAISE(provider, REASON_MEMORY, NULL);
    if (!has_candidate(&state))
        return RAISE(provider, REASON_ENDPOINT_UNKNOWN, "%s", key->endpoint);
    /* Ties the records of a repeated request together; without entropy they stay untied. */
    if (getrandom(trace_id, sizeof trace_id, GRND_NONBLOCK) != (ssize_t)sizeof trace_id)
        state.request.trace_id = NULL;
    wait_begin(&state.wait, provider->settings.async);
    const bool done = run(&state, signature, signature_bytes);
    wait_end(&state.wait);
    if (!done)
        failure_raise(&state.failure, provider);
    errno = error_before;
    return done;
}
