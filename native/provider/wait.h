/*
 * Waiting for a descriptor or a moment. Normally poll(2). Inside an ASYNC_JOB (HAProxy's
 * ssl-mode-async) the job is paused instead, so that the thread serves others.
 *
 * An application watches the descriptor of a wait context until that context goes, and HAProxy
 * crashes when the descriptor is closed or belongs to two contexts before. So each wait context
 * gets an epoll descriptor of its own, in which socket and timer of the operation under way come
 * and go; it is closed by the context's cleanup.
 */
#pragma once

#include <openssl/types.h>
#include <stdbool.h>
#include <stdint.h>

struct connection;
struct async;

struct wait {
    /* NULL: poll(2). */
    struct async *async;
    struct async_wait_ctx_st *context;
};

enum wait_outcome { WAIT_READY, WAIT_TIMEOUT, WAIT_FAILED };

/* CLOCK_MONOTONIC in nanoseconds, what all moments here are. */
int64_t now_ns(void);
static inline int64_t ms_to_ns(int64_t ms)
{
    return ms * 1000000;
}

/* Looks for a job; a wait is used by one operation on one thread. */
void wait_begin(struct wait *wait, bool async_allowed);
void wait_end(struct wait *wait);
/* Until `events` (POLLIN, POLLOUT) of `fd`, or without a descriptor (-1) until the moment. */
enum wait_outcome wait_until(struct wait *wait, int fd, short events, int64_t until_ns);
/*
 * The connection that the operation holds, or NULL. If the application frees the wait context of a
 * paused job, the job never goes on, and this connection is closed and its place given back.
 */
void wait_hold(struct wait *wait, struct connection *connection);
