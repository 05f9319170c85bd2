/* The pipe on SoftHSM2: what plans answer, what comes back to the owner, and what breaks it. */
#include "check.h"
#include "pipe.h"
#include "token.h"

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <thread>
#include <unistd.h>
#include <utility>

using namespace hsmgate;
using namespace hsmgate::test;

namespace
{

/* What epoll_ctl below says on this thread. */
thread_local bool watchesRefused = false;

using Bytes = std::vector<uint8_t>;

constexpr uint8_t macOperation = 7;
constexpr uint32_t amplyMs = 60'000;

Bytes u32(size_t value)
{
    return {static_cast<uint8_t>(value), static_cast<uint8_t>(value >> 8),
            static_cast<uint8_t>(value >> 16), static_cast<uint8_t>(value >> 24)};
}

Bytes operator+(Bytes left, const Bytes &right)
{
    left.insert(left.end(), right.begin(), right.end());
    return left;
}

Bytes bytes(const std::string &text)
{
    return {text.begin(), text.end()};
}

/* Purpose, spec, construction, session, object id, label, algorithm. */
Bytes fields(const std::string &objectId)
{
    return Bytes{0, 1, 2} + u32(0) + u32(objectId.size()) + bytes(objectId) +
           Bytes{2, 0, 'k', 'x'} + Bytes{9};
}

Bytes frame(const Bytes &content)
{
    return u32(content.size()) + content;
}

Bytes request(uint32_t callId, const std::string &objectId, const std::string &input,
              uint32_t budgetMs = amplyMs)
{
    return frame(u32(callId) + Bytes{macOperation} + u32(budgetMs) + fields(objectId) +
                 u32(input.size()) + bytes(input));
}

Bytes question(const std::string &objectId)
{
    return Bytes{macOperation} + fields(objectId);
}

/* Shared with the pipe, whose thread may ring it for the last time when its owner is gone. */
struct Bell {
    std::mutex mutex;
    std::condition_variable rung;
    bool isRung = false;

    void ring()
    {
        const std::lock_guard lock(mutex);
        isRung = true;
        rung.notify_all();
    }
    /* False when it never rings. */
    bool wait()
    {
        std::unique_lock lock(mutex);
        return rung.wait_for(lock, std::chrono::seconds(30),
                             [this] { return std::exchange(isRung, false); });
    }
};

/* A pipe, its other end, and its owner. */
class Ends
{
public:
    Ends()
    {
        int pair[2];
        CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
        peer_ = pair[0];
        /* An answer that never comes is a failure, not a hang. */
        const timeval patience{30, 0};
        CHECK(setsockopt(peer_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0);
        pipe = std::make_shared<Pipe>(pair[1], [bell = bell_] { bell->ring(); });
        pipe->start();
    }
    ~Ends()
    {
        hangUp();
        while (state == PipeState::open && bell_->wait())
            take();
    }

    void hangUp()
    {
        if (peer_ >= 0)
            close(peer_);
        peer_ = -1;
    }

    void send(const Bytes &content)
    {
        for (size_t at = 0; at < content.size();) {
            const ssize_t sent =
                ::send(peer_, content.data() + at, content.size() - at, MSG_NOSIGNAL);
            CHECK(sent > 0);
            at += static_cast<size_t>(sent);
        }
    }

    Bytes receive(size_t length)
    {
        Bytes content(length);
        for (size_t at = 0; at < length;) {
            const ssize_t got = recv(peer_, content.data() + at, length - at, 0);
            CHECK(got > 0);
            at += static_cast<size_t>(got);
        }
        return content;
    }

    /* One answer: call id, then status and what follows. */
    Bytes answer(uint32_t callId)
    {
        const Bytes head = receive(4 + 4);
        CHECK(Bytes(head.begin() + 4, head.end()) == u32(callId));
        const size_t length = head[0] | size_t{head[1]} << 8;
        return receive(length - 4);
    }

    /* Takes what there is when the pipe rings. */
    void wait()
    {
        CHECK(bell_->wait());
        take();
    }

    void take()
    {
        SecretBytes came;
        std::vector<Failed> refused;
        state = pipe->drain(came, refused);
        frames = frames + Bytes(came.data(), came.data() + came.size());
        for (Failed &each : refused)
            failed.push_back(std::move(each));
    }

    void waitForFrames(size_t length)
    {
        while (frames.size() < length)
            wait();
    }

    std::shared_ptr<Pipe> pipe;
    Bytes frames;
    std::vector<Failed> failed;
    PipeState state = PipeState::open;

private:
    int peer_ = -1;
    const std::shared_ptr<Bell> bell_ = std::make_shared<Bell>();
};

CK_OBJECT_HANDLE makeMacKey(Runner &runner)
{
    const auto job = runner.run(Op::generateKey, CKM_GENERIC_SECRET_KEY_GEN, 0, "", "",
                                flag(CKA_TOKEN, false) + flag(CKA_SIGN, true) +
                                    attribute(CKA_VALUE_LEN, packedUlong(32)),
                                0);
    CHECK_EQUAL(job->rv, CKR_OK);
    return job->handle;
}

Plan macPlan(CK_OBJECT_HANDLE key)
{
    Plan plan;
    plan.mechanism = CKM_SHA256_HMAC;
    plan.key = key;
    plan.inputMin = 1;
    plan.inputMax = 1000;
    plan.outputMin = 32;
    plan.outputMax = 32;
    return plan;
}

Bytes macOf(Runner &runner, CK_OBJECT_HANDLE key, const std::string &input)
{
    const auto job = runner.run(Op::sign, CKM_SHA256_HMAC, key, "", input, "", 32);
    CHECK_EQUAL(job->rv, CKR_OK);
    return {job->output.data(), job->output.data() + job->outputLength};
}

void checkMac(const Bytes &answer, const Bytes &mac)
{
    CHECK_EQUAL(answer.size(), size_t{1 + 4 + 4 + 32});
    CHECK_EQUAL(answer[0], 0);
    CHECK(Bytes(answer.begin() + 5, answer.begin() + 9) == u32(32));
    CHECK(Bytes(answer.begin() + 9, answer.end()) == mac);
}

} // namespace

extern "C" int epoll_ctl(int epoll, int operation, int fd, epoll_event *event) noexcept
{
    if (watchesRefused && operation == EPOLL_CTL_ADD) {
        errno = ENOSPC;
        return -1;
    }
    return static_cast<int>(syscall(SYS_epoll_ctl, epoll, operation, fd, event));
}

TEST("a pipe gives its owner whole frames, however they arrive")
{
    Ends ends;
    const Bytes first = request(1, "key", "one");
    const Bytes second = request(2, "key", std::string(300'000, 'x'));
    for (const uint8_t byte : first)
        ends.send({byte});
    ends.send(second + first);
    const Bytes all = first + second + first;
    ends.waitForFrames(all.size());
    CHECK(ends.frames == all);
}

TEST("a pipe answers what has a plan from the pool, and nothing else")
{
    Ends ends;
    Runner runner(softhsm(), 2);
    CHECK(!runner.open().failed());
    const CK_OBJECT_HANDLE key = makeMacKey(runner);
    const Bytes mac = macOf(runner, key, "message");
    ends.pipe->remember(question("before"), macPlan(key));
    ends.pipe->attach(&runner.pool());
    ends.pipe->remember(question("key"), macPlan(key));
    ends.send(request(7, "key", "message"));
    checkMac(ends.answer(7), mac);

    /* No plan; a plan of another pool; an input too short, too long; no such form. */
    const Bytes others = request(1, "other", "message") + request(2, "before", "message") +
                         request(3, "key", "") + request(4, "key", std::string(1001, 'x')) +
                         frame(u32(5) + Bytes{macOperation} + u32(amplyMs)) +
                         frame(u32(6) + Bytes{macOperation} + u32(amplyMs) + fields("key") +
                               u32(8) + bytes("message"));
    ends.send(others + request(8, "key", "message"));
    checkMac(ends.answer(8), mac);
    ends.waitForFrames(others.size());
    CHECK(ends.frames == others);

    ends.pipe->forget();
    ends.send(request(9, "key", "message"));
    ends.waitForFrames(others.size() + request(9, "key", "message").size());
    ends.pipe->attach(nullptr);
    CHECK(ends.failed.empty());
}

TEST("a pipe puts a plan's prefix before the input")
{
    Ends ends;
    Runner runner(softhsm(), 1);
    CHECK(!runner.open().failed());
    const CK_OBJECT_HANDLE key = makeMacKey(runner);
    const Bytes mac = macOf(runner, key, "prefix and message");
    ends.pipe->attach(&runner.pool());
    Plan plan = macPlan(key);
    plan.prefix = bytes("prefix and ");
    ends.pipe->remember(question("key"), plan);
    ends.send(request(1, "key", "message"));
    checkMac(ends.answer(1), mac);
    ends.pipe->attach(nullptr);
}

TEST("a pipe gives a request whose plan fails to its owner, and forgets the plan")
{
    Ends ends;
    Runner runner(softhsm(), 1);
    CHECK(!runner.open().failed());
    const CK_OBJECT_HANDLE key = makeMacKey(runner);
    ends.pipe->attach(&runner.pool());
    CHECK_EQUAL(runner.run(Op::destroy, 0, key, "", "", "", 0)->rv, CKR_OK);
    ends.pipe->remember(question("key"), macPlan(key));
    const Bytes refused = request(1, "key", "message");
    ends.send(refused);
    while (ends.failed.empty())
        ends.wait();
    CHECK_EQUAL(ends.failed[0].rv, CK_RV{CKR_KEY_HANDLE_INVALID});
    CHECK(Bytes(ends.failed[0].frame.data(),
                ends.failed[0].frame.data() + ends.failed[0].frame.size()) == refused);
    ends.send(refused);
    ends.waitForFrames(refused.size());
    CHECK_EQUAL(ends.failed.size(), size_t{1});

    Plan longer = macPlan(makeMacKey(runner));
    longer.outputMin = 33;
    longer.outputMax = 64;
    ends.pipe->remember(question("key"), longer);
    ends.send(refused);
    while (ends.failed.size() < 2)
        ends.wait();
    CHECK_EQUAL(ends.failed[1].rv, CK_RV{CKR_OK});

    /* The module gets more room when it asks, but that was not the plan. */
    Plan shorter = macPlan(longer.key);
    shorter.outputMin = 0;
    shorter.outputMax = 31;
    ends.pipe->remember(question("key"), shorter);
    ends.send(refused);
    while (ends.failed.size() < 3)
        ends.wait();
    CHECK_EQUAL(ends.failed[2].rv, CK_RV{CKR_OK});
    CHECK_EQUAL(ends.failed[2].key, shorter.key);
    ends.pipe->attach(nullptr);
}

TEST("a pipe's jobs have nothing of the jobs whose memory they get")
{
    Ends ends;
    Runner runner(softhsm(), 1);
    CHECK(!runner.open().failed());
    const CK_OBJECT_HANDLE key = makeMacKey(runner);
    const Bytes mac = macOf(runner, key, "message");
    ends.pipe->attach(&runner.pool());
    ends.pipe->remember(question("key"), macPlan(key));

    /* As a wrap leaves it: with a second object, which is gone by now. */
    const CK_OBJECT_HANDLE gone = makeMacKey(runner);
    auto wrap = runner.make(Op::wrap, CKM_AES_KEY_WRAP, key, "", "", "", 64);
    wrap->key2 = gone;
    CHECK(runner.submit(std::move(wrap)) == Offer::accepted);
    wrap = std::move(runner.collect(1)[0]);
    CHECK_EQUAL(runner.run(Op::destroy, 0, gone, "", "", "", 0)->rv, CKR_OK);
    runner.pool().putBack(std::move(wrap));

    ends.send(request(1, "key", "message"));
    checkMac(ends.answer(1), mac);
    ends.pipe->attach(nullptr);
}

TEST("a pipe keeps from the module what came too late for it")
{
    Wired wired;
    static std::mutex gate;
    wired.functions.C_SignInit = [](CK_SESSION_HANDLE session, CK_MECHANISM *mechanism,
                                    CK_OBJECT_HANDLE key) -> CK_RV {
        const std::lock_guard lock(gate);
        return real().C_SignInit(session, mechanism, key);
    };
    Ends ends;
    Runner runner(wired.module, 1);
    CHECK(!runner.open().failed());
    const CK_OBJECT_HANDLE key = makeMacKey(runner);
    const Bytes mac = macOf(runner, key, "message");
    ends.pipe->attach(&runner.pool());
    ends.pipe->remember(question("key"), macPlan(key));
    std::unique_lock closed(gate);
    ends.send(request(1, "key", "message") + request(2, "key", "message", 1));
    while (runner.pool().depth().queued == 0)
        std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
    closed.unlock();
    checkMac(ends.answer(1), mac);
    while (ends.failed.empty())
        ends.wait();
    CHECK_EQUAL(ends.failed[0].rv, CK_RV{CKR_OK});
    CHECK_EQUAL(ends.failed[0].hsmMicros, 0.0);
    CHECK(ends.failed[0].waitedMicros >= 1000);

    /* It was no fault of the plan. */
    ends.send(request(3, "key", "message"));
    checkMac(ends.answer(3), mac);
    ends.pipe->attach(nullptr);
}

TEST("a pipe's frames stay whole when many threads write")
{
    Ends ends;
    Runner runner(softhsm(), 4);
    CHECK(!runner.open().failed());
    const CK_OBJECT_HANDLE key = makeMacKey(runner);
    const Bytes mac = macOf(runner, key, "message");
    ends.pipe->attach(&runner.pool());
    ends.pipe->remember(question("key"), macPlan(key));
    constexpr uint32_t calls = 400;
    constexpr uint32_t others = 100;
    const Bytes other = frame(u32(calls) + Bytes{0} + u32(0) + u32(32) + mac);
    std::thread owner([&] {
        for (uint32_t i = 0; i < others; i++)
            ends.pipe->write(other);
    });
    std::thread gateway([&] {
        for (uint32_t id = 0; id < calls; id++)
            ends.send(request(id, "key", "message"));
    });
    std::vector<unsigned> answered(calls + 1);
    for (uint32_t i = 0; i < calls + others; i++) {
        const Bytes whole = ends.receive(other.size());
        const size_t id = whole[4] | size_t{whole[5]} << 8;
        CHECK(id <= calls);
        answered[id]++;
        checkMac(Bytes(whole.begin() + 8, whole.end()), mac);
    }
    owner.join();
    gateway.join();
    CHECK_EQUAL(answered[calls], others);
    for (uint32_t id = 0; id < calls; id++)
        CHECK_EQUAL(answered[id], 1U);
    ends.pipe->attach(nullptr);
}

TEST("a pipe leaves nothing unread, however busy its sessions are")
{
    for (const unsigned sessions : {1U, 3U}) {
        Ends ends;
        Runner runner(softhsm(), sessions);
        CHECK(!runner.open().failed());
        const CK_OBJECT_HANDLE key = makeMacKey(runner);
        ends.pipe->attach(&runner.pool());
        ends.pipe->remember(question("key"), macPlan(key));
        constexpr uint32_t bursts = 400;
        const Bytes other = request(bursts, "other", "message");
        size_t others = 0;
        /* Bursts of one request to eight, some for the owner, some cut in two. */
        uint32_t random = 1;
        for (uint32_t burst = 0; burst < bursts; burst++) {
            random = random * 1664525 + 1013904223;
            const unsigned count = 1 + (random >> 24) % 8;
            Bytes content;
            for (unsigned i = 0; i < count; i++)
                content = content + request(burst * 8 + i, "key", "message");
            if ((random >> 20) % 2 == 0) {
                content = content + other;
                others++;
            }
            const auto middle = content.begin() + (random >> 8) % content.size();
            ends.send({content.begin(), middle});
            if ((random >> 21) % 4 == 0)
                std::this_thread::yield();
            ends.send({middle, content.end()});
            std::vector<bool> isAnswered(count);
            for (unsigned i = 0; i < count; i++) {
                const Bytes whole = ends.receive(4 + 4 + 1 + 4 + 4 + 32);
                const size_t id = (whole[4] | size_t{whole[5]} << 8) - burst * 8;
                CHECK(id < count && !isAnswered[id]);
                isAnswered[id] = true;
            }
        }
        ends.waitForFrames(others * other.size());
        CHECK_EQUAL(ends.frames.size(), others * other.size());
        ends.pipe->attach(nullptr);
        ends.send(other);
        ends.waitForFrames((others + 1) * other.size());
    }
}

TEST("a pipe is read when the sessions that should read it are all at work")
{
    Wired wired;
    static std::mutex gate;
    wired.functions.C_GenerateRandom = [](CK_SESSION_HANDLE session, CK_BYTE *to,
                                          CK_ULONG length) -> CK_RV {
        const std::lock_guard lock(gate);
        return real().C_GenerateRandom(session, to, length);
    };
    Ends ends;
    Runner idle(softhsm(), 1);
    Runner working(wired.module, 1);
    CHECK(!idle.open().failed() && !working.open().failed());
    const std::lock_guard closed(gate);
    CHECK(working.submit(working.make(Op::random, 0, 0, "", "", "", 8)) == Offer::accepted);
    while (working.pool().depth().busy == 0)
        std::this_thread::yield();
    const Bytes other = request(1, "other", "message");
    size_t length = 0;
    for (int i = 0; i < 100; i++) {
        for (Runner *next : {&idle, &working}) {
            ends.pipe->attach(&next->pool());
            for (int j = 0; j < 3; j++) {
                ends.send(other);
                ends.waitForFrames(length += other.size());
            }
        }
    }
    ends.pipe->attach(nullptr);
}

TEST("a pipe that no session can watch reads by itself")
{
    Ends ends;
    Runner runner(softhsm(), 2);
    CHECK(!runner.open().failed());
    watchesRefused = true;
    ends.pipe->attach(&runner.pool());
    watchesRefused = false;
    const CK_OBJECT_HANDLE key = makeMacKey(runner);
    const Bytes mac = macOf(runner, key, "message");
    ends.pipe->remember(question("key"), macPlan(key));
    for (uint32_t id = 0; id < 20; id++) {
        ends.send(request(id, "key", "message"));
        checkMac(ends.answer(id), mac);
    }
    ends.pipe->attach(nullptr);
}

TEST("a pipe's sessions work while it never runs dry")
{
    Runner runner(softhsm(), 2);
    CHECK(!runner.open().failed());
    const CK_OBJECT_HANDLE key = makeMacKey(runner);
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    const timeval patience{30, 0};
    CHECK(setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0);
    /* Whoever reads a frame for the owner finds another one. Shared with the pipe, whose thread may
     * be the last to use it. */
    struct Flow {
        Pipe *pipe = nullptr;
        int peer = -1;
        const Bytes frame = request(1, "other", std::string(1000, 'x'));
        std::atomic<int> more{0};

        ~Flow() { close(peer); }
    };
    const auto flow = std::make_shared<Flow>();
    const auto pipe = std::make_shared<Pipe>(pair[1], [flow] {
        SecretBytes frames;
        std::vector<Failed> failed;
        (void)flow->pipe->drain(frames, failed);
        if (flow->more > 0) {
            flow->more--;
            (void)!send(flow->peer, flow->frame.data(), flow->frame.size(), MSG_NOSIGNAL);
        }
    });
    flow->peer = pair[0];
    flow->pipe = pipe.get();
    pipe->start();
    pipe->attach(&runner.pool());
    pipe->remember(question("key"), macPlan(key));
    const auto ask = [&](const Bytes &content) {
        uint8_t answer[4 + 4 + 1 + 4 + 4 + 32];
        return send(pair[0], content.data(), content.size(), MSG_NOSIGNAL) > 0 &&
               recv(pair[0], answer, sizeof answer, MSG_WAITALL) == ssize_t{sizeof answer};
    };
    const Bytes planned = request(7, "key", "message");
    bool isAnswered = true;
    for (int i = 0; i < 100; i++)
        isAnswered = isAnswered && ask(planned);
    flow->more = 100'000;
    isAnswered = isAnswered && ask(planned + flow->frame);
    const int left = flow->more.exchange(0);
    pipe->attach(nullptr);
    (void)shutdown(pair[0], SHUT_RDWR);
    /* A session thread that has answered may still be in the pipe. */
    runner.pool().close();
    CHECK(isAnswered);
    CHECK(left > 0);
}

TEST("a pipe ends once, whoever reads it then")
{
    Runner runner(softhsm(), 3);
    CHECK(!runner.open().failed());
    const Bytes unfinished = u32(1'000'000) + Bytes(100'000, 'x');
    for (int i = 0; i < 200; i++) {
        int pair[2];
        CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
        const auto wakes = std::make_shared<std::atomic<int>>(0);
        std::weak_ptr<Pipe> last;
        {
            const auto pipe = std::make_shared<Pipe>(pair[1], [wakes] { ++*wakes; });
            last = pipe;
            pipe->start();
            pipe->attach(&runner.pool());
            CHECK(send(pair[0], unfinished.data(), unfinished.size(), MSG_NOSIGNAL) > 0);
            close(pair[0]);
            while (*wakes == 0)
                std::this_thread::yield();
            pipe->attach(nullptr);
        }
        while (!last.expired())
            std::this_thread::yield();
        CHECK_EQUAL(wakes->load(), 1);
    }
}

TEST("a pipe ends with the first length that no frame has")
{
    for (const size_t length : {size_t{0}, size_t{8}, size_t{16 * 1024 * 1024 + 1}}) {
        Ends ends;
        const Bytes before = request(1, "key", "message");
        ends.send(before + u32(length) + Bytes(20));
        while (ends.state == PipeState::open)
            ends.wait();
        CHECK(ends.state == PipeState::broken);
        CHECK(ends.frames == before);
    }
}

TEST("a pipe whose other end is gone takes frames and drops them")
{
    Ends ends;
    ends.hangUp();
    while (ends.state == PipeState::open)
        ends.wait();
    CHECK(ends.state == PipeState::closed);
    ends.pipe->write(request(1, "key", "message"));
    CHECK(ends.frames.empty());
}
