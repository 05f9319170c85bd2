/* Runs every case, or those whose name contains the first argument. Exit 1 when one failed. */
#include "check.h"

#include <cstring>

namespace hsmgate::test
{

std::vector<Case> &cases()
{
    static std::vector<Case> all;
    return all;
}

std::string toHex(std::span<const uint8_t> bytes)
{
    static const char digits[] = "0123456789abcdef";
    std::string hex;
    for (const uint8_t byte : bytes) {
        hex.push_back(digits[byte >> 4]);
        hex.push_back(digits[byte & 15]);
    }
    return hex;
}

std::vector<uint8_t> fromHex(const std::string &hex)
{
    std::vector<uint8_t> bytes;
    for (size_t i = 0; i + 1 < hex.size(); i += 2)
        bytes.push_back(static_cast<uint8_t>(std::stoul(hex.substr(i, 2), nullptr, 16)));
    return bytes;
}

} // namespace hsmgate::test

int main(int argc, char **argv)
{
    int passed = 0;
    int failed = 0;
    for (const hsmgate::test::Case &item : hsmgate::test::cases()) {
        if (argc > 1 && std::strstr(item.name, argv[1]) == nullptr)
            continue;
        try {
            item.run();
            passed++;
        } catch (const hsmgate::test::CheckFailed &) {
            std::fprintf(stderr, "FAILED: %s\n", item.name);
            failed++;
        }
    }
    std::printf("%d passed, %d failed\n", passed, failed);
    return failed == 0 && passed > 0 ? 0 : 1;
}
