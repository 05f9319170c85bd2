/*
 * One connection: opened, greeted, one request and its reply. Every wait ends at the given moment.
 * The caller puts the connection back after EXCHANGE_REPLY unless it is `leaving`, and discards it
 * after anything else.
 */
#pragma once

#include "pool.h"

#include <stdbool.h>

struct provider;

enum exchange_outcome {
    EXCHANGE_REPLY,
    /* Nobody listens, or the gateway is about to go: nothing was asked yet, another moment may do.
     */
    EXCHANGE_AWAY,
    /* The connection ended after the request went out. */
    EXCHANGE_LOST,
    EXCHANGE_TIMEOUT,
    EXCHANGE_FORBIDDEN,
    EXCHANGE_PROTOCOL,
    /* `error` has errno. */
    EXCHANGE_SYSTEM
};

/* A RESULT or an ERROR; its bytes lie in the connection until it is used again. */
struct reply {
    struct frame_head head;
    const uint8_t *body;
    struct frame_error error;
    int system_error;
};

/* Connects and greets; `token` may be NULL. EXCHANGE_REPLY: greeted, or `reply` is the ERROR that
 * refuses it. */
enum exchange_outcome connection_open(const struct provider *provider,
                                      struct connection *connection, const uint8_t *token,
                                      struct wait *wait, int64_t until_ns, struct reply *reply);
/* Whether nothing was said on an idle connection since: no end, no GOAWAY. */
bool connection_is_quiet(const struct connection *connection);
/* Fills in request id and token index. `token` may be NULL. False when the token has no place on
 * this connection. */
bool connection_number(struct connection *connection, const uint8_t *token,
                       struct frame_request *request);
enum exchange_outcome connection_exchange(struct connection *connection,
                                          const struct frame_request *request, struct wait *wait,
                                          int64_t until_ns, struct reply *reply);
