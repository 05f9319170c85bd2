#include "wait.h"
#include "pool.h"

#include <errno.h>
#include <openssl/async.h>
#include <openssl/err.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

/* Belongs to a wait context once it is registered there, until then to the operation. */
struct async {
    int epoll;
    /* Open only while an operation is under way. */
    int timer;
    bool registered;
    bool busy;
    struct connection *held;
};

/* A job that comes back so often without anything to do is not paused at all (ASYNC_block_pause).
 */
enum { VAIN_PAUSES_MAX = 16, VAIN_WAIT_MS = 1 };

/* Its address is our name in wait contexts. */
static const char context_key;

int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void close_async(struct async *async)
{
    if (async->timer >= 0)
        close(async->timer);
    if (async->epoll >= 0)
        close(async->epoll);
    free(async);
}

static void clean_up(ASYNC_WAIT_CTX *context, const void *key, OSSL_ASYNC_FD fd, void *custom)
{
    struct async *async = custom;
    (void)context, (void)key, (void)fd;
    if (async->held != NULL)
        pool_discard(async->held);
    close_async(async);
}

static struct async *find_or_make(ASYNC_WAIT_CTX *context)
{
    OSSL_ASYNC_FD fd;
    void *custom = NULL;
    if (ASYNC_WAIT_CTX_get_fd(context, &context_key, &fd, &custom) == 1)
        return custom;
    struct async *async = calloc(1, sizeof *async);
    if (async != NULL)
        async->timer = async->epoll = -1;
    return async;
}

void wait_begin(struct wait *wait, bool async_allowed)
{
    *wait = (struct wait){NULL, NULL};
    ASYNC_JOB *job = async_allowed ? ASYNC_get_current_job() : NULL;
    ASYNC_WAIT_CTX *context = job == NULL ? NULL : ASYNC_get_wait_ctx(job);
    struct async *async = context == NULL ? NULL : find_or_make(context);
    /* Two jobs in one wait context: the second blocks. */
    if (async == NULL || async->busy)
        return;
    async->busy = true;
    *wait = (struct wait){async, context};
}

void wait_end(struct wait *wait)
{
    struct async *async = wait->async;
    wait->async = NULL;
    if (async == NULL)
        return;
    if (!async->registered) {
        close_async(async);
        return;
    }
    /* Closing it also takes it out of the epoll set. */
    if (async->timer >= 0)
        close(async->timer);
    async->timer = -1;
    async->busy = false;
    async->held = NULL;
}

static bool open_descriptors(struct async *async)
{
    if (async->epoll < 0 && (async->epoll = epoll_create1(EPOLL_CLOEXEC)) < 0)
        return false;
    if (async->timer < 0) {
        async->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
        struct epoll_event event = {.events = EPOLLIN, .data.fd = async->timer};
        if (async->timer < 0 || epoll_ctl(async->epoll, EPOLL_CTL_ADD, async->timer, &event) != 0)
            return false;
    }
    return true;
}

/* Comes last before a pause: the application is told of the descriptor by the pause. */
static bool register_descriptor(struct async *async, ASYNC_WAIT_CTX *context)
{
    if (!async->registered)
        async->registered =
            ASYNC_WAIT_CTX_set_wait_fd(context, &context_key, async->epoll, async, clean_up) == 1;
    return async->registered;
}

void wait_hold(struct wait *wait, struct connection *connection)
{
    if (wait->async != NULL)
        wait->async->held = connection;
}

/*
 * What the thread does meanwhile may leave errors on its queue (HAProxy does when it refuses a
 * certificate at runtime). libssl empties the queue when a handshake begins, not when it goes on,
 * and SSL_get_error would take them for ours.
 */
static bool pause_job(void)
{
    ERR_set_mark();
    const bool paused = ASYNC_pause_job() == 1;
    ERR_pop_to_mark();
    return paused;
}

/* Rounded up to milliseconds, so that a wait never ends early and spins. */
static int ms_left(int64_t until_ns)
{
    const int64_t left = until_ns - now_ns();
    return left <= 0 ? 0 : (int)((left + 999999) / 1000000);
}

static enum wait_outcome wait_blocking(int fd, short events, int64_t until_ns)
{
    struct pollfd watched = {fd, events, 0};
    for (;;) {
        const int timeout_ms = ms_left(until_ns);
        const int count = poll(&watched, fd < 0 ? 0 : 1, timeout_ms);
        if (count > 0)
            return WAIT_READY;
        if (count == 0 && timeout_ms == 0)
            return WAIT_TIMEOUT;
        if (count < 0 && errno != EINTR)
            return WAIT_FAILED;
    }
}

static enum wait_outcome wait_paused(const struct wait *wait, int fd, short events,
                                     int64_t until_ns)
{
    struct async *async = wait->async;
    const struct itimerspec alarm = {
        .it_value = {.tv_sec = until_ns / 1000000000, .tv_nsec = until_ns % 1000000000}};
    struct epoll_event event = {.events = (events & POLLIN) != 0 ? EPOLLIN : EPOLLOUT,
                                .data.fd = fd};
    if (!open_descriptors(async) ||
        timerfd_settime(async->timer, TFD_TIMER_ABSTIME, &alarm, NULL) != 0 ||
        (fd >= 0 && epoll_ctl(async->epoll, EPOLL_CTL_ADD, fd, &event) != 0))
        return wait_blocking(fd, events, until_ns);
    enum wait_outcome outcome = WAIT_TIMEOUT;
    for (unsigned pauses = 0; outcome == WAIT_TIMEOUT && now_ns() < until_ns; pauses++) {
        if (!register_descriptor(async, wait->context) || !pause_job())
            outcome = wait_blocking(fd, events, until_ns);
        else
            outcome = wait_blocking(
                fd, events, pauses < VAIN_PAUSES_MAX ? 0 : now_ns() + ms_to_ns(VAIN_WAIT_MS));
    }
    if (fd >= 0)
        (void)epoll_ctl(async->epoll, EPOLL_CTL_DEL, fd, NULL);
    return outcome;
}

enum wait_outcome wait_until(struct wait *wait, int fd, short events, int64_t until_ns)
{
    if (fd >= 0) {
        const enum wait_outcome outcome = wait_blocking(fd, events, 0);
        if (outcome != WAIT_TIMEOUT)
            return outcome;
    }
    return wait->async == NULL ? wait_blocking(fd, events, until_ns)
                               : wait_paused(wait, fd, events, until_ns);
}
