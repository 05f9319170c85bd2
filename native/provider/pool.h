/*
 * The connections of one process to the gateway, each used by one operation at a time, and the
 * breakers of its endpoints. Idle ones are taken last in, first out. A pool belongs to the process
 * that made it: after a fork the child makes its own at first use and closes what it inherited
 * without a word on it. The lock is held for a few instructions, never over I/O.
 */
#pragma once

#include "frame.h"
#include "wait.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct provider;
struct pool;

enum { CONNECTION_TOKENS_MAX = 1024 };

/* Fields but the first three belong to whoever borrowed it, and to connection.c. */
struct connection {
    struct pool *pool;
    struct connection *next_idle;
    /* -1: not open. Changed under the pool's lock. */
    int fd;
    unsigned endpoint;
    /* It was idle: if it ends before any byte of a reply, the gateway has gone since and nothing
     * failed. */
    bool reused;
    uint32_t last_request_id;
    struct frame_welcome limits;
    /* Tokens that the gateway knows on this connection, by index. */
    uint8_t (*tokens)[TOKEN_BYTES];
    size_t token_count;
    size_t token_capacity;
    uint8_t *out;
    size_t out_capacity;
    /* Received, not yet consumed: `in_used` of `in_capacity` bytes. */
    uint8_t *in;
    size_t in_used;
    size_t in_capacity;
    /* The gateway said GOAWAY. */
    bool leaving;
};

/* The pool of this process; NULL without memory. */
struct pool *pool_get(struct provider *provider);
/* At the end of the provider. */
void pool_free_all(struct provider *provider);

enum borrow_outcome { BORROWED_IDLE, BORROWED_NEW, BORROW_TIMEOUT };

/*
 * A connection to `endpoint`: an idle one, or a place for a new one (fd -1). Waits until one is
 * free, at most until `until_ns`. `fresh` asks for a new one, even when some are idle.
 */
enum borrow_outcome pool_borrow(struct pool *pool, unsigned endpoint, bool fresh, struct wait *wait,
                                int64_t until_ns, struct connection **connection);
/* Open and idle again. */
void pool_put_back(struct connection *connection);
/* Closes it and frees its place. */
void pool_discard(struct connection *connection);
/* Records the descriptor of a new connection. */
void pool_opened(struct connection *connection, int fd);

enum breaker_state {
    BREAKER_CLOSED,
    /* One caller may try, and reports as a probe; if it never does another may after
       BREAKER_PROBE_MS. */
    BREAKER_PROBE,
    BREAKER_OPEN
};

enum breaker_state pool_breaker(struct pool *pool, unsigned endpoint);
void pool_succeeded(struct pool *pool, unsigned endpoint);
/* The third failure in a row opens the breaker for 250 ms, each failed probe for twice as long, at
 * most 5 s. */
void pool_failed(struct pool *pool, unsigned endpoint, bool probe);
