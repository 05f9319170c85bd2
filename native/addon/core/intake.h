/*
 * Where the session threads of a pool wait for work: one bounded first-in first-out queue, and a
 * source that brings jobs of its own. A thread that the source wakes performs what it finds there;
 * no other thread stands between the source and the module.
 *
 * All wait on one epoll, whose kernel wakes the thread that has waited shortest (its waiters stand
 * on a stack): its caches are warm, and under little load one thread does everything.
 *
 * Threads: any, for everything but `open`.
 */
#pragma once

#include "job.h"

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

namespace hsmgate
{

enum class Offer : unsigned char { accepted, full, closed };

/* Brings jobs; readable when there may be some. */
class Source
{
public:
    virtual int descriptor() const noexcept = 0;
    /* Reads what is there without waiting, or sees to it that the source does. The first job is the
     * caller's, others are offered to the pool; null when there is none. */
    virtual std::unique_ptr<Job> serve() noexcept = 0;
    /* All threads work: until one is free again the source must read by itself. */
    virtual void cover() noexcept = 0;

protected:
    ~Source() = default;
};

class Intake
{
public:
    explicit Intake(size_t limit) : limit_(limit) {}
    ~Intake();
    Intake(const Intake &) = delete;
    Intake &operator=(const Intake &) = delete;

    /* False, and errno says why, when there are no descriptors. */
    bool open();

    /* Moves from `job` only when it is accepted. */
    Offer offer(std::unique_ptr<Job> &job);
    /* Waits for a job; null when the intake is closed and empty. */
    std::unique_ptr<Job> take();
    /* From now on `source` wakes threads, too. False, and errno says why, when it can't be. */
    bool watch(const std::shared_ptr<Source> &source);
    void unwatch();
    bool hasIdle() const { return idle_.load() > 0; }

    /* Accepts nothing more; what is queued can still be taken. */
    void close();
    /* Closes and empties; the jobs go to `discarded`. */
    void closeAndDiscard(std::vector<std::unique_ptr<Job>> &discarded);
    size_t size() const;

private:
    std::unique_ptr<Job> next();
    std::unique_ptr<Job> pop(bool &isClosed);
    std::shared_ptr<Source> source() const;
    void ring();

    const size_t limit_;
    int epoll_ = -1;
    int bell_ = -1;
    /* Threads that wait, or are about to and look at the queue once more. */
    std::atomic<unsigned> idle_{0};

    mutable std::mutex mutex_;
    std::deque<std::unique_ptr<Job>> jobs_;
    std::shared_ptr<Source> source_;
    bool closed_ = false;
};

} // namespace hsmgate
