/*
 * One try to have a signature from one endpoint: over an idle connection, those that ended
 * meanwhile at no cost, or over a new one; what its outcome means for the endpoint's breaker, and
 * what may be tried after it. When and where is client.c's to say.
 */
#pragma once

#include "failure.h"
#include "frame.h"
#include "key.h"
#include "wait.h"

#include <stdbool.h>
#include <stdint.h>

struct pool;

/* What all attempts of one signature share. */
struct question {
    struct key *key;
    struct pool *pool;
    struct wait wait;
    struct frame_request request;
    /* Room for key->signature_bytes_max; filled at STEP_DONE. */
    uint8_t *signature;
    size_t signature_bytes;
    /* Of the last attempt that came to nothing. */
    struct failure failure;
};

enum step {
    STEP_DONE,
    /* Nobody is there, or is about to go: costs no attempt. */
    STEP_AWAY,
    STEP_NO_HSM,
    STEP_FAILED_ATTEMPT,
    STEP_GIVE_UP
};

/* `probe`: of a breaker that lets one caller through. */
enum step attempt(struct question *question, unsigned endpoint, bool probe, int64_t until_ns);
