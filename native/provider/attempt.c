#include "attempt.h"
#include "connection.h"
#include "error.h"
#include "pool.h"
#include "provider.h"

#include <string.h>

enum {
    /* Of the time of an attempt, for the gateway. */
    BUDGET_PERCENT = 95,
    /* Connecting and greeting, where nothing may be waited for: the probe of a breaker. */
    PROBE_MS = 100
};

static const uint8_t *token_of(const struct key *key)
{
    return key->has_token ? key->token : NULL;
}

static void discard(struct question *question, struct connection *connection)
{
    wait_hold(&question->wait, NULL);
    pool_discard(connection);
}

static void put_back(struct question *question, struct connection *connection)
{
    wait_hold(&question->wait, NULL);
    if (connection->leaving || connection->last_request_id == UINT32_MAX)
        pool_discard(connection);
    else
        pool_put_back(connection);
}

static enum step step_after_gateway_error(struct question *question, unsigned endpoint, bool probe,
                                          const struct frame_error *error)
{
    if (error->code == GATEWAY_SHUTTING_DOWN)
        return STEP_AWAY;
    failure_note_gateway(&question->failure, endpoint, error);
    /* Whoever answers in time is well, whatever the answer; a deadline that it let pass stalled us.
     */
    if (error->code == GATEWAY_DEADLINE)
        pool_failed(question->pool, endpoint, probe);
    else
        pool_succeeded(question->pool, endpoint);
    if (!error->retryable)
        return STEP_GIVE_UP;
    return error->code == GATEWAY_HSM && !atomic_load(&question->key->waited_in_vain)
               ? STEP_NO_HSM
               : STEP_FAILED_ATTEMPT;
}

static enum step step_after_trouble(struct question *question, unsigned endpoint, bool probe,
                                    enum exchange_outcome outcome, int system_error)
{
    switch (outcome) {
    case EXCHANGE_AWAY:
        return STEP_AWAY;
    case EXCHANGE_LOST:
        /* A restart ends all connections at once: what counts is whether one comes back in time. */
        failure_note(&question->failure, REASON_LOST, endpoint, "");
        return STEP_FAILED_ATTEMPT;
    case EXCHANGE_TIMEOUT:
        /* What it said last tells more than that it had no time to say it again. */
        if (question->failure.reason != REASON_HSM)
            failure_note(&question->failure, REASON_DEADLINE, endpoint, "no reply");
        pool_failed(question->pool, endpoint, probe);
        return STEP_FAILED_ATTEMPT;
    case EXCHANGE_PROTOCOL:
        failure_note(&question->failure, REASON_PROTOCOL, endpoint, "");
        pool_failed(question->pool, endpoint, probe);
        return STEP_FAILED_ATTEMPT;
    case EXCHANGE_FORBIDDEN:
        failure_note_errno(&question->failure, REASON_ENDPOINT_FORBIDDEN, endpoint, system_error);
        return STEP_GIVE_UP;
    default:
        failure_note_errno(&question->failure, REASON_SYSTEM, endpoint, system_error);
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

static enum step accept_result(struct question *question, struct connection *connection, bool probe,
                               const struct reply *reply)
{
    const unsigned endpoint = connection->endpoint;
    if (reply->head.body_bytes > question->key->signature_bytes_max) {
        discard(question, connection);
        return step_after_trouble(question, endpoint, probe, EXCHANGE_PROTOCOL, 0);
    }
    memcpy(question->signature, reply->body, reply->head.body_bytes);
    question->signature_bytes = reply->head.body_bytes;
    pool_succeeded(question->pool, endpoint);
    atomic_store(&question->key->waited_in_vain, false);
    connection->in_used = 0;
    put_back(question, connection);
    return STEP_DONE;
}

/* On an open connection. `stale`: it had ended before the request, which is nobody's failure. */
static enum step ask(struct question *question, struct connection *connection, bool probe,
                     int64_t until_ns, bool *stale)
{
    const unsigned endpoint = connection->endpoint;
    struct reply reply = {0};
    /* Before the token takes a place on the connection that the gateway would not hear of. */
    if (question->request.input_bytes > connection->limits.max_input_bytes) {
        failure_note(&question->failure, REASON_INPUT, endpoint, "longer than the gateway takes");
        put_back(question, connection);
        return STEP_GIVE_UP;
    }
    *stale = !connection_number(connection, token_of(question->key), &question->request);
    if (*stale) {
        discard(question, connection);
        return STEP_AWAY;
    }
    question->request.budget_ms = budget_ms(connection, until_ns);
    const enum exchange_outcome outcome =
        connection_exchange(connection, &question->request, &question->wait, until_ns, &reply);
    if (outcome != EXCHANGE_REPLY) {
        *stale = outcome == EXCHANGE_LOST && connection->reused && connection->in_used == 0;
        discard(question, connection);
        return *stale ? STEP_AWAY
                      : step_after_trouble(question, endpoint, probe, outcome, reply.system_error);
    }
    if (reply.head.type == FRAME_RESULT) {
        if (connection->in_used != FRAME_HEAD_BYTES + reply.head.body_bytes)
            connection->leaving = true;
        return accept_result(question, connection, probe, &reply);
    }
    const enum step step = step_after_gateway_error(question, endpoint, probe, &reply.error);
    if (step == STEP_AWAY || reply.error.code == GATEWAY_UNAUTHENTICATED)
        connection->leaving = true;
    connection->in_used = 0;
    put_back(question, connection);
    return step;
}

enum step attempt(struct question *question, unsigned endpoint, bool probe, int64_t until_ns)
{
    bool fresh = probe;
    for (;;) {
        struct connection *connection;
        struct reply reply = {0};
        bool stale = false;
        const enum borrow_outcome borrowed =
            pool_borrow(question->pool, endpoint, fresh, &question->wait, until_ns, &connection);
        if (borrowed == BORROW_TIMEOUT) {
            failure_note(&question->failure, REASON_POOL, NO_ENDPOINT, "");
            return STEP_FAILED_ATTEMPT;
        }
        if (borrowed == BORROWED_IDLE && !connection_is_quiet(connection)) {
            discard(question, connection);
            continue;
        }
        if (borrowed == BORROWED_NEW) {
            const int64_t probe_end = now_ns() + ms_to_ns(PROBE_MS);
            const enum exchange_outcome outcome = connection_open(
                question->key->provider, connection, token_of(question->key), &question->wait,
                probe && probe_end < until_ns ? probe_end : until_ns, &reply);
            if (outcome != EXCHANGE_REPLY || reply.head.type == FRAME_ERROR) {
                const enum step step =
                    outcome != EXCHANGE_REPLY
                        ? step_after_trouble(question, endpoint, probe, outcome, reply.system_error)
                        : step_after_gateway_error(question, endpoint, probe, &reply.error);
                discard(question, connection);
                return step;
            }
        }
        const enum step step = ask(question, connection, probe, until_ns, &stale);
        if (!stale)
            return step;
        /* Rather a new one than the next that may have ended too. */
        fresh = true;
    }
}
