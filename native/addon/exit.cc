#include "exit.h"

#include "core/module.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <unistd.h>
#include <vector>

namespace hsmgate
{

namespace
{

using namespace std::chrono_literals;

constexpr auto patience = 2000ms;

/* Never destroyed: it is used while static destructors run. */
struct Departures {
    std::mutex mutex;
    std::vector<Departure *> list;
    bool installed = false;
};

Departures &departures()
{
    static Departures *instance = new Departures;
    return *instance;
}

bool settle(Departure &departure, std::chrono::steady_clock::time_point deadline)
{
    const auto left = [&] {
        return std::max(0ms, std::chrono::duration_cast<std::chrono::milliseconds>(
                                 deadline - std::chrono::steady_clock::now()));
    };
    if (!departure.pool->abandon(left()))
        return false;
    while (departure.blocked.load() > 0) {
        if (left() == 0ms)
            return false;
        std::this_thread::sleep_for(2ms);
    }
    return true;
}

void leave(int status, void *)
{
    Departures &all = departures();
    const std::lock_guard lock(all.mutex);
    const auto deadline = std::chrono::steady_clock::now() + patience;
    for (Departure *departure : all.list) {
        if (!settle(*departure, deadline))
            _exit(status);
    }
    Module::finalizeAll();
}

} // namespace

void installExitHandler()
{
    Departures &all = departures();
    const std::lock_guard lock(all.mutex);
    if (!all.installed)
        all.installed = on_exit(leave, nullptr) == 0;
}

void registerDeparture(Departure *departure)
{
    Departures &all = departures();
    const std::lock_guard lock(all.mutex);
    all.list.push_back(departure);
}

void unregisterDeparture(Departure *departure)
{
    Departures &all = departures();
    const std::lock_guard lock(all.mutex);
    std::erase(all.list, departure);
}

} // namespace hsmgate
