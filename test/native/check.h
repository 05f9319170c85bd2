/*
 * The test program's frame: TEST defines a case, CHECK and CHECK_EQUAL assert. A failed assertion
 * prints its place and ends the case; the program runs all cases in one process and one thread.
 */
#pragma once

#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <vector>

namespace hsmgate::test
{

struct Case {
    const char *name;
    void (*run)();
};

std::vector<Case> &cases();

struct Registration {
    Registration(const char *name, void (*run)()) { cases().push_back({name, run}); }
};

struct CheckFailed {
};

[[noreturn]] inline void fail(const char *file, int line, const std::string &text)
{
    std::fprintf(stderr, "%s:%d: %s\n", file, line, text.c_str());
    throw CheckFailed{};
}

inline std::string show(const std::string &value)
{
    return value;
}
template <typename Value> std::string show(const Value &value)
{
    return std::to_string(value);
}

std::string toHex(std::span<const uint8_t> bytes);
std::vector<uint8_t> fromHex(const std::string &hex);

} // namespace hsmgate::test

#define TEST_JOIN2(a, b) a##b
#define TEST_JOIN(a, b) TEST_JOIN2(a, b)
#define TEST(name)                                                                                \
    static void TEST_JOIN(run, __LINE__)();                                                       \
    static const hsmgate::test::Registration TEST_JOIN(case, __LINE__)(name,                      \
                                                                       TEST_JOIN(run, __LINE__)); \
    static void TEST_JOIN(run, __LINE__)()

#define CHECK(condition)                                                      \
    do {                                                                      \
        if (!(condition))                                                     \
            hsmgate::test::fail(__FILE__, __LINE__, "not true: " #condition); \
    } while (0)

#define CHECK_EQUAL(got, wanted)                                                                  \
    do {                                                                                          \
        const auto got_ = (got);                                                                  \
        const decltype(got_) wanted_ = (wanted);                                                  \
        if (!(got_ == wanted_))                                                                   \
            hsmgate::test::fail(__FILE__, __LINE__,                                               \
                                std::string(#got " is ") + hsmgate::test::show(got_) + ", not " + \
                                    hsmgate::test::show(wanted_));                                \
    } while (0)
