/*
 * Names of the session objects that jobs made. A module may give the handle of an object that died
 * with its session to the next object of any other, and whoever still holds the handle would then
 * use another key without noticing. So callers get names instead: never used twice in a process,
 * and forgotten before the session is closed. Any thread; holds its lock for look-ups only.
 */
#pragma once

#include "cryptoki.h"

#include <atomic>
#include <cstdint>
#include <optional>
#include <shared_mutex>
#include <unordered_map>

namespace hsmgate
{

class Session;

class SessionObjects
{
public:
    /* One for the process: objects of a token are visible to all its sessions. */
    static SessionObjects &instance();

    /* Throws std::bad_alloc. */
    CK_OBJECT_HANDLE add(const Session &maker, CK_OBJECT_HANDLE handle);
    /* The module's handle; nothing for a forgotten name. What is no name is a handle itself. */
    std::optional<CK_OBJECT_HANDLE> resolve(CK_OBJECT_HANDLE name) const;
    void remove(CK_OBJECT_HANDLE name) noexcept;
    /* Everything that a session made. */
    void forget(const Session &maker) noexcept;
    /* Everything made in sessions with this token: the module closed one of them by itself. */
    void forgetToken(const Session &maker) noexcept;
    /* Grows with everything that is forgotten. */
    uint64_t generation() const { return generation_.load(std::memory_order_acquire); }

private:
    struct Entry {
        CK_OBJECT_HANDLE handle;
        const Session *maker;
        const void *module;
        CK_SLOT_ID slot;
    };
    template <typename Condition> void forgetIf(Condition condition) noexcept;

    mutable std::shared_mutex mutex_;
    std::unordered_map<CK_OBJECT_HANDLE, Entry> entries_;
    CK_OBJECT_HANDLE last_ = 0;
    std::atomic<uint64_t> generation_{0};
};

} // namespace hsmgate
