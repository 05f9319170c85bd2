#include "check.h"
#include "job.h"
#include "queue.h"
#include "secret.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <thread>

using namespace hsmgate;
using namespace hsmgate::test;

namespace
{

bool allZero(const uint8_t *bytes, size_t length)
{
    return std::all_of(bytes, bytes + length, [](uint8_t byte) { return byte == 0; });
}

} // namespace

TEST("secret bytes leave nothing behind when they shrink or are cleared")
{
    for (const size_t length : {size_t{10}, size_t{5000}}) {
        SecretBytes secret(length);
        std::memset(secret.data(), 0xaa, length);
        secret.resize(4);
        CHECK(allZero(secret.data() + 4, length - 4));
        CHECK_EQUAL(secret.data()[3], uint8_t{0xaa});
        secret.clear();
        CHECK(allZero(secret.data(), length));
        secret.resize(length);
        CHECK(allZero(secret.data(), length));
    }
}

TEST("secret bytes keep their beginning when they grow")
{
    SecretBytes secret(std::vector<uint8_t>{1, 2, 3});
    secret.resize(10000);
    CHECK_EQUAL(toHex(secret.span().first(5)), std::string("0102030000"));
    SecretBytes moved = std::move(secret);
    CHECK_EQUAL(moved.size(), size_t{10000});
}

TEST("comparison in constant time tells equal from different")
{
    const std::vector<uint8_t> a = {1, 2, 3};
    CHECK(equalConstantTime(a, std::vector<uint8_t>{1, 2, 3}));
    CHECK(!equalConstantTime(a, std::vector<uint8_t>{1, 2, 4}));
    CHECK(!equalConstantTime(a, std::vector<uint8_t>{1, 2}));
    CHECK(equalConstantTime({}, {}));
}

TEST("a job copies what it is given and wipes it at reset")
{
    Job job;
    std::vector<uint8_t> params = {1, 2}, input = {3, 4, 5}, aux = {6};
    job.load(params, input, aux, false);
    std::fill(input.begin(), input.end(), uint8_t{0});
    CHECK_EQUAL(toHex(job.params), std::string("0102"));
    CHECK_EQUAL(toHex(job.input), std::string("030405"));
    CHECK_EQUAL(toHex(job.aux), std::string("06"));
    const uint8_t *copies = job.params.data();
    job.reset();
    CHECK(allZero(copies, 6));
    job.load(params, input, aux, true);
    CHECK(job.input.data() == input.data());
}

TEST("a bounded queue refuses what it has no room for, and everything once closed")
{
    BoundedQueue<int> queue(2);
    int item = 7;
    CHECK(queue.offer(item) == Offer::accepted);
    CHECK(queue.offer(item) == Offer::accepted);
    CHECK(queue.offer(item) == Offer::full);
    queue.close();
    CHECK(queue.offer(item) == Offer::closed);
    CHECK(queue.take(item));
    CHECK(queue.take(item));
    CHECK(!queue.take(item));
}

TEST("a bounded queue hands every item to exactly one of many consumers")
{
    constexpr int perProducer = 5000;
    BoundedQueue<std::unique_ptr<int>> queue(64);
    std::atomic<int64_t> sum{0};
    std::atomic<int> count{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 3; i++)
        threads.emplace_back([&] {
            std::unique_ptr<int> item;
            while (queue.take(item)) {
                sum += *item;
                count++;
            }
        });
    std::vector<std::thread> producers;
    for (int i = 0; i < 3; i++)
        producers.emplace_back([&, i] {
            for (int j = 0; j < perProducer; j++) {
                auto item = std::make_unique<int>(i * perProducer + j);
                while (queue.offer(item) == Offer::full)
                    std::this_thread::yield();
            }
        });
    for (std::thread &thread : producers)
        thread.join();
    queue.close();
    for (std::thread &thread : threads)
        thread.join();
    constexpr int64_t n = 3 * perProducer;
    CHECK_EQUAL(count.load(), static_cast<int>(n));
    CHECK_EQUAL(sum.load(), n * (n - 1) / 2);
}
