/*
 * Signatures inside ASYNC jobs on one thread, as HAProxy's ssl-mode-async has them: jobs pause
 * while the gateway works, and some are given up while they pause. Meanwhile the thread does what
 * leaves errors on its queue.
 */
#include "driver.h"

#include <openssl/async.h>
#include <poll.h>
#include <unistd.h>

enum { JOBS_MAX = 64 };

struct task {
    OSSL_LIB_CTX *context;
    EVP_PKEY *key;
    /* What is signed. */
    uint8_t message;
};

struct slot {
    ASYNC_JOB *job;
    ASYNC_WAIT_CTX *wait;
    int outcome;
    bool ended;
};

/* Begins as a handshake of libssl does, and fails as one does that is asked for its error. */
static int sign_in_job(void *argument)
{
    const struct task *task = argument;
    ERR_clear_error();
    return sign_message(task->context, task->key, &task->message, 1) > 0 && ERR_peek_error() == 0;
}

static void resume(struct slot *slot, struct task *task)
{
    const int state =
        ASYNC_start_job(&slot->job, slot->wait, &slot->outcome, sign_in_job, task, sizeof *task);
    CHECK(state == ASYNC_PAUSE || state == ASYNC_FINISH);
    slot->ended = state == ASYNC_FINISH;
}

static OSSL_ASYNC_FD descriptor_of(const struct slot *slot)
{
    OSSL_ASYNC_FD fd;
    size_t count = 1;
    CHECK(ASYNC_WAIT_CTX_get_all_fds(slot->wait, &fd, &count) == 1 && count == 1);
    return fd;
}

/* Waits as an event loop does: for the descriptors alone. */
static void run_all(struct slot *slots, unsigned count, struct task *task)
{
    for (;;) {
        struct pollfd watched[JOBS_MAX];
        unsigned waiting[JOBS_MAX], running = 0;
        for (unsigned i = 0; i < count; i++)
            if (!slots[i].ended) {
                watched[running] = (struct pollfd){descriptor_of(&slots[i]), POLLIN, 0};
                waiting[running++] = i;
            }
        if (running == 0)
            return;
        CHECK(poll(watched, running, 10000) > 0);
        for (unsigned i = 0; i < running; i++)
            if (watched[i].revents != 0) {
                ERR_raise(ERR_LIB_USER, ERR_R_INTERNAL_ERROR);
                resume(&slots[waiting[i]], task);
            }
    }
}

/* How many paused. */
static unsigned start_all(struct slot *slots, unsigned count, struct task *task)
{
    unsigned paused = 0;
    for (unsigned i = 0; i < count; i++) {
        if (slots[i].wait == NULL)
            CHECK((slots[i].wait = ASYNC_WAIT_CTX_new()) != NULL);
        task->message = (uint8_t)i;
        resume(&slots[i], task);
        paused += !slots[i].ended;
    }
    return paused;
}

static void abandon(struct slot *slots, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        ASYNC_WAIT_CTX_free(slots[i].wait);
}

static unsigned count_successes(const struct slot *slots, unsigned count)
{
    unsigned successes = 0;
    for (unsigned i = 0; i < count; i++)
        successes += slots[i].outcome == 1;
    return successes;
}

/*
 * async REFERENCE JOBS ABANDONED: of JOBS the first ABANDONED lose their wait context at their
 * first pause, while they connect; the others sign. They start once more, and as many of them are
 * given up while they wait for a signature. Prints how many paused at first, and how many
 * signatures there were.
 */
int mode_async(char **argv)
{
    struct library library = library_open();
    struct task task = {library.context, load_key(library.context, argv[0]), 0};
    const unsigned all = (unsigned)atoi(argv[1]), abandoned = (unsigned)atoi(argv[2]);
    CHECK(all <= JOBS_MAX && 2 * abandoned <= all);
    const unsigned descriptors = count_descriptors();
    struct slot all_slots[JOBS_MAX] = {0};
    CHECK(ASYNC_init_thread(0, 0) == 1);
    const unsigned paused = start_all(all_slots, all, &task);
    abandon(all_slots, abandoned);
    struct slot *slots = all_slots + abandoned;
    unsigned count = all - abandoned;
    run_all(slots, count, &task);
    unsigned succeeded = count_successes(slots, count);
    (void)start_all(slots, count, &task);
    abandon(slots, abandoned);
    slots += abandoned;
    count -= abandoned;
    run_all(slots, count, &task);
    succeeded += count_successes(slots, count);
    abandon(slots, count);
    EVP_PKEY_free(task.key);
    printf("%u paused, %u signed\n", paused, succeeded);
    fflush(stdout);
    /* A job that never ends keeps its stack, and what OpenSSL holds there: nothing more can be
     * released then. */
    if (abandoned > 0)
        _exit(0);
    ASYNC_cleanup_thread();
    library_close(&library);
    CHECK(count_descriptors() <= descriptors);
    return 0;
}
