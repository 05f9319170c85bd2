#include "intake.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <utility>

namespace hsmgate
{

namespace
{

enum Event : uint32_t { rung, readable };

/* Edges: each wakes one thread, which reads until nothing is left. */
bool add(int epoll, int fd, Event what)
{
    epoll_event event{};
    event.events = EPOLLIN | EPOLLRDHUP | EPOLLET;
    event.data.u32 = what;
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

} // namespace

Intake::~Intake()
{
    if (epoll_ >= 0)
        ::close(epoll_);
    if (bell_ >= 0)
        ::close(bell_);
}

bool Intake::open()
{
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    bell_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return epoll_ >= 0 && bell_ >= 0 && add(epoll_, bell_, rung);
}

Offer Intake::offer(std::unique_ptr<Job> &job)
{
    {
        const std::lock_guard lock(mutex_);
        if (closed_)
            return Offer::closed;
        if (jobs_.size() >= limit_)
            return Offer::full;
        jobs_.push_back(std::move(job));
    }
    ring();
    return Offer::accepted;
}

std::unique_ptr<Job> Intake::take()
{
    std::unique_ptr<Job> job = next();
    if (job && !hasIdle()) {
        if (const std::shared_ptr<Source> left = source())
            left->cover();
    }
    return job;
}

std::unique_ptr<Job> Intake::next()
{
    bool isClosed = false;
    while (!isClosed) {
        if (std::unique_ptr<Job> job = pop(isClosed))
            return job;
        /* Whoever offers from here on rings, so one more look suffices. */
        idle_.fetch_add(1);
        std::unique_ptr<Job> job = pop(isClosed);
        epoll_event event{};
        const bool isWoken = !job && !isClosed && epoll_wait(epoll_, &event, 1, -1) == 1;
        idle_.fetch_sub(1);
        if (isWoken && event.data.u32 == readable) {
            if (const std::shared_ptr<Source> from = source())
                job = from->serve();
        }
        if (job)
            return job;
    }
    /* For the next one. */
    ring();
    return nullptr;
}

/* Rings of two offers may wake one thread: whoever leaves something behind passes it on. */
std::unique_ptr<Job> Intake::pop(bool &isClosed)
{
    std::unique_ptr<Job> job;
    bool hasMore;
    {
        const std::lock_guard lock(mutex_);
        isClosed = closed_ && jobs_.empty();
        if (jobs_.empty())
            return nullptr;
        job = std::move(jobs_.front());
        jobs_.pop_front();
        hasMore = !jobs_.empty();
    }
    if (hasMore)
        ring();
    return job;
}

bool Intake::watch(const std::shared_ptr<Source> &source)
{
    {
        const std::lock_guard lock(mutex_);
        source_ = source;
    }
    return add(epoll_, source->descriptor(), readable);
}

void Intake::unwatch()
{
    const std::shared_ptr<Source> before = [this] {
        const std::lock_guard lock(mutex_);
        return std::exchange(source_, nullptr);
    }();
    if (before)
        (void)epoll_ctl(epoll_, EPOLL_CTL_DEL, before->descriptor(), nullptr);
}

std::shared_ptr<Source> Intake::source() const
{
    const std::lock_guard lock(mutex_);
    return source_;
}

void Intake::ring()
{
    if (!hasIdle())
        return;
    const uint64_t one = 1;
    (void)!write(bell_, &one, sizeof one);
}

void Intake::close()
{
    {
        const std::lock_guard lock(mutex_);
        closed_ = true;
    }
    ring();
}

void Intake::closeAndDiscard(std::vector<std::unique_ptr<Job>> &discarded)
{
    {
        const std::lock_guard lock(mutex_);
        closed_ = true;
        for (std::unique_ptr<Job> &job : jobs_)
            discarded.push_back(std::move(job));
        jobs_.clear();
    }
    ring();
}

size_t Intake::size() const
{
    const std::lock_guard lock(mutex_);
    return jobs_.size();
}

} // namespace hsmgate
