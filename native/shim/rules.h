/*
 * Rules: one line each, `<calls> <conditions> <action>`, as in native/README.md. A parsed set is
 * immutable; its counters live elsewhere and outlive it, so that a line which stays in the file
 * goes on counting.
 */
#pragma once

#include "counters.h"

#include <bitset>
#include <memory>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

namespace hsmgate::shim
{

enum class Action {
    delay,
    answer,
    hang,
    crash,
    drop,
    logout,
    stale,
    capSessions,
    shorten,
    flip,
    log,
};

/* Milliseconds: fixed or drawn anew for each call. */
struct Duration {
    enum class Shape { fixed, uniform, exponential, lognormal } shape = Shape::fixed;
    double a = 0;
    double b = 0;

    /* `u` and `v`: independent, evenly spread over [0, 1). */
    double draw(double u, double v) const;
};

struct Rule {
    std::string name;
    std::bitset<functionCount> functions;

    pid_t onlyProcess = 0;
    bool inOneProcess = false;
    std::vector<unsigned char> input;
    std::string label;
    uint64_t from = 1;
    uint64_t to = UINT64_MAX;
    uint64_t every = 1;
    double chance = 1;
    double perSecond = 0;
    uint64_t seed = 1;

    Action action = Action::log;
    bool after = false;
    bool all = false;
    bool forEver = false;
    CK_RV rv = CKR_OK;
    uint64_t count = 0;
    Duration duration;

    /* What the conditions count: all processes together, or this one. */
    Counter *counter = nullptr;
    /* All processes together, for whoever reads the file. */
    Counter *total = nullptr;
};

using RuleSet = std::vector<Rule>;

/* Null, with `trouble` saying where and why, when a line is wrong. */
std::shared_ptr<const RuleSet> parseRules(std::string_view text, Counters &process,
                                          Counters &shared, std::string &trouble);

} // namespace hsmgate::shim
