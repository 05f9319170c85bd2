/*
 * Performs one job on one session: initialisation and operation fused, output sized without a
 * length query, recovery of the session. Runs on the session's thread. Never logs in:
 * CKR_USER_NOT_LOGGED_IN is an answer like any other, also where the module only says that it knows
 * no such object.
 */
#pragma once

#include "job.h"
#include "session.h"

namespace hsmgate
{

/*
 * Sets rv, handles and output of `job`. A session that the module closed is reopened; the job is
 * repeated once, unless it creates or destroys something (its outcome is unknown then). Malformed
 * packed bytes give CKR_ARGUMENTS_BAD or CKR_MECHANISM_PARAM_INVALID without a call of the module.
 */
void perform(Session &session, Job &job) noexcept;

} // namespace hsmgate
