/*
 * One signature from the gateway, inside one deadline: which endpoint, when to try again, what to
 * say in the end. The only place from which anything goes over a socket. Any thread; inside an
 * ASYNC_JOB it pauses instead of blocking.
 */
#pragma once

#include "frame.h"
#include "key.h"

#include <stdbool.h>

/* What is to be signed, and how. */
struct signing {
    enum wire_algorithm algorithm;
    enum wire_hash hash;
    enum wire_hash mgf_hash;
    uint16_t salt_bytes;
    enum wire_input input_kind;
    const uint8_t *input;
    size_t input_bytes;
};

/* False with an error raised. The signature is never longer than key->signature_bytes_max. */
bool client_sign(struct key *key, const struct signing *signing, uint8_t *signature,
                 size_t *signature_bytes);
