/*
 * What happens to one call on its way: counted, matched against the rules, delayed, answered,
 * let through, changed afterwards.
 *
 * Any number of threads. No lock is held while a rule waits or hangs. Calls inside the module hold
 * `inside_` shared and whatever is done beneath them (dropped sessions, logout) holds it alone,
 * because modules free a closed session that another thread still works on.
 */
#pragma once

#include "events.h"
#include "rules.h"

#include <ctime>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <unordered_map>

namespace hsmgate::shim
{

/* A handle as the caller holds it: the module's own, and above it how often the handles had gone
 * stale when it was issued. */
constexpr unsigned generationShift = 48;

/* One call as the rules see it; pointers are the caller's and live as long as the call. */
struct Call {
    Function function;
    /* The module was asked, so its answer tells what it did. */
    bool asked = false;
    CK_SESSION_HANDLE session = CK_INVALID_HANDLE;
    CK_SLOT_ID slot = 0;
    CK_SESSION_HANDLE *newSession = nullptr;
    CK_OBJECT_HANDLE *found = nullptr;
    /* The first handle among the arguments, as the module knows it. */
    CK_OBJECT_HANDLE object = CK_INVALID_HANDLE;
    const CK_BYTE *input = nullptr;
    CK_ULONG inputLength = 0;
    CK_BYTE *output = nullptr;
    CK_ULONG *outputLength = nullptr;
    struct Issued {
        unsigned generation;
        CK_RV whenStale;
    };
    static constexpr size_t handlesMax = 2;
    Issued handles[handlesMax] = {};
    size_t handleCount = 0;

    std::shared_ptr<const RuleSet> rules = {};
    static constexpr size_t afterMax = 8;
    const Rule *afterwards[afterMax] = {};
    size_t afterCount = 0;
};

class Faults
{
public:
    /* Loads the module that HSMGATE_SHIM_MODULE names. CKR_OK, or why there is none. */
    CK_RV open();

    const FunctionList &module() const { return *module_; }
    template <typename Signature> Signature *entry(Function function) const
    {
        return reinterpret_cast<Signature *>(module_->functions[indexOf(function)]);
    }

    unsigned generation() const { return generation_.load(std::memory_order_acquire); }
    std::shared_lock<std::shared_mutex> enter() const { return std::shared_lock(inside_); }

    void begin(Call &call);
    /* The answer that the module isn't asked for, if a rule gives one. */
    std::optional<CK_RV> before(Call &call);
    CK_RV after(Call &call, CK_RV rv);

private:
    struct Identity {
        dev_t device = 0;
        ino_t inode = 0;
        off_t size = -1;
        struct timespec modified {
        };

        bool operator==(const Identity &other) const;
    };

    std::shared_ptr<const RuleSet> currentRules();
    bool matches(const Rule &rule, const Call &call) const;
    bool counts(const Rule &rule, uint64_t number) const;
    std::optional<CK_RV> act(const Rule &rule, Call &call, uint64_t number);
    CK_RV actAfter(const Rule &rule, Call &call, CK_RV rv);
    bool hasLabel(const Call &call, const std::string &part) const;
    void drop(const Call &call, bool all);
    void noteSessions(const Call &call, CK_RV rv);

    const FunctionList *module_ = nullptr;
    Events events_;
    Counters process_;
    Counters shared_;
    std::atomic<unsigned> generation_{0};
    mutable std::shared_mutex inside_;

    std::mutex rulesMutex_;
    std::string rulesPath_;
    Identity rulesIdentity_;
    std::shared_ptr<const RuleSet> rules_ = std::make_shared<RuleSet>();

    std::mutex sessionsMutex_;
    std::unordered_map<CK_SESSION_HANDLE, CK_SLOT_ID> sessions_;
    size_t opening_ = 0;
};

} // namespace hsmgate::shim
