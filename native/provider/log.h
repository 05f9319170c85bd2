/*
 * One line for signatures that failed, to the syslog socket that the setting hsmgate-log names: for
 * servers that don't log OpenSSL's errors. At most one line a second and process, which also says
 * how many failures it stands for. Never blocks, and holds no descriptor: a daemon that is away or
 * busy misses lines.
 */
#pragma once

#include <stdatomic.h>

struct provider;

struct log {
    /* CLOCK_MONOTONIC; 0: nothing was written yet. */
    atomic_llong written_ns;
    atomic_uint untold;
};

void log_failure(struct provider *provider, const char *reason, const char *text);
