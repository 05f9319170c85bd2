#include "pool.h"
#include "provider.h"

#include <openssl/crypto.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    BREAKER_FAILURES = 3,
    BREAKER_MIN_MS = 250,
    BREAKER_MAX_MS = 5000,
    BREAKER_PROBE_MS = 1000,
    ASYNC_POLL_MS = 1
};

struct breaker {
    unsigned failures;
    /* 0: closed. */
    unsigned open_ms;
    /* The moment of the next probe. */
    int64_t open_until_ns;
};

struct pool {
    pid_t pid;
    pthread_mutex_t lock;
    pthread_cond_t freed;
    struct connection *idle;
    struct connection *unused;
    struct breaker breakers[SETTINGS_ENDPOINTS_MAX];
    /* Of the parent process: kept, because its lock and lists may be in any state. */
    struct pool *inherited;
    unsigned max;
    struct connection connections[];
};

static struct pool *pool_new(unsigned max, pid_t pid)
{
    struct pool *pool = calloc(1, sizeof *pool + max * sizeof(struct connection));
    if (pool == NULL)
        return NULL;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->freed, &attributes);
    pthread_condattr_destroy(&attributes);
    pool->pid = pid;
    pool->max = max;
    for (unsigned i = max; i-- > 0;) {
        struct connection *connection = &pool->connections[i];
        connection->pool = pool;
        connection->fd = -1;
        connection->next_idle = pool->unused;
        pool->unused = connection;
    }
    return pool;
}

static void wipe_connection(struct connection *connection)
{
    if (connection->out != NULL)
        OPENSSL_cleanse(connection->out, connection->out_capacity);
    if (connection->tokens != NULL)
        OPENSSL_cleanse(connection->tokens, connection->token_capacity * TOKEN_BYTES);
    free(connection->out);
    free(connection->in);
    free(connection->tokens);
    connection->out = connection->in = NULL;
    connection->tokens = NULL;
    connection->out_capacity = connection->in_capacity = connection->in_used = 0;
    connection->token_count = connection->token_capacity = 0;
}

static void pool_free(struct pool *pool)
{
    for (unsigned i = 0; i < pool->max; i++) {
        if (pool->connections[i].fd >= 0)
            close(pool->connections[i].fd);
        wipe_connection(&pool->connections[i]);
    }
    pthread_cond_destroy(&pool->freed);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

/* In a child: another thread of the parent may have held the lock, so nothing of the pool is
 * touched but descriptors. */
static void close_inherited(struct pool *pool)
{
    for (unsigned i = 0; i < pool->max; i++)
        if (pool->connections[i].fd >= 0)
            close(pool->connections[i].fd);
}

struct pool *pool_get(struct provider *provider)
{
    const pid_t pid = getpid();
    struct pool *pool = atomic_load_explicit(&provider->pool, memory_order_acquire);
    while (pool == NULL || pool->pid != pid) {
        struct pool *made = pool_new(provider->settings.pool_max, pid);
        if (made == NULL)
            return NULL;
        made->inherited = pool;
        if (atomic_compare_exchange_strong_explicit(&provider->pool, &pool, made,
                                                    memory_order_acq_rel, memory_order_acquire)) {
            if (pool != NULL)
                close_inherited(pool);
            return made;
        }
        made->inherited = NULL;
        pool_free(made);
    }
    return pool;
}

void pool_free_all(struct provider *provider)
{
    const pid_t pid = getpid();
    struct pool *pool = atomic_exchange(&provider->pool, NULL);
    /* Only the first may be of this process; descriptors of the others were closed when it was
     * made. */
    if (pool != NULL && pool->pid != pid)
        close_inherited(pool);
    while (pool != NULL) {
        struct pool *inherited = pool->inherited;
        if (pool->pid != pid)
            for (unsigned i = 0; i < pool->max; i++)
                pool->connections[i].fd = -1;
        pool_free(pool);
        pool = inherited;
    }
}

/* Under the lock: the most recent idle connection to `endpoint`. */
static struct connection *take_idle(struct pool *pool, unsigned endpoint)
{
    for (struct connection **at = &pool->idle; *at != NULL; at = &(*at)->next_idle) {
        struct connection *connection = *at;
        if (connection->endpoint == endpoint) {
            *at = connection->next_idle;
            return connection;
        }
    }
    return NULL;
}

/* Under the lock: a place for a new connection, if need be that of an idle one. */
static struct connection *take_place(struct pool *pool)
{
    struct connection *connection = pool->unused;
    if (connection != NULL) {
        pool->unused = connection->next_idle;
        return connection;
    }
    connection = pool->idle;
    if (connection != NULL) {
        pool->idle = connection->next_idle;
        close(connection->fd);
        connection->fd = -1;
    }
    return connection;
}

static void reset(struct connection *connection, unsigned endpoint)
{
    connection->endpoint = endpoint;
    connection->reused = false;
    connection->leaving = false;
    connection->last_request_id = 0;
    connection->in_used = 0;
    connection->token_count = 0;
}

enum borrow_outcome pool_borrow(struct pool *pool, unsigned endpoint, bool fresh, struct wait *wait,
                                int64_t until_ns, struct connection **connection)
{
    for (;;) {
        pthread_mutex_lock(&pool->lock);
        struct connection *idle, *taken;
        for (;;) {
            idle = fresh ? NULL : take_idle(pool, endpoint);
            taken = idle != NULL ? idle : take_place(pool);
            if (taken != NULL || wait->async != NULL || now_ns() >= until_ns)
                break;
            const struct timespec until = {.tv_sec = until_ns / 1000000000,
                                           .tv_nsec = until_ns % 1000000000};
            pthread_cond_timedwait(&pool->freed, &pool->lock, &until);
        }
        pthread_mutex_unlock(&pool->lock);
        *connection = taken;
        if (taken != NULL) {
            wait_hold(wait, taken);
            if (idle != NULL) {
                taken->reused = true;
                return BORROWED_IDLE;
            }
            reset(taken, endpoint);
            return BORROWED_NEW;
        }
        /* A job cannot sleep on the condition: the thread that would wake it is its own. */
        if (wait->async == NULL || now_ns() >= until_ns ||
            wait_until(wait, -1, 0, now_ns() + ms_to_ns(ASYNC_POLL_MS)) == WAIT_FAILED)
            return BORROW_TIMEOUT;
    }
}

void pool_put_back(struct connection *connection)
{
    struct pool *pool = connection->pool;
    pthread_mutex_lock(&pool->lock);
    connection->next_idle = pool->idle;
    pool->idle = connection;
    pthread_cond_signal(&pool->freed);
    pthread_mutex_unlock(&pool->lock);
}

void pool_discard(struct connection *connection)
{
    struct pool *pool = connection->pool;
    /* After a fork it is the parent's, and its descriptor has been closed here. */
    if (pool->pid != getpid())
        return;
    pthread_mutex_lock(&pool->lock);
    if (connection->fd >= 0)
        close(connection->fd);
    connection->fd = -1;
    wipe_connection(connection);
    connection->next_idle = pool->unused;
    pool->unused = connection;
    pthread_cond_signal(&pool->freed);
    pthread_mutex_unlock(&pool->lock);
}

void pool_opened(struct connection *connection, int fd)
{
    pthread_mutex_lock(&connection->pool->lock);
    connection->fd = fd;
    pthread_mutex_unlock(&connection->pool->lock);
}

enum breaker_state pool_breaker(struct pool *pool, unsigned endpoint)
{
    struct breaker *breaker = &pool->breakers[endpoint];
    enum breaker_state state = BREAKER_CLOSED;
    pthread_mutex_lock(&pool->lock);
    if (breaker->open_ms != 0) {
        const int64_t now = now_ns();
        state = BREAKER_OPEN;
        if (now >= breaker->open_until_ns) {
            breaker->open_until_ns = now + ms_to_ns(BREAKER_PROBE_MS);
            state = BREAKER_PROBE;
        }
    }
    pthread_mutex_unlock(&pool->lock);
    return state;
}

void pool_succeeded(struct pool *pool, unsigned endpoint)
{
    pthread_mutex_lock(&pool->lock);
    memset(&pool->breakers[endpoint], 0, sizeof pool->breakers[endpoint]);
    pthread_mutex_unlock(&pool->lock);
}

void pool_failed(struct pool *pool, unsigned endpoint, bool probe)
{
    struct breaker *breaker = &pool->breakers[endpoint];
    pthread_mutex_lock(&pool->lock);
    breaker->failures++;
    const bool opens = breaker->open_ms == 0 && breaker->failures >= BREAKER_FAILURES;
    if (opens || (probe && breaker->open_ms != 0)) {
        const unsigned twice_ms = breaker->open_ms * 2;
        breaker->open_ms = opens                       ? BREAKER_MIN_MS
                           : twice_ms > BREAKER_MAX_MS ? BREAKER_MAX_MS
                                                       : twice_ms;
        breaker->open_until_ns = now_ns() + ms_to_ns(breaker->open_ms);
    }
    pthread_mutex_unlock(&pool->lock);
}
