/*
 * Counters of functions and rules: one table in this process, and one in a file that every process
 * with the same rules maps, so that a rule can speak of all of them together. A counter in the file
 * survives the process that crashed on it.
 *
 * Threads and processes: entries are claimed and counted with lock-free atomics only, and never
 * given back.
 */
#pragma once

#include "functions.h"

#include <atomic>
#include <cstdint>
#include <string>

namespace hsmgate::shim
{

/* 96 bytes; tests read the file with this layout. */
struct Counter {
    /* Names the owner of the entry; 0: free. */
    std::atomic<uint64_t> key;
    /* Calls of the function, or calls that met all conditions of the rule but those that count. */
    std::atomic<uint64_t> calls;
    /* Calls that the rule acted upon. */
    std::atomic<uint64_t> hits;
    /* The one process of a rule that is for one alone; 0: none yet. */
    std::atomic<uint64_t> owner;
    /* Monotonic nanoseconds up to which the permitted rate is used up. */
    std::atomic<uint64_t> spentUntilNs;
    uint64_t reserved[3];
    char name[32];
};

static_assert(sizeof(Counter) == 96);
static_assert(std::atomic<uint64_t>::is_always_lock_free);

constexpr size_t counterCount = 1024;

class Counters
{
public:
    /* In the memory of this process. */
    Counters();
    /* In the file at `path`, which is made when it isn't there. False when it can't be used. */
    bool share(const std::string &path);

    Counter &of(Function function) { return entries_[indexOf(function)]; }
    /* The entry of a rule, made at first use; null when the table is full. */
    Counter *claim(uint64_t key, const std::string &name);

private:
    Counter *entries_;
};

} // namespace hsmgate::shim
