#include "pool.h"

#include "operation.h"

#include <iterator>
#include <system_error>

namespace hsmgate
{

namespace
{

/* Idle jobs that keep their memory for the next submit. */
constexpr size_t spareJobsMax = 256;

double microsBetween(std::chrono::steady_clock::time_point from,
                     std::chrono::steady_clock::time_point to)
{
    return std::chrono::duration<double, std::micro>(to - from).count();
}

} // namespace

Pool::Pool(std::shared_ptr<Module> module, CK_SLOT_ID slot, unsigned sessions,
           std::function<void()> wake, size_t queueLimit)
    : module_(std::move(module)), slot_(slot), wanted_(sessions), wake_(std::move(wake)),
      anchor_(*module_, slot), intake_(queueLimit)
{
}

Pool::~Pool()
{
    close();
}

Failure Pool::open(SecretBytes *pin)
{
    if (!intake_.open()) {
        if (pin != nullptr)
            pin->release();
        return {CKR_HOST_MEMORY, "epoll_create1", ""};
    }
    CK_RV rv = anchor_.open();
    if (rv != CKR_OK) {
        if (pin != nullptr)
            pin->release();
        return {rv, "C_OpenSession", ""};
    }
    if (pin != nullptr) {
        rv = module_->functions().C_Login(anchor_.handle(), CKU_USER, pin->data(), pin->size());
        pin->release();
        if (rv != CKR_OK && rv != CKR_USER_ALREADY_LOGGED_IN) {
            anchor_.close();
            return {rv, "C_Login", ""};
        }
        /* A module that doesn't show the login now won't show its loss either. */
        showsLogin_ = anchor_.isLoggedIn();
    }
    bool outOfThreads = false;
    {
        std::unique_lock lock(stateMutex_);
        try {
            for (unsigned i = 0; i < wanted_; i++) {
                threads_.emplace_back([this] { work(); });
                running_++;
            }
        } catch (const std::system_error &) {
            outOfThreads = true;
        }
        stateChanged_.wait(lock, [this] { return reported_ == threads_.size(); });
        rv = openRv_;
        if (rv == CKR_SESSION_COUNT && opened_ > 0)
            rv = CKR_OK;
    }
    if (outOfThreads || rv != CKR_OK) {
        close();
        if (outOfThreads)
            return {CKR_HOST_MEMORY, "pthread_create", ""};
        return {rv, "C_OpenSession", ""};
    }
    return {};
}

void Pool::work()
{
    Session session(*module_, slot_, showsLogin_);
    const CK_RV rv = session.open();
    {
        const std::lock_guard lock(stateMutex_);
        reported_++;
        if (rv == CKR_OK)
            opened_++;
        else if (openRv_ == CKR_OK || openRv_ == CKR_SESSION_COUNT)
            openRv_ = rv;
    }
    stateChanged_.notify_all();
    while (rv == CKR_OK) {
        std::unique_ptr<Job> job = intake_.take();
        if (!job)
            break;
        busy_.fetch_add(1, std::memory_order_relaxed);
        const auto started = std::chrono::steady_clock::now();
        job->queueMicros = microsBetween(job->submitted, started);
        job->isLate = started > job->endsAt;
        if (!job->isLate) {
            perform(session, *job);
            job->hsmMicros = microsBetween(started, std::chrono::steady_clock::now());
        }
        busy_.fetch_sub(1, std::memory_order_relaxed);
        if (job->finisher != nullptr)
            job->finisher->finish(*this, std::move(job));
        else
            complete(std::move(job));
    }
    session.close();
    /* Notified under the lock: after it the pool may be gone, once the thread is joined. */
    const std::lock_guard lock(stateMutex_);
    running_--;
    stateChanged_.notify_all();
}

void Pool::complete(std::unique_ptr<Job> job)
{
    bool wasEmpty;
    {
        const std::lock_guard lock(completionsMutex_);
        wasEmpty = completions_.empty();
        completions_.push_back(std::move(job));
    }
    if (wasEmpty && !abandoned_.load(std::memory_order_relaxed))
        wake_();
}

void Pool::close()
{
    intake_.close();
    for (std::thread &thread : threads_) {
        if (thread.joinable())
            thread.join();
    }
    threads_.clear();
    anchor_.close();
}

bool Pool::abandon(std::chrono::milliseconds patience)
{
    abandoned_.store(true, std::memory_order_relaxed);
    std::vector<std::unique_ptr<Job>> dropped;
    intake_.closeAndDiscard(dropped);
    std::unique_lock lock(stateMutex_);
    return stateChanged_.wait_for(lock, patience, [this] { return running_ == 0; });
}

std::unique_ptr<Job> Pool::borrowJob()
{
    const std::lock_guard lock(spareMutex_);
    if (spare_.empty())
        return std::make_unique<Job>();
    std::unique_ptr<Job> job = std::move(spare_.back());
    spare_.pop_back();
    return job;
}

Offer Pool::submit(std::unique_ptr<Job> &job)
{
    job->submitted = std::chrono::steady_clock::now();
    return intake_.offer(job);
}

void Pool::drain(std::vector<std::unique_ptr<Job>> &finished)
{
    const std::lock_guard lock(completionsMutex_);
    if (finished.empty()) {
        finished.swap(completions_);
        return;
    }
    finished.insert(finished.end(), std::make_move_iterator(completions_.begin()),
                    std::make_move_iterator(completions_.end()));
    completions_.clear();
}

void Pool::putBack(std::unique_ptr<Job> job)
{
    job->reset();
    const std::lock_guard lock(spareMutex_);
    if (spare_.size() < spareJobsMax)
        spare_.push_back(std::move(job));
}

Depth Pool::depth() const
{
    size_t sessions;
    {
        const std::lock_guard lock(stateMutex_);
        sessions = opened_;
    }
    return {intake_.size(), busy_.load(std::memory_order_relaxed), sessions};
}

} // namespace hsmgate
