/*
 * A pool: one anchor session that holds the login, and `sessions` work sessions with a pinned
 * thread each. Jobs go in through one intake and come back on a completion list; `wake` is
 * called, from a session thread, only when that list was empty.
 *
 * Threads: `open` and `close` block and may run on any thread, one after the other; `drain` belongs
 * to one owner thread, `borrowJob`, `submit`, `putBack` and `depth` to any. A job with a finisher
 * goes to it, not to the completion list.
 */
#pragma once

#include "intake.h"
#include "job.h"
#include "module.h"
#include "session.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace hsmgate
{

constexpr unsigned sessionsMax = 256;
constexpr size_t queuedJobsMax = 4096;

struct Depth {
    size_t queued;
    size_t busy;
    size_t sessions;
};

class Pool
{
public:
    Pool(std::shared_ptr<Module> module, CK_SLOT_ID slot, unsigned sessions,
         std::function<void()> wake, size_t queueLimit = queuedJobsMax);
    ~Pool();
    Pool(const Pool &) = delete;
    Pool &operator=(const Pool &) = delete;

    /*
     * Opens the anchor, logs in with exactly one C_Login (none when `pin` is null), opens the work
     * sessions. CKR_USER_ALREADY_LOGGED_IN is success; CKR_SESSION_COUNT is too once one work
     * session is open. Wipes the PIN. After a failure the pool is closed.
     */
    Failure open(SecretBytes *pin);
    /* Finishes queued jobs, joins the threads, closes the sessions. May be called again. */
    void close();
    /* For the end of the process: drops queued jobs and waits for running ones; false when one
     * hangs for longer than `patience`. */
    bool abandon(std::chrono::milliseconds patience);

    std::unique_ptr<Job> borrowJob();
    /* Takes the job only when it is accepted. */
    Offer submit(std::unique_ptr<Job> &job);
    /* From now on session threads take jobs from `source` as well. False, and errno says why, when
     * that can't be. */
    bool watch(const std::shared_ptr<Source> &source) { return intake_.watch(source); }
    void unwatch() { intake_.unwatch(); }
    bool hasIdle() const { return intake_.hasIdle(); }
    /* Appends the finished jobs to `finished`. */
    void drain(std::vector<std::unique_ptr<Job>> &finished);
    void putBack(std::unique_ptr<Job> job);

    Depth depth() const;

private:
    void work();
    void complete(std::unique_ptr<Job> job);

    std::shared_ptr<Module> module_;
    CK_SLOT_ID slot_;
    unsigned wanted_;
    std::function<void()> wake_;
    Session anchor_;
    bool showsLogin_ = false;
    Intake intake_;

    /* Start and end of the session threads. */
    mutable std::mutex stateMutex_;
    std::condition_variable stateChanged_;
    std::vector<std::thread> threads_;
    unsigned reported_ = 0;
    unsigned opened_ = 0;
    unsigned running_ = 0;
    CK_RV openRv_ = CKR_OK;

    std::atomic<size_t> busy_{0};
    std::atomic<bool> abandoned_{false};

    std::mutex completionsMutex_;
    std::vector<std::unique_ptr<Job>> completions_;

    std::mutex spareMutex_;
    std::vector<std::unique_ptr<Job>> spare_;
};

} // namespace hsmgate
