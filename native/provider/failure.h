/* Why a signature came to nothing: the last cause is kept while other endpoints are asked, and
 * raised in the end. */
#pragma once

#include "error.h"
#include "frame.h"
#include "settings.h"

/* Of no endpoint in particular. */
enum { NO_ENDPOINT = SETTINGS_ENDPOINTS_MAX };

struct failure {
    enum reason reason;
    unsigned endpoint;
    char text[FRAME_ERROR_TEXT_BYTES_MAX + 1];
};

void failure_note(struct failure *failure, enum reason reason, unsigned endpoint, const char *text);
void failure_note_errno(struct failure *failure, enum reason reason, unsigned endpoint, int error);
/* In the gateway's own words. */
void failure_note_gateway(struct failure *failure, unsigned endpoint,
                          const struct frame_error *error);
/* On the error queue, and in the log when there is one. */
void failure_raise(const struct failure *failure, struct provider *provider);
