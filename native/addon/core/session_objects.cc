#include "session_objects.h"

#include "session.h"

#include <mutex>

namespace hsmgate
{

namespace
{

/* No module numbers its objects from the middle of the range, and no address has this bit. */
constexpr CK_OBJECT_HANDLE nameBit = CK_OBJECT_HANDLE{1} << (8 * sizeof(CK_OBJECT_HANDLE) - 1);

} // namespace

SessionObjects &SessionObjects::instance()
{
    /* Never destroyed: session threads may outlive the statics of the process. */
    static SessionObjects *const objects = new SessionObjects;
    return *objects;
}

CK_OBJECT_HANDLE SessionObjects::add(const Session &maker, CK_OBJECT_HANDLE handle)
{
    const std::unique_lock lock(mutex_);
    const CK_OBJECT_HANDLE name = nameBit | ++last_;
    entries_.emplace(name, Entry{handle, &maker, &maker.functions(), maker.slot()});
    return name;
}

std::optional<CK_OBJECT_HANDLE> SessionObjects::resolve(CK_OBJECT_HANDLE name) const
{
    if ((name & nameBit) == 0)
        return name;
    const std::shared_lock lock(mutex_);
    const auto entry = entries_.find(name);
    if (entry == entries_.end())
        return std::nullopt;
    return entry->second.handle;
}

void SessionObjects::remove(CK_OBJECT_HANDLE name) noexcept
{
    if ((name & nameBit) == 0)
        return;
    const std::unique_lock lock(mutex_);
    entries_.erase(name);
}

template <typename Condition> void SessionObjects::forgetIf(Condition condition) noexcept
{
    const std::unique_lock lock(mutex_);
    std::erase_if(entries_, [&](const auto &item) { return condition(item.second); });
    generation_.fetch_add(1, std::memory_order_release);
}

void SessionObjects::forget(const Session &maker) noexcept
{
    forgetIf([&](const Entry &entry) { return entry.maker == &maker; });
}

void SessionObjects::forgetToken(const Session &maker) noexcept
{
    forgetIf([&](const Entry &entry) {
        return entry.module == &maker.functions() && entry.slot == maker.slot();
    });
}

} // namespace hsmgate
