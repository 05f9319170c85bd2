/* Where session threads wait: the queue, and a source beside it. */
#include "check.h"
#include "intake.h"

#include <chrono>
#include <functional>

#include <sys/socket.h>
#include <thread>
#include <unistd.h>

using namespace hsmgate;
using namespace hsmgate::test;

namespace
{

std::unique_ptr<Job> jobOf(uint32_t id)
{
    auto job = std::make_unique<Job>();
    job->id = id;
    return job;
}

/* Brings a job for every byte that is sent. */
class Bytes final : public Source
{
public:
    explicit Bytes(Intake &intake) : intake_(intake)
    {
        CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends_) == 0);
    }
    ~Bytes()
    {
        close(ends_[0]);
        close(ends_[1]);
    }

    void send(size_t count)
    {
        const std::vector<uint8_t> content(count, 1);
        for (size_t at = 0; at < count;) {
            const ssize_t sent = ::send(ends_[0], content.data() + at, count - at, 0);
            CHECK(sent > 0);
            at += static_cast<size_t>(sent);
        }
    }

    int descriptor() const noexcept override { return ends_[1]; }

    std::unique_ptr<Job> serve() noexcept override
    {
        std::unique_ptr<Job> first;
        uint8_t content[64];
        for (;;) {
            const ssize_t got = recv(ends_[1], content, sizeof content, MSG_DONTWAIT);
            if (got <= 0)
                return first;
            for (ssize_t i = 0; i < got; i++) {
                auto job = jobOf(1);
                if (!first)
                    first = std::move(job);
                else
                    CHECK(intake_.offer(job) == Offer::accepted);
            }
        }
    }

    void cover() noexcept override { covers++; }

    std::atomic<int> covers{0};

private:
    Intake &intake_;
    int ends_[2];
};

/* Threads that take jobs until the intake is closed. */
class Takers
{
public:
    Takers(Intake &intake, int count)
    {
        for (int i = 0; i < count; i++)
            threads_.emplace_back([&] {
                while (const std::unique_ptr<Job> job = intake.take()) {
                    sum += job->id;
                    taken++;
                }
            });
    }
    void join()
    {
        for (std::thread &thread : threads_)
            thread.join();
    }

    std::atomic<uint64_t> sum{0};
    std::atomic<uint64_t> taken{0};

private:
    std::vector<std::thread> threads_;
};

void until(const std::function<bool()> &holds)
{
    const auto ends = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!holds()) {
        CHECK(std::chrono::steady_clock::now() < ends);
        std::this_thread::yield();
    }
}

} // namespace

TEST("an intake refuses what it has no room for, and everything once closed")
{
    Intake intake(2);
    CHECK(intake.open());
    std::unique_ptr<Job> jobs[] = {jobOf(1), jobOf(2), jobOf(3)};
    CHECK(intake.offer(jobs[0]) == Offer::accepted);
    CHECK(intake.offer(jobs[1]) == Offer::accepted);
    CHECK(intake.offer(jobs[2]) == Offer::full);
    CHECK(jobs[2] != nullptr);
    intake.close();
    CHECK(intake.offer(jobs[2]) == Offer::closed);
    CHECK_EQUAL(intake.take()->id, 1u);
    CHECK_EQUAL(intake.take()->id, 2u);
    CHECK(intake.take() == nullptr);
}

TEST("an intake hands every job to exactly one of many threads")
{
    constexpr uint32_t perProducer = 5000;
    Intake intake(64);
    CHECK(intake.open());
    Takers takers(intake, 3);
    std::vector<std::thread> producers;
    for (uint32_t i = 0; i < 3; i++)
        producers.emplace_back([&, i] {
            for (uint32_t j = 0; j < perProducer; j++) {
                auto job = jobOf(i * perProducer + j);
                while (intake.offer(job) == Offer::full)
                    std::this_thread::yield();
            }
        });
    for (std::thread &thread : producers)
        thread.join();
    intake.close();
    takers.join();
    constexpr uint64_t n = 3 * perProducer;
    CHECK_EQUAL(takers.taken.load(), n);
    CHECK_EQUAL(takers.sum.load(), n * (n - 1) / 2);
}

TEST("an intake's threads take what a source brings, whenever it comes")
{
    Intake intake(1 << 20);
    CHECK(intake.open());
    const auto source = std::make_shared<Bytes>(intake);
    source->send(1);
    Takers takers(intake, 3);
    CHECK(intake.watch(source));
    uint64_t sent = 1;
    for (const size_t count : {1, 2, 63, 64, 65, 1000, 1, 1}) {
        source->send(count);
        sent += count;
        until([&] { return takers.taken.load() == sent; });
    }
    for (int i = 0; i < 3000; i++) {
        source->send(1);
        auto job = jobOf(1);
        CHECK(intake.offer(job) == Offer::accepted);
        sent += 2;
    }
    until([&] { return takers.taken.load() == sent; });
    intake.unwatch();
    source->send(1);
    auto last = jobOf(1);
    CHECK(intake.offer(last) == Offer::accepted);
    intake.close();
    takers.join();
    CHECK_EQUAL(takers.taken.load(), sent + 1);
    CHECK_EQUAL(source.use_count(), 1L);
}

TEST("an intake tells its source when no thread is left")
{
    Intake intake(8);
    CHECK(intake.open());
    const auto source = std::make_shared<Bytes>(intake);
    CHECK(intake.watch(source));
    auto job = jobOf(5);
    CHECK(intake.offer(job) == Offer::accepted);
    CHECK_EQUAL(intake.take()->id, 5u);
    CHECK_EQUAL(source->covers.load(), 1);
    {
        Takers takers(intake, 1);
        until([&] { return intake.hasIdle(); });
        job = jobOf(6);
        CHECK(intake.offer(job) == Offer::accepted);
        until([&] { return source->covers.load() == 2; });
        intake.close();
        takers.join();
    }
}
