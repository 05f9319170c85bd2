#include "rules.h"

#include "rv_names.h"

#include <charconv>
#include <cmath>
#include <map>

namespace hsmgate::shim
{

namespace
{

constexpr double longestMs = 600'000;

struct Mistake {
    std::string text;
};

[[noreturn]] void refuse(std::string_view what, std::string_view word)
{
    throw Mistake{std::string(what) + ": " + std::string(word)};
}

std::vector<std::string_view> split(std::string_view text, std::string_view separators)
{
    std::vector<std::string_view> parts;
    size_t at = 0;
    while ((at = text.find_first_not_of(separators, at)) != std::string_view::npos) {
        const size_t end = std::min(text.find_first_of(separators, at), text.size());
        parts.push_back(text.substr(at, end - at));
        at = end;
    }
    return parts;
}

uint64_t parseCount(std::string_view text)
{
    const bool isHex = text.starts_with("0x");
    const std::string_view digits = isHex ? text.substr(2) : text;
    uint64_t value = 0;
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), value, isHex ? 16 : 10);
    if (digits.empty() || error != std::errc{} || end != digits.data() + digits.size())
        refuse("not a number", text);
    return value;
}

double parseDecimal(std::string_view text)
{
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || !std::isfinite(value) ||
        value < 0)
        refuse("not a positive number", text);
    return value;
}

CK_RV parseRv(std::string_view text)
{
    for (const NamedRv &named : namedRvs) {
        if (named.name == text)
            return named.rv;
    }
    return parseCount(text);
}

std::vector<unsigned char> parseBytes(std::string_view text)
{
    std::vector<unsigned char> bytes;
    if (text.starts_with("hex:")) {
        for (size_t i = 4; i < text.size(); i += 2)
            bytes.push_back(
                static_cast<unsigned char>(parseCount("0x" + std::string(text.substr(i, 2)))));
    } else {
        bytes.assign(text.begin(), text.end());
    }
    if (bytes.empty())
        refuse("no bytes", text);
    return bytes;
}

Duration parseDuration(std::string_view text)
{
    const std::vector<std::string_view> parts = split(text, ":");
    if (parts.size() == 1)
        return {Duration::Shape::fixed, parseDecimal(parts[0]), 0};
    if (parts.size() == 3 && parts[0] == "uniform")
        return {Duration::Shape::uniform, parseDecimal(parts[1]), parseDecimal(parts[2])};
    if (parts.size() == 2 && parts[0] == "exponential")
        return {Duration::Shape::exponential, parseDecimal(parts[1]), 0};
    if (parts.size() == 3 && parts[0] == "lognormal")
        return {Duration::Shape::lognormal, parseDecimal(parts[1]), parseDecimal(parts[2])};
    refuse("not a duration", text);
}

std::bitset<functionCount> parseCalls(std::string_view text)
{
    std::bitset<functionCount> functions;
    for (const std::string_view pattern : split(text, ",")) {
        const bool isPrefix = pattern.ends_with('*');
        const std::string_view prefix = pattern.substr(0, pattern.size() - (isPrefix ? 1 : 0));
        bool isKnown = false;
        for (size_t i = 0; i < functionCount; i++) {
            if (isPrefix ? functionNames[i].starts_with(prefix) : functionNames[i] == pattern) {
                functions.set(i);
                isKnown = true;
            }
        }
        if (!isKnown)
            refuse("no such function", pattern);
    }
    return functions;
}

/* Words of a rule that aren't its action. */
bool parseCondition(Rule &rule, std::string_view word, std::string_view value, bool &isShared)
{
    if (word == "id")
        rule.name = value;
    else if (word == "scope" && (value == "all" || value == "process"))
        isShared = value == "all";
    else if (word == "in" && value == "one")
        rule.inOneProcess = true;
    else if (word == "in")
        rule.onlyProcess = static_cast<pid_t>(parseCount(value));
    else if (word == "input")
        rule.input = parseBytes(value);
    else if (word == "label")
        rule.label = value;
    else if (word == "from")
        rule.from = parseCount(value);
    else if (word == "to")
        rule.to = parseCount(value);
    else if (word == "every")
        rule.every = parseCount(value);
    else if (word == "chance")
        rule.chance = parseDecimal(value);
    else if (word == "over")
        rule.perSecond = parseDecimal(value);
    else if (word == "seed")
        rule.seed = parseCount(value);
    else if (word == "after" && value.empty())
        rule.after = true;
    else
        return false;
    return true;
}

void parseAction(Rule &rule, std::string_view word, std::string_view value)
{
    if (word == "delay") {
        rule.action = Action::delay;
        rule.duration = parseDuration(value);
    } else if (word == "rv") {
        rule.action = Action::answer;
        rule.rv = parseRv(value);
    } else if (word == "hang") {
        rule.action = Action::hang;
        rule.forEver = value.empty();
        if (!rule.forEver)
            rule.duration = parseDuration(value);
    } else if (word == "crash" && value.empty()) {
        rule.action = Action::crash;
    } else if (word == "drop" && (value.empty() || value == "all")) {
        rule.action = Action::drop;
        rule.all = value == "all";
    } else if (word == "logout" && value.empty()) {
        rule.action = Action::logout;
    } else if (word == "stale" && value.empty()) {
        rule.action = Action::stale;
    } else if (word == "sessions") {
        rule.action = Action::capSessions;
        rule.count = parseCount(value);
    } else if (word == "short") {
        rule.action = Action::shorten;
        rule.count = parseCount(value);
        rule.after = true;
    } else if (word == "flip" && value.empty()) {
        rule.action = Action::flip;
        rule.after = true;
    } else if (word == "log" && value.empty()) {
        rule.action = Action::log;
        rule.after = true;
    } else {
        refuse("neither condition nor action", word);
    }
}

Rule parseRule(const std::vector<std::string_view> &words, bool &isShared)
{
    Rule rule;
    rule.functions = parseCalls(words[0]);
    int actions = 0;
    for (size_t i = 1; i < words.size(); i++) {
        const size_t equals = words[i].find('=');
        const std::string_view word = words[i].substr(0, equals);
        const std::string_view value =
            equals == std::string_view::npos ? std::string_view() : words[i].substr(equals + 1);
        if (equals != std::string_view::npos && value.empty())
            refuse("no value", words[i]);
        if (parseCondition(rule, word, value, isShared))
            continue;
        parseAction(rule, word, value);
        actions++;
    }
    if (actions != 1)
        refuse("a rule has one action", words[0]);
    if (rule.every == 0)
        refuse("counting starts at 1", "every=0");
    return rule;
}

/* FNV-1a; never 0, which marks a free counter, nor a small number, which marks a function. */
uint64_t keyOf(std::string_view text)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (const char c : text)
        hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
    return hash | uint64_t{1} << 63;
}

std::string joined(const std::vector<std::string_view> &words)
{
    std::string text;
    for (const std::string_view word : words)
        text.append(text.empty() ? "" : " ").append(word);
    return text;
}

} // namespace

double Duration::draw(double u, double v) const
{
    double drawn = a;
    if (shape == Shape::uniform)
        drawn = a + u * (b - a);
    else if (shape == Shape::exponential)
        drawn = -a * std::log1p(-u);
    else if (shape == Shape::lognormal) /* Box-Muller; a is the median */
        drawn = a * std::exp(b * std::sqrt(-2 * std::log1p(-u)) * std::cos(2 * M_PI * v));
    return std::min(std::max(drawn, 0.0), longestMs);
}

std::shared_ptr<const RuleSet> parseRules(std::string_view text, Counters &process,
                                          Counters &shared, std::string &trouble)
{
    auto rules = std::make_shared<RuleSet>();
    std::map<std::string, int> seen;
    size_t number = 0;
    size_t at = 0;
    while (at < text.size()) {
        const size_t end = std::min(text.find('\n', at), text.size());
        const std::vector<std::string_view> words = split(text.substr(at, end - at), " \t\r");
        at = end + 1;
        number++;
        if (words.empty() || words[0].starts_with('#'))
            continue;
        try {
            bool isShared = false;
            Rule rule = parseRule(words, isShared);
            /* The same line twice is two rules. */
            const std::string line = joined(words);
            const std::string identity = line + "#" + std::to_string(seen[line]++);
            if (rule.name.empty())
                rule.name = "line " + std::to_string(number);
            rule.total = shared.claim(keyOf(identity), rule.name);
            rule.counter = isShared ? rule.total : process.claim(keyOf(identity), rule.name);
            if (rule.total == nullptr || rule.counter == nullptr)
                refuse("too many rules since the counters were made", words[0]);
            rules->push_back(std::move(rule));
        } catch (const Mistake &mistake) {
            trouble = "line " + std::to_string(number) + ": " + mistake.text;
            return nullptr;
        }
    }
    return rules;
}

} // namespace hsmgate::shim
