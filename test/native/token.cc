#include "token.h"

#include "check.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace hsmgate::test
{

const std::string userPin = "87654321";

namespace
{

struct Token {
    std::filesystem::path folder;
    std::shared_ptr<Module> module;
    CK_SLOT_ID slot = 0;

    Token()
    {
        std::string pattern =
            (std::filesystem::temp_directory_path() / "hsmgate-core-XXXXXX").string();
        CHECK(mkdtemp(pattern.data()) != nullptr);
        folder = pattern;
        std::filesystem::create_directory(folder / "tokens");
        const std::filesystem::path configuration = folder / "softhsm2.conf";
        std::ofstream(configuration) << "directories.tokendir = " << (folder / "tokens").string()
                                     << "\nobjectstore.backend = file\nlog.level = ERROR\n";
        setenv("SOFTHSM2_CONF", configuration.c_str(), 1);
        const char *path = std::getenv("HSMGATE_TEST_MODULE");
        const Failure failure = Module::open(
            path != nullptr ? path : "/usr/lib/softhsm/libsofthsm2.so", nullptr, module);
        if (failure.failed())
            fail(__FILE__, __LINE__, std::string(failure.call) + failure.text);
        SecretBytes soPin(std::vector<uint8_t>(8, '1'));
        SecretBytes pin(std::vector<uint8_t>(userPin.begin(), userPin.end()));
        CHECK(!module->initToken(0, "core", soPin, pin).failed());
        std::vector<SlotDescription> slots;
        CHECK(!module->slots(slots).failed());
        for (const SlotDescription &description : slots) {
            if (trimmed(description.token.label) == "core")
                slot = description.slot;
        }
    }
    ~Token()
    {
        (void)Module::release(module);
        std::error_code ignored;
        std::filesystem::remove_all(folder, ignored);
    }
};

Token &token()
{
    static Token instance;
    return instance;
}

std::string u32(uint32_t value)
{
    uint8_t bytes[4];
    for (int i = 0; i < 4; i++)
        bytes[i] = static_cast<uint8_t>(value >> (8 * i));
    return {reinterpret_cast<const char *>(bytes), 4};
}

std::span<const uint8_t> view(const std::string &text)
{
    return {reinterpret_cast<const uint8_t *>(text.data()), text.size()};
}

} // namespace

std::shared_ptr<Module> softhsm()
{
    return token().module;
}

CK_SLOT_ID tokenSlot()
{
    return token().slot;
}

const CK_FUNCTION_LIST &real()
{
    return token().module->functions();
}

Runner::Runner(const std::shared_ptr<Module> &module, unsigned sessions, size_t queueLimit)
    : pool_(
          module, tokenSlot(), sessions, [this] { ring(); }, queueLimit)
{
}

void Runner::ring()
{
    const std::lock_guard lock(mutex_);
    wakes_++;
    pending_ = true;
    rung_.notify_all();
}

unsigned Runner::wakes()
{
    const std::lock_guard lock(mutex_);
    return wakes_;
}

Failure Runner::open()
{
    SecretBytes pin(view(userPin));
    const Failure failure = pool_.open(&pin);
    CHECK(pin.empty());
    return failure;
}

std::unique_ptr<Job> Runner::make(Op op, CK_MECHANISM_TYPE mechanism, CK_OBJECT_HANDLE key,
                                  const std::string &params, const std::string &input,
                                  const std::string &aux, size_t outMax)
{
    std::unique_ptr<Job> job = pool_.borrowJob();
    job->load(view(params), view(input), view(aux), false);
    job->op = op;
    job->mechanism = mechanism;
    job->key = key;
    job->outMax = outMax;
    return job;
}

Offer Runner::submit(std::unique_ptr<Job> job)
{
    return pool_.submit(job);
}

std::vector<std::unique_ptr<Job>> Runner::collect(size_t count)
{
    std::vector<std::unique_ptr<Job>> finished;
    std::unique_lock lock(mutex_);
    while (finished.size() < count) {
        rung_.wait(lock, [this] { return pending_; });
        pending_ = false;
        lock.unlock();
        pool_.drain(finished);
        lock.lock();
    }
    return finished;
}

std::unique_ptr<Job> Runner::run(Op op, CK_MECHANISM_TYPE mechanism, CK_OBJECT_HANDLE key,
                                 const std::string &params, const std::string &input,
                                 const std::string &aux, size_t outMax)
{
    CHECK(submit(make(op, mechanism, key, params, input, aux, outMax)) == Offer::accepted);
    return std::move(collect(1).front());
}

std::string packedUlong(CK_ULONG value)
{
    return {reinterpret_cast<const char *>(&value), sizeof value};
}

std::string attribute(CK_ATTRIBUTE_TYPE type, const std::string &value)
{
    return packedUlong(type) + u32(static_cast<uint32_t>(value.size())) + value;
}

std::string flag(CK_ATTRIBUTE_TYPE type, bool value)
{
    return attribute(type, std::string(1, value ? '\1' : '\0'));
}

std::string gcmParams(const std::string &iv, const std::string &aad, bool moduleIv)
{
    std::string packed = "\1";
    packed.push_back(static_cast<char>(iv.size()));
    packed.push_back(static_cast<char>(128));
    packed.push_back(moduleIv ? '\1' : '\0');
    return packed + u32(static_cast<uint32_t>(aad.size())) + iv + aad;
}

std::string aesTemplate(const std::string &usages)
{
    return flag(CKA_TOKEN, false) + attribute(CKA_VALUE_LEN, packedUlong(32)) + usages;
}

} // namespace hsmgate::test
