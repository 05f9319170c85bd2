#include "faults.h"

#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

namespace hsmgate::shim
{

namespace
{

constexpr size_t rulesBytesMax = 256 * 1024;
/* A rate is a rate: this much of a second may come at once. */
constexpr uint64_t burstNs = 50'000'000;

constexpr std::string_view actionNames[] = {"delay", "rv",       "hang",  "crash", "drop", "logout",
                                            "stale", "sessions", "short", "flip",  "log"};

int loadFlags()
{
    int flags = RTLD_NOW | RTLD_LOCAL;
#ifdef RTLD_DEEPBIND
    const char *off = std::getenv("HSMGATE_NO_DEEPBIND");
    if (off == nullptr || std::strcmp(off, "1") != 0)
        flags |= RTLD_DEEPBIND;
#endif
    return flags;
}

uint64_t nowNs()
{
    struct timespec now {
    };
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

void sleepFor(double ms)
{
    struct timespec left {
    };
    left.tv_sec = static_cast<time_t>(ms / 1e3);
    left.tv_nsec = static_cast<long>((ms - static_cast<double>(left.tv_sec) * 1e3) * 1e6);
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

/* A number in [0, 1) that depends on the rule's seed and the number of the call alone: whatever the
 * threads do, the n-th call fares the same. SplitMix64. */
double chanceOf(uint64_t seed, uint64_t number, uint64_t purpose)
{
    uint64_t z = seed * 0x9e3779b97f4a7c15 + number * 0xbf58476d1ce4e5b9 + purpose;
    for (int i = 0; i < 2; i++) {
        z += 0x9e3779b97f4a7c15;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        z ^= z >> 31;
    }
    return static_cast<double>(z >> 11) * 0x1p-53;
}

/* Takes one call out of the permitted rate; false when it is used up (generic cell rate algorithm).
 */
bool takeFromRate(std::atomic<uint64_t> &spentUntilNs, double perSecond)
{
    const uint64_t now = nowNs();
    const auto oneNs = static_cast<uint64_t>(1e9 / std::max(perSecond, 1e-3));
    uint64_t spent = spentUntilNs.load();
    uint64_t next;
    do {
        if (spent > now + burstNs)
            return false;
        next = std::max(spent, now) + oneNs;
    } while (!spentUntilNs.compare_exchange_weak(spent, next));
    return true;
}

/* A real fault, as a module's own would be; without a core file, which would hold keys. */
[[noreturn]] void crash()
{
    const struct rlimit none = {0, 0};
    (void)setrlimit(RLIMIT_CORE, &none);
    (void)prctl(PR_SET_DUMPABLE, 0);
    volatile uintptr_t nowhere = 0;
    *reinterpret_cast<volatile int *>(nowhere) = 1;
    for (;;)
        (void)raise(SIGKILL);
}

[[noreturn]] void hangForEver()
{
    for (;;)
        pause();
}

/* Calls of which every one is in the log: they are few, and tests ask about them by number. */
bool isLogged(Function function)
{
    switch (function) {
    case Function::C_Initialize:
    case Function::C_Finalize:
    case Function::C_InitToken:
    case Function::C_InitPIN:
    case Function::C_SetPIN:
    case Function::C_OpenSession:
    case Function::C_CloseSession:
    case Function::C_CloseAllSessions:
    case Function::C_Login:
    case Function::C_Logout:
    case Function::C_CreateObject:
    case Function::C_CopyObject:
    case Function::C_DestroyObject:
    case Function::C_GenerateKey:
    case Function::C_GenerateKeyPair:
        return true;
    default:
        return false;
    }
}

bool readFile(const std::string &path, std::string &text)
{
    const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return false;
    text.resize(rulesBytesMax);
    size_t used = 0;
    ssize_t got = 0;
    while (used < text.size() &&
           (got = read(descriptor, text.data() + used, text.size() - used)) > 0)
        used += static_cast<size_t>(got);
    close(descriptor);
    text.resize(used);
    return got == 0;
}

} // namespace

bool Faults::Identity::operator==(const Identity &other) const
{
    return device == other.device && inode == other.inode && size == other.size &&
           modified.tv_sec == other.modified.tv_sec && modified.tv_nsec == other.modified.tv_nsec;
}

CK_RV Faults::open()
{
    events_.open(std::getenv("HSMGATE_SHIM_LOG"));
    const char *rules = std::getenv("HSMGATE_SHIM_RULES");
    rulesPath_ = rules != nullptr ? rules : "";
    if (!rulesPath_.empty() && !shared_.share(rulesPath_ + ".counters"))
        events_.trouble("cannot share counters beside " + rulesPath_);
    const char *path = std::getenv("HSMGATE_SHIM_MODULE");
    if (path == nullptr) {
        events_.trouble("HSMGATE_SHIM_MODULE names no module");
        return CKR_GENERAL_ERROR;
    }
    /* Never unloaded: modules register exit handlers and thread-specific destructors. */
    void *library = dlopen(path, loadFlags());
    const auto getList =
        library == nullptr
            ? nullptr
            : reinterpret_cast<CK_C_GetFunctionList>(dlsym(library, "C_GetFunctionList"));
    if (getList == nullptr) {
        const char *why = dlerror();
        events_.trouble(why != nullptr ? why : "cannot load the module");
        return CKR_GENERAL_ERROR;
    }
    CK_FUNCTION_LIST *list = nullptr;
    const CK_RV rv = getList(&list);
    if (rv != CKR_OK || list == nullptr)
        return rv != CKR_OK ? rv : CKR_GENERAL_ERROR;
    module_ = reinterpret_cast<const FunctionList *>(list);
    return CKR_OK;
}

std::shared_ptr<const RuleSet> Faults::currentRules()
{
    const std::lock_guard lock(rulesMutex_);
    struct stat file {
    };
    if (rulesPath_.empty() || stat(rulesPath_.c_str(), &file) != 0)
        return rules_;
    const Identity identity = {file.st_dev, file.st_ino, file.st_size, file.st_mtim};
    if (identity == rulesIdentity_)
        return rules_;
    std::string text;
    std::string why = "cannot be read";
    std::shared_ptr<const RuleSet> parsed;
    if (readFile(rulesPath_, text))
        parsed = parseRules(text, process_, shared_, why);
    if (parsed == nullptr)
        events_.trouble("rules stay as they were: " + why);
    else
        rules_ = parsed;
    rulesIdentity_ = identity;
    return rules_;
}

void Faults::begin(Call &call)
{
    shared_.of(call.function).calls.fetch_add(1, std::memory_order_relaxed);
    call.rules = currentRules();
}

bool Faults::hasLabel(const Call &call, const std::string &part) const
{
    if (call.object == CK_INVALID_HANDLE || call.session == CK_INVALID_HANDLE)
        return false;
    const auto inside = enter();
    char label[128];
    CK_ATTRIBUTE attribute = {CKA_LABEL, label, sizeof label};
    const auto read = entry<CK_RV(CK_SESSION_HANDLE, CK_OBJECT_HANDLE, CK_ATTRIBUTE *, CK_ULONG)>(
        Function::C_GetAttributeValue);
    if (read(call.session, call.object, &attribute, 1) != CKR_OK)
        return false;
    return std::string_view(label, attribute.ulValueLen).find(part) != std::string_view::npos;
}

/* Conditions that ask what the call is; only then is it counted. */
bool Faults::matches(const Rule &rule, const Call &call) const
{
    if (!rule.functions.test(indexOf(call.function)))
        return false;
    if (rule.onlyProcess != 0 && rule.onlyProcess != getpid())
        return false;
    if (!rule.input.empty() &&
        (call.input == nullptr ||
         memmem(call.input, call.inputLength, rule.input.data(), rule.input.size()) == nullptr))
        return false;
    if (!rule.label.empty() && !hasLabel(call, rule.label))
        return false;
    if (rule.inOneProcess) {
        uint64_t owner = 0;
        const auto self = static_cast<uint64_t>(getpid());
        if (!rule.total->owner.compare_exchange_strong(owner, self) && owner != self)
            return false;
    }
    return true;
}

/* Conditions on the number of the call. */
bool Faults::counts(const Rule &rule, uint64_t number) const
{
    if (number < rule.from || number > rule.to || (number - rule.from + 1) % rule.every != 0)
        return false;
    if (rule.chance < 1 && chanceOf(rule.seed, number, 0) >= rule.chance)
        return false;
    return rule.perSecond <= 0 || !takeFromRate(rule.counter->spentUntilNs, rule.perSecond);
}

std::optional<CK_RV> Faults::before(Call &call)
{
    if (call.function == Function::C_OpenSession) {
        const std::lock_guard lock(sessionsMutex_);
        opening_++;
    }
    for (const Rule &rule : *call.rules) {
        if (!matches(rule, call))
            continue;
        const uint64_t number = rule.counter->calls.fetch_add(1) + 1;
        if (rule.total != rule.counter)
            rule.total->calls.fetch_add(1);
        if (!counts(rule, number))
            continue;
        if (rule.after) {
            if (call.afterCount < Call::afterMax)
                call.afterwards[call.afterCount++] = &rule;
            continue;
        }
        const std::optional<CK_RV> answer = act(rule, call, number);
        if (answer.has_value())
            return answer;
    }
    for (size_t i = 0; i < call.handleCount; i++) {
        if (call.handles[i].generation != generation())
            return call.handles[i].whenStale;
    }
    return std::nullopt;
}

std::optional<CK_RV> Faults::act(const Rule &rule, Call &call, uint64_t number)
{
    const auto note = [&](const CK_RV *rv) {
        rule.total->hits.fetch_add(1);
        if (rule.action != Action::delay)
            events_.acted(call.function, rule.name, actionNames[static_cast<size_t>(rule.action)],
                          rv);
    };
    const auto waitMs = [&] {
        return rule.duration.draw(chanceOf(rule.seed, number, 1), chanceOf(rule.seed, number, 2));
    };
    switch (rule.action) {
    case Action::delay:
        note(nullptr);
        sleepFor(waitMs());
        break;
    case Action::answer:
        note(&rule.rv);
        return rule.rv;
    case Action::hang:
        note(nullptr);
        if (rule.forEver)
            hangForEver();
        sleepFor(waitMs());
        break;
    case Action::crash:
        note(nullptr);
        crash();
    case Action::drop:
        note(nullptr);
        drop(call, rule.all);
        break;
    case Action::logout:
        if (call.session == CK_INVALID_HANDLE)
            break;
        note(nullptr);
        {
            const std::unique_lock alone(inside_);
            (void)entry<CK_RV(CK_SESSION_HANDLE)>(Function::C_Logout)(call.session);
        }
        break;
    case Action::stale:
        note(nullptr);
        generation_.fetch_add(1, std::memory_order_acq_rel);
        break;
    case Action::capSessions: {
        const std::lock_guard lock(sessionsMutex_);
        if (call.function != Function::C_OpenSession || sessions_.size() + opening_ <= rule.count)
            break;
        const CK_RV rv = CKR_SESSION_COUNT;
        note(&rv);
        return rv;
    }
    case Action::log:
    case Action::shorten:
    case Action::flip:
        break;
    }
    return std::nullopt;
}

CK_RV Faults::actAfter(const Rule &rule, Call &call, CK_RV rv)
{
    const std::string_view name = actionNames[static_cast<size_t>(rule.action)];
    const bool hasOutput = rv == CKR_OK && call.output != nullptr;
    if (rule.action == Action::shorten) {
        if (!hasOutput || call.outputLength == nullptr)
            return rv;
        *call.outputLength -= std::min<CK_ULONG>(*call.outputLength, rule.count);
    } else if (rule.action == Action::flip) {
        if (!hasOutput || (call.outputLength != nullptr && *call.outputLength == 0))
            return rv;
        call.output[0] ^= 1;
    } else if (rule.action == Action::log) {
        rule.total->hits.fetch_add(1);
        events_.ended(call.function, rv);
        return rv;
    } else {
        return act(rule, call, rule.counter->calls.load()).value_or(rv);
    }
    rule.total->hits.fetch_add(1);
    events_.acted(call.function, rule.name, name, nullptr);
    return rv;
}

CK_RV Faults::after(Call &call, CK_RV rv)
{
    noteSessions(call, rv);
    for (size_t i = 0; i < call.afterCount; i++)
        rv = actAfter(*call.afterwards[i], call, rv);
    if (isLogged(call.function))
        events_.ended(call.function, rv);
    return rv;
}

void Faults::drop(const Call &call, bool all)
{
    if (call.session == CK_INVALID_HANDLE)
        return;
    const std::unique_lock alone(inside_);
    const std::lock_guard lock(sessionsMutex_);
    const auto found = sessions_.find(call.session);
    if (found == sessions_.end())
        return;
    const CK_SLOT_ID slot = found->second;
    if (!all) {
        (void)entry<CK_RV(CK_SESSION_HANDLE)>(Function::C_CloseSession)(call.session);
        sessions_.erase(found);
        return;
    }
    (void)entry<CK_RV(CK_SLOT_ID)>(Function::C_CloseAllSessions)(slot);
    std::erase_if(sessions_, [slot](const auto &open) { return open.second == slot; });
}

void Faults::noteSessions(const Call &call, CK_RV rv)
{
    const Function function = call.function;
    if (function != Function::C_OpenSession && function != Function::C_CloseSession &&
        function != Function::C_CloseAllSessions && function != Function::C_Finalize)
        return;
    const std::lock_guard lock(sessionsMutex_);
    const bool done = call.asked && rv == CKR_OK;
    if (function == Function::C_OpenSession) {
        opening_--;
        if (done && call.newSession != nullptr)
            sessions_[*call.newSession] = call.slot;
    } else if (!done) {
        return;
    } else if (function == Function::C_CloseSession) {
        sessions_.erase(call.session);
    } else if (function == Function::C_CloseAllSessions) {
        std::erase_if(sessions_, [&](const auto &open) { return open.second == call.slot; });
    } else {
        sessions_.clear();
    }
}

} // namespace hsmgate::shim
