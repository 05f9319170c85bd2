/*
 * The end of the process. `process.exit` runs no environment clean-up, only C's exit handlers,
 * while session threads may be inside the module; a module whose static destructors or
 * OPENSSL_cleanup run under a working thread crashes. An exit handler therefore drops queued jobs,
 * waits a moment for running ones, and calls C_Finalize; a hung module is left by `_exit`.
 */
#pragma once

#include "core/pool.h"

#include <atomic>

namespace hsmgate
{

/* What the exit handler has to wait for. `blocked` counts threads in `Pool::open` and
 * `Pool::close`. */
struct Departure {
    Pool *pool;
    std::atomic<int> blocked{0};
};

/* Idempotent. Call it after C_Initialize: exit handlers run last in, first out. */
void installExitHandler();
void registerDeparture(Departure *departure);
void unregisterDeparture(Departure *departure);

} // namespace hsmgate
