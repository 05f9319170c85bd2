/*
 * The worker's end of its pipe to the gateway. The pool's session threads read its frames
 * (src/hsm/frames.ts): who finds a request that has a plan performs and answers it, without another
 * thread or the event loop; everything else waits for the owner in `drain`. A thread of the pipe's
 * own reads where they can't: before there is a pool, and while all of them work.
 *
 * A plan is what the owner found out once for one question, the bytes of a request up to its input:
 * which key object, mechanism and lengths they stand for. It holds until the owner forgets it or a
 * job of it fails; the owner then gets the request with the failure and decides.
 *
 * Threads: `write` may be called from any; the rest belongs to the owner. `wake` is called from the
 * pipe's threads when there is something to drain.
 */
#pragma once

#include "job.h"
#include "pool.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace hsmgate
{

/* Every request that plans answer has one input field at its end, and one field of output. */
struct Plan {
    Op op = Op::sign;
    CK_MECHANISM_TYPE mechanism = 0;
    CK_OBJECT_HANDLE key = 0;
    std::vector<uint8_t> params;
    /* Goes before the input. */
    std::vector<uint8_t> prefix;
    size_t inputMin = 0;
    size_t inputMax = 0;
    size_t outputMin = 0;
    size_t outputMax = 0;
};

/* A request whose plan has failed, for the owner. */
struct Failed {
    SecretBytes frame;
    /* What the module answered, for which object, and how long it took; CKR_OK: it was not asked,
     * or gave what the plan does not allow. */
    CK_RV rv = CKR_OK;
    CK_OBJECT_HANDLE key = 0;
    double hsmMicros = 0;
    /* Since the frame came. */
    double waitedMicros = 0;
};

enum class PipeState : uint8_t {
    open,
    closed,
    /* What came was no frame; nothing is read any more. */
    broken,
};

class Pipe final : public Finisher, public Source, public std::enable_shared_from_this<Pipe>
{
public:
    /* Of all plans; the owner that reaches it starts anew. */
    static constexpr size_t plansMax = 4096;

    explicit Pipe(int fd, std::function<void()> wake);
    ~Pipe();
    Pipe(const Pipe &) = delete;
    Pipe &operator=(const Pipe &) = delete;

    /* Makes the descriptor a blocking one and starts the thread, which keeps the pipe alive until
     * the other end closes. Throws std::system_error. */
    void start();
    /* From now on plans are answered by `pool`; by none when null. What it has is finished: the
     * pipe lives until the pool is closed. */
    void attach(Pool *pool);
    void remember(std::span<const uint8_t> question, Plan plan);
    void forget();
    /* Whole frames. Blocks while the other end does not read; nothing when it has closed. */
    void write(std::span<const uint8_t> frames);
    /*
     * Takes what came into empty containers: whole frames one after the other, and failed plans.
     * Unless the pipe is open, nothing will come any more.
     */
    PipeState drain(SecretBytes &frames, std::vector<Failed> &failed);

    void finish(Pool &pool, std::unique_ptr<Job> job) noexcept override;

    int descriptor() const noexcept override { return fd_; }
    std::unique_ptr<Job> serve() noexcept override;
    void cover() noexcept override;

private:
    /* Who reads: a session thread takes the first job itself, never waits for the owner, and leaves
     * a flow that doesn't end to the pipe's own thread: jobs wait for sessions. */
    struct Reader {
        const bool isSession;
        std::unique_ptr<Job> first = nullptr;
        size_t taken = 0;
    };

    void run();
    bool waitForTurn();
    /* With plansMutex_ held. */
    void leaveToIdle();
    void readAll(Reader &reader) noexcept;
    /* False when it had to leave something behind. */
    bool readUntilEmpty(Reader &reader);
    /* False when the bytes are no frame. */
    bool parse(Reader &reader);
    bool answer(Reader &reader, std::span<const uint8_t> frame);
    void hand(const Reader &reader, std::span<const uint8_t> frames);
    bool isInboxFull();
    void end(PipeState state);
    void handFailed(const Job &job);

    const int fd_;
    const std::function<void()> wake_;

    std::mutex plansMutex_;
    Pool *pool_ = nullptr;
    /* Session threads of the pool are woken by the pipe. */
    bool isWatched_ = false;
    std::map<std::string, Plan, std::less<>> plans_;

    std::mutex writeMutex_;

    /* Somebody was told that there is more; whoever reads looks again before leaving. */
    std::atomic<bool> again_{false};
    std::atomic<bool> isEnded_{false};
    /* Session threads only try it: the pipe's own may wait for the owner while it reads. */
    std::mutex readMutex_;
    SecretBytes buffer_;
    size_t filled_ = 0;

    /* Whether it is the pipe's own thread that reads. */
    std::mutex turnMutex_;
    std::condition_variable turnCame_;
    bool isOwnTurn_ = true;

    std::mutex inboxMutex_;
    std::condition_variable inboxRoom_;
    SecretBytes frames_;
    std::vector<Failed> failed_;
    PipeState state_ = PipeState::open;
};

} // namespace hsmgate
