#include "pipe.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <optional>
#include <poll.h>
#include <sys/socket.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>

namespace hsmgate
{

namespace
{

/* src/hsm/frames.ts: length, call id, operation or status, budget or microseconds, fields. */
constexpr size_t lengthBytes = 4;
constexpr size_t headBytes = 9;
constexpr size_t operationAt = 8;
constexpr size_t budgetAt = 9;
constexpr size_t fieldsAt = lengthBytes + headBytes;
constexpr size_t frameBytesMax = 16 * 1024 * 1024;
constexpr uint8_t statusOk = 0;

constexpr size_t readBytes = 64 * 1024;
/* Of frames for the owner at which the pipe is no longer read. */
constexpr size_t inboxBytesMax = 4 * frameBytesMax;

uint32_t u32At(const uint8_t *bytes)
{
    return static_cast<uint32_t>(bytes[0]) | static_cast<uint32_t>(bytes[1]) << 8 |
           static_cast<uint32_t>(bytes[2]) << 16 | static_cast<uint32_t>(bytes[3]) << 24;
}

void putU32(uint8_t *to, size_t value)
{
    for (unsigned i = 0; i < 4; i++)
        to[i] = static_cast<uint8_t>(value >> 8 * i);
}

/*
 * Where the input of a request begins, after its own length: behind purpose, spec and construction
 * (u8), session (u32), object id (u32 and bytes), label (u16 and text) and algorithm (u8). Nothing
 * when the frame is not of this form.
 */
std::optional<size_t> findInput(std::span<const uint8_t> frame)
{
    size_t at = fieldsAt + 3 + 4;
    if (frame.size() < at + 4)
        return {};
    at += 4 + size_t{u32At(&frame[at])};
    if (frame.size() < at + 2)
        return {};
    at += 2 + (size_t{frame[at]} | size_t{frame[at + 1]} << 8);
    if (frame.size() < at + 1 + 4)
        return {};
    at += 1 + 4;
    if (frame.size() - at != u32At(&frame[at - 4]))
        return {};
    return at;
}

/* What a plan is found by: the operation and the fields before the input's length. */
std::string questionOf(std::span<const uint8_t> frame, size_t inputAt)
{
    std::string question(1, static_cast<char>(frame[operationAt]));
    question.append(reinterpret_cast<const char *>(frame.data()) + fieldsAt,
                    inputAt - 4 - fieldsAt);
    return question;
}

} // namespace

Pipe::Pipe(int fd, std::function<void()> wake) : fd_(fd), wake_(std::move(wake)) {}

Pipe::~Pipe()
{
    close(fd_);
}

void Pipe::start()
{
    const int flags = fcntl(fd_, F_GETFL);
    if (flags < 0 || fcntl(fd_, F_SETFL, flags & ~O_NONBLOCK) < 0)
        throw std::system_error(errno, std::generic_category(), "fcntl");
    /* Signals are the event loop's. */
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
        std::thread([self = shared_from_this()] { self->run(); }).detach();
    } catch (...) {
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        throw;
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Pipe::attach(Pool *pool)
{
    const std::lock_guard lock(plansMutex_);
    if (pool_ != nullptr)
        pool_->unwatch();
    cover();
    pool_ = pool;
    plans_.clear();
    isWatched_ = pool != nullptr && pool->watch(shared_from_this());
    leaveToIdle();
}

void Pipe::remember(std::span<const uint8_t> question, Plan plan)
{
    const std::lock_guard lock(plansMutex_);
    if (plans_.size() >= plansMax)
        plans_.clear();
    plans_.insert_or_assign(
        std::string(reinterpret_cast<const char *>(question.data()), question.size()),
        std::move(plan));
}

void Pipe::forget()
{
    const std::lock_guard lock(plansMutex_);
    plans_.clear();
}

void Pipe::write(std::span<const uint8_t> frames)
{
    const std::lock_guard lock(writeMutex_);
    while (!frames.empty()) {
        const ssize_t sent = send(fd_, frames.data(), frames.size(), MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EINTR)
                continue;
            /* Closed: the reader finds out as well. */
            return;
        }
        frames = frames.subspan(static_cast<size_t>(sent));
    }
}

PipeState Pipe::drain(SecretBytes &frames, std::vector<Failed> &failed)
{
    const std::lock_guard lock(inboxMutex_);
    std::swap(frames, frames_);
    std::swap(failed, failed_);
    inboxRoom_.notify_all();
    return state_;
}

void Pipe::run()
{
    Reader reader{false};
    while (waitForTurn()) {
        pollfd readable{fd_, POLLIN, 0};
        (void)poll(&readable, 1, -1);
        readAll(reader);
        const std::lock_guard lock(plansMutex_);
        leaveToIdle();
    }
}

bool Pipe::waitForTurn()
{
    std::unique_lock lock(turnMutex_);
    turnCame_.wait(lock, [this] { return isOwnTurn_; });
    return !isEnded_.load();
}

/* A session thread that stops being the last idle one, or leaves something unread, calls `cover`
 * after this looked, or before and is seen here. */
void Pipe::leaveToIdle()
{
    if (!isWatched_)
        return;
    {
        const std::lock_guard turn(turnMutex_);
        isOwnTurn_ = false;
    }
    if (!pool_->hasIdle() || again_.load() || isEnded_.load())
        cover();
}

void Pipe::cover() noexcept
{
    {
        const std::lock_guard lock(turnMutex_);
        if (isOwnTurn_)
            return;
        isOwnTurn_ = true;
    }
    turnCame_.notify_one();
}

std::unique_ptr<Job> Pipe::serve() noexcept
{
    Reader reader{true};
    readAll(reader);
    return std::move(reader.first);
}

void Pipe::readAll(Reader &reader) noexcept
{
    again_.store(true);
    while (again_.load()) {
        const std::unique_lock lock = reader.isSession
                                          ? std::unique_lock(readMutex_, std::try_to_lock)
                                          : std::unique_lock(readMutex_);
        /* Whoever had the lock before may have met the end. */
        if (!lock || isEnded_.load())
            return;
        again_.store(false);
        try {
            if (readUntilEmpty(reader))
                continue;
        } catch (const std::bad_alloc &) {
            /* The other end sees its frames unanswered, and the process end. */
            end(PipeState::closed);
            return;
        }
        again_.store(true);
        cover();
        return;
    }
}

bool Pipe::readUntilEmpty(Reader &reader)
{
    for (;;) {
        if (reader.isSession && (reader.taken >= readBytes || isInboxFull()))
            return false;
        if (buffer_.size() == 0)
            buffer_.resize(readBytes);
        const ssize_t got =
            recv(fd_, buffer_.data() + filled_, buffer_.size() - filled_, MSG_DONTWAIT);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EAGAIN)
            return true;
        if (got <= 0) {
            end(PipeState::closed);
            return true;
        }
        filled_ += static_cast<size_t>(got);
        reader.taken += static_cast<size_t>(got);
        if (!parse(reader)) {
            end(PipeState::broken);
            return true;
        }
    }
}

void Pipe::end(PipeState state)
{
    buffer_.release();
    {
        const std::lock_guard lock(inboxMutex_);
        state_ = state;
    }
    isEnded_.store(true);
    cover();
    wake_();
}

bool Pipe::parse(Reader &reader)
{
    size_t at = 0;
    size_t wanted = 0;
    /* Frames for the owner go to him together. */
    size_t handed = 0;
    bool isSound = true;
    while (filled_ - at >= lengthBytes) {
        const size_t length = u32At(buffer_.data() + at);
        isSound = length >= headBytes && length <= frameBytesMax;
        if (!isSound)
            break;
        wanted = lengthBytes + length;
        if (filled_ - at < wanted)
            break;
        if (answer(reader, {buffer_.data() + at, wanted})) {
            hand(reader, {buffer_.data() + handed, at - handed});
            handed = at + wanted;
        }
        at += wanted;
        wanted = 0;
    }
    hand(reader, {buffer_.data() + handed, at - handed});
    std::memmove(buffer_.data(), buffer_.data() + at, filled_ - at);
    wipe(buffer_.data() + filled_ - at, at);
    filled_ -= at;
    if (wanted > buffer_.size())
        buffer_.resize(wanted);
    else if (filled_ == 0 && buffer_.size() > readBytes) {
        buffer_.release();
        buffer_.resize(readBytes);
    }
    return isSound;
}

bool Pipe::answer(Reader &reader, std::span<const uint8_t> frame)
{
    const std::optional<size_t> inputAt = findInput(frame);
    if (!inputAt)
        return false;
    const std::span<const uint8_t> input = frame.subspan(*inputAt);
    const std::string question = questionOf(frame, *inputAt);
    const std::lock_guard lock(plansMutex_);
    const auto found = plans_.find(question);
    if (found == plans_.end() || pool_ == nullptr)
        return false;
    const Plan &plan = found->second;
    if (input.size() < plan.inputMin || input.size() > plan.inputMax)
        return false;
    std::unique_ptr<Job> job = pool_->borrowJob();
    SecretBytes whole;
    if (!plan.prefix.empty()) {
        whole.resize(plan.prefix.size() + input.size());
        std::copy(plan.prefix.begin(), plan.prefix.end(), whole.data());
        std::copy(input.begin(), input.end(), whole.data() + plan.prefix.size());
    }
    /* The frame goes along, for the owner if the module refuses. */
    job->load(plan.params, plan.prefix.empty() ? input : whole.span(), frame, false);
    job->id = u32At(frame.data() + lengthBytes);
    job->op = plan.op;
    job->mechanism = plan.mechanism;
    job->key = plan.key;
    job->outMin = plan.outputMin;
    job->outMax = plan.outputMax;
    job->finisher = this;
    job->endsAt = std::chrono::steady_clock::now() +
                  std::chrono::milliseconds(u32At(frame.data() + budgetAt));
    if (reader.isSession && !reader.first) {
        job->submitted = std::chrono::steady_clock::now();
        reader.first = std::move(job);
        return true;
    }
    if (pool_->submit(job) == Offer::accepted)
        return true;
    pool_->putBack(std::move(job));
    return false;
}

void Pipe::finish(Pool &pool, std::unique_ptr<Job> job) noexcept
{
    try {
        const size_t length = job->outputLength;
        if (job->rv == CKR_OK && length >= job->outMin && length <= job->outMax && !job->isLate) {
            SecretBytes response(fieldsAt + 4 + length);
            uint8_t *to = response.data();
            putU32(to, headBytes + 4 + length);
            putU32(to + lengthBytes, job->id);
            to[operationAt] = statusOk;
            putU32(to + budgetAt, static_cast<uint32_t>(std::min(job->hsmMicros, 4e9)));
            putU32(to + fieldsAt, length);
            std::memcpy(to + fieldsAt + 4, job->output.data(), length);
            write(response.span());
        } else {
            handFailed(*job);
        }
    } catch (const std::bad_alloc &) {
        /* Unanswered: the gateway asks another worker. */
    }
    pool.putBack(std::move(job));
}

void Pipe::handFailed(const Job &job)
{
    if (!job.isLate) {
        const std::lock_guard lock(plansMutex_);
        const auto plan = plans_.find(questionOf(job.aux, *findInput(job.aux)));
        if (plan != plans_.end())
            plans_.erase(plan);
    }
    Failed failed{SecretBytes(job.aux), job.rv, job.key, job.hsmMicros, 0};
    failed.waitedMicros =
        std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - job.submitted)
            .count();
    bool isFirst;
    {
        const std::lock_guard lock(inboxMutex_);
        isFirst = frames_.empty() && failed_.empty();
        failed_.push_back(std::move(failed));
    }
    if (isFirst)
        wake_();
}

bool Pipe::isInboxFull()
{
    const std::lock_guard lock(inboxMutex_);
    return frames_.size() >= inboxBytesMax;
}

void Pipe::hand(const Reader &reader, std::span<const uint8_t> frames)
{
    if (frames.empty())
        return;
    bool isFirst;
    {
        std::unique_lock lock(inboxMutex_);
        if (!reader.isSession)
            inboxRoom_.wait(lock, [&] { return frames_.size() < inboxBytesMax; });
        isFirst = frames_.empty() && failed_.empty();
        const size_t before = frames_.size();
        frames_.resize(before + frames.size());
        std::memcpy(frames_.data() + before, frames.data(), frames.size());
    }
    if (isFirst)
        wake_();
}

} // namespace hsmgate
