#include "check.h"
#include "job.h"
#include "secret.h"

#include <algorithm>
#include <cstring>
#include <memory>

using namespace hsmgate;
using namespace hsmgate::test;

namespace
{

bool allZero(const uint8_t *bytes, size_t length)
{
    return std::all_of(bytes, bytes + length, [](uint8_t byte) { return byte == 0; });
}

} // namespace

TEST("secret bytes leave nothing behind when they shrink or are cleared")
{
    for (const size_t length : {size_t{10}, size_t{5000}}) {
        SecretBytes secret(length);
        std::memset(secret.data(), 0xaa, length);
        secret.resize(4);
        CHECK(allZero(secret.data() + 4, length - 4));
        CHECK_EQUAL(secret.data()[3], uint8_t{0xaa});
        secret.clear();
        CHECK(allZero(secret.data(), length));
        secret.resize(length);
        CHECK(allZero(secret.data(), length));
    }
}

TEST("secret bytes keep their beginning when they grow")
{
    SecretBytes secret(std::vector<uint8_t>{1, 2, 3});
    secret.resize(10000);
    CHECK_EQUAL(toHex(secret.span().first(5)), std::string("0102030000"));
    SecretBytes moved = std::move(secret);
    CHECK_EQUAL(moved.size(), size_t{10000});
}

TEST("comparison in constant time tells equal from different")
{
    const std::vector<uint8_t> a = {1, 2, 3};
    CHECK(equalConstantTime(a, std::vector<uint8_t>{1, 2, 3}));
    CHECK(!equalConstantTime(a, std::vector<uint8_t>{1, 2, 4}));
    CHECK(!equalConstantTime(a, std::vector<uint8_t>{1, 2}));
    CHECK(equalConstantTime({}, {}));
}

TEST("a job copies what it is given and wipes it at reset")
{
    Job job;
    std::vector<uint8_t> params = {1, 2}, input = {3, 4, 5}, aux = {6};
    job.load(params, input, aux, false);
    std::fill(input.begin(), input.end(), uint8_t{0});
    CHECK_EQUAL(toHex(job.params), std::string("0102"));
    CHECK_EQUAL(toHex(job.input), std::string("030405"));
    CHECK_EQUAL(toHex(job.aux), std::string("06"));
    const uint8_t *copies = job.params.data();
    job.reset();
    CHECK(allZero(copies, 6));
    job.load(params, input, aux, true);
    CHECK(job.input.data() == input.data());
}
