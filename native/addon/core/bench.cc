/*
 * The raw speed of a module, without Node: one thread and one session each, one operation over and
 * over, for a bounded time.
 *
 *   bench --module <path> --label <token> --pin-file <path> --op <name> [--sessions n] [--seconds
 * s] [--bytes n] [--key label] [--wait 1]
 *
 * Prints one line of JSON: {"op","sessions","bytes","operations","seconds","perSecond","p50Micros",
 * "cpuMicros"}; the last two are of one operation. The PIN comes from a file (or the file that
 * HSMGATE_PIN_FILE names), never from the command line. Keys are session objects, made for the run,
 * unless --key names a token object. `gcm-encrypt`, `gcm-decrypt` and `data-key` (random bytes and
 * their encryption) use a working key derived from an AES key by CKM_AES_CBC_ENCRYPT_DATA and the
 * additional data of a ciphertext blob, as the gateway does; `derive` derives and destroys one each
 * time. With --wait it prints `ready` and begins when standard input says something. --every makes
 * it begin an operation each so many microseconds, as a server does, whose caches are cold in
 * between. `rsa<bits>-pss` is RSASSA-PSS with SHA-256.
 */
#include "module.h"
#include "packed.h"
#include "session.h"

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <vector>

using namespace hsmgate;

namespace
{

using Clock = std::chrono::steady_clock;

struct Options {
    std::string module;
    std::string label;
    std::string pinFile;
    std::string op;
    std::string key;
    unsigned sessions = 2;
    double seconds = 2;
    double everyMicros = 0;
    size_t bytes = 32;
    bool waits = false;
};

constexpr CK_MECHANISM_TYPE CKM_RSA_PKCS_PSS = 0x0d;

/* Header of the blob, salt and IV with their lengths, an empty encryption context. */
constexpr size_t additionalBytes = 50 + 1 + 32 + 1 + 12 + 4;

[[noreturn]] void stop(const std::string &text)
{
    std::fprintf(stderr, "bench: %s\n", text.c_str());
    std::_Exit(1);
}

void require(CK_RV rv, const char *call)
{
    if (rv == CKR_OK)
        return;
    char number[32];
    std::snprintf(number, sizeof number, "0x%lx", rv);
    stop(std::string(call) + " failed: CKR " + number);
}

Options parseOptions(int argc, char **argv)
{
    Options options;
    const char *pinFile = std::getenv("HSMGATE_PIN_FILE");
    options.pinFile = pinFile != nullptr ? pinFile : "";
    for (int i = 1; i + 1 < argc; i += 2) {
        const std::string name = argv[i];
        const std::string value = argv[i + 1];
        if (name == "--module")
            options.module = value;
        else if (name == "--label")
            options.label = value;
        else if (name == "--pin-file")
            options.pinFile = value;
        else if (name == "--op")
            options.op = value;
        else if (name == "--wait")
            options.waits = value == "1";
        else if (name == "--key")
            options.key = value;
        else if (name == "--every")
            options.everyMicros = std::strtod(value.c_str(), nullptr);
        else if (name == "--sessions")
            options.sessions = static_cast<unsigned>(std::strtoul(value.c_str(), nullptr, 10));
        else if (name == "--seconds")
            options.seconds = std::strtod(value.c_str(), nullptr);
        else if (name == "--bytes")
            options.bytes = std::strtoul(value.c_str(), nullptr, 10);
        else
            stop("unknown option " + name);
    }
    if (options.module.empty() || options.label.empty() || options.pinFile.empty() ||
        options.op.empty())
        stop("--module, --label, --pin-file and --op are needed");
    if (options.sessions < 1 || options.sessions > 256 || !(options.seconds > 0) ||
        options.seconds > 600 || options.bytes < 1 || options.bytes > 1024 * 1024)
        stop("--sessions 1 to 256, --seconds up to 600, --bytes up to 1048576");
    return options;
}

SecretBytes readPin(const std::string &path)
{
    std::ifstream file(path, std::ios::binary);
    SecretBytes pin(256);
    file.read(reinterpret_cast<char *>(pin.data()), 256);
    size_t length = static_cast<size_t>(file.gcount());
    while (length > 0 && (pin.data()[length - 1] == '\n' || pin.data()[length - 1] == '\r'))
        length--;
    if (length == 0)
        stop("no PIN in " + path);
    pin.resize(length);
    return pin;
}

/* A template whose values live as long as it does. */
class Template
{
public:
    Template &flag(CK_ATTRIBUTE_TYPE type, bool value)
    {
        return bytes(type, std::string(1, value ? '\1' : '\0'));
    }
    Template &number(CK_ATTRIBUTE_TYPE type, CK_ULONG value)
    {
        return bytes(type, std::string(reinterpret_cast<const char *>(&value), sizeof value));
    }
    Template &bytes(CK_ATTRIBUTE_TYPE type, std::string value)
    {
        values_.push_back({type, std::move(value)});
        return *this;
    }
    std::vector<CK_ATTRIBUTE> list()
    {
        std::vector<CK_ATTRIBUTE> attributes;
        for (auto &[type, value] : values_)
            attributes.push_back({type, value.data(), value.size()});
        return attributes;
    }

private:
    std::vector<std::pair<CK_ATTRIBUTE_TYPE, std::string>> values_;
};

/* One session at work: its keys, its buffers, one operation. */
struct Worker {
    const Options &options;
    Session session;
    const CK_FUNCTION_LIST &f;
    CK_OBJECT_HANDLE key = 0;
    CK_OBJECT_HANDLE base = 0;
    std::vector<CK_BYTE> input;
    std::vector<CK_BYTE> ciphertext;
    std::vector<CK_BYTE> output;
    CK_BYTE iv[12] = {1};
    CK_BYTE additional[additionalBytes] = {2};
    CK_GCM_PARAMS gcm{iv, sizeof iv, 96, additional, sizeof additional, 128};
    CK_RSA_PKCS_PSS_PARAMS pss{CKM_SHA256, CKG_MGF1_SHA256, 32};
    uint64_t counter = 0;
    std::vector<float> micros;

    Worker(const Options &chosen, const Module &module, CK_SLOT_ID slot)
        : options(chosen), session(module, slot), f(session.functions()), input(chosen.bytes, 7),
          output(chosen.bytes + 1024)
    {
        require(session.open(), "C_OpenSession");
    }

    CK_SESSION_HANDLE h() const { return session.handle(); }

    CK_OBJECT_HANDLE find()
    {
        Template wanted;
        wanted.bytes(CKA_LABEL, options.key);
        if (options.op.find("sign") != std::string::npos || options.op == "hmac")
            wanted.flag(CKA_SIGN, true);
        std::vector<CK_ATTRIBUTE> list = wanted.list();
        CK_OBJECT_HANDLE handle = 0;
        CK_ULONG count = 0;
        require(f.C_FindObjectsInit(h(), list.data(), list.size()), "C_FindObjectsInit");
        require(f.C_FindObjects(h(), &handle, 1, &count), "C_FindObjects");
        require(f.C_FindObjectsFinal(h()), "C_FindObjectsFinal");
        if (count == 0)
            stop("no such key: " + options.key);
        return handle;
    }

    CK_OBJECT_HANDLE generate(CK_MECHANISM_TYPE type, Template &&wanted)
    {
        CK_MECHANISM mechanism{type, nullptr, 0};
        std::vector<CK_ATTRIBUTE> list = wanted.flag(CKA_TOKEN, false).list();
        CK_OBJECT_HANDLE handle = 0;
        require(f.C_GenerateKey(h(), &mechanism, list.data(), list.size(), &handle),
                "C_GenerateKey");
        return handle;
    }

    CK_OBJECT_HANDLE generatePair(CK_MECHANISM_TYPE type, Template &&publicKey)
    {
        CK_MECHANISM mechanism{type, nullptr, 0};
        Template privateKey;
        std::vector<CK_ATTRIBUTE> publicList = publicKey.flag(CKA_TOKEN, false).list();
        std::vector<CK_ATTRIBUTE> privateList =
            privateKey.flag(CKA_TOKEN, false).flag(CKA_SIGN, true).flag(CKA_DECRYPT, true).list();
        CK_OBJECT_HANDLE publicHandle = 0;
        CK_OBJECT_HANDLE handle = 0;
        require(f.C_GenerateKeyPair(h(), &mechanism, publicList.data(), publicList.size(),
                                    privateList.data(), privateList.size(), &publicHandle, &handle),
                "C_GenerateKeyPair");
        return handle;
    }

    CK_OBJECT_HANDLE derive()
    {
        CK_BYTE salt[32] = {};
        putU64(salt, ++counter);
        CK_AES_CBC_ENCRYPT_DATA_PARAMS params{{}, salt, sizeof salt};
        CK_MECHANISM mechanism{CKM_AES_CBC_ENCRYPT_DATA, &params, sizeof params};
        Template wanted;
        std::vector<CK_ATTRIBUTE> list = wanted.flag(CKA_TOKEN, false)
                                             .number(CKA_CLASS, CKO_SECRET_KEY)
                                             .number(CKA_KEY_TYPE, CKK_AES)
                                             .number(CKA_VALUE_LEN, 32)
                                             .flag(CKA_ENCRYPT, true)
                                             .flag(CKA_DECRYPT, true)
                                             .list();
        CK_OBJECT_HANDLE handle = 0;
        require(f.C_DeriveKey(h(), &mechanism, base, list.data(), list.size(), &handle),
                "C_DeriveKey");
        return handle;
    }

    void prepare()
    {
        const std::string &op = options.op;
        const bool named = !options.key.empty();
        if (op.starts_with("rsa")) {
            const CK_ULONG bits = std::strtoul(op.c_str() + 3, nullptr, 10);
            Template wanted;
            wanted.number(CKA_MODULUS_BITS, bits)
                .bytes(CKA_PUBLIC_EXPONENT, std::string("\1\0\1", 3));
            key = named ? find() : generatePair(CKM_RSA_PKCS_KEY_PAIR_GEN, std::move(wanted));
        } else if (op == "p256-sign" || op == "p384-sign") {
            const std::string curve = op == "p256-sign"
                                          ? std::string("\6\x8\x2a\x86\x48\xce\x3d\3\1\7", 10)
                                          : std::string("\6\5\x2b\x81\4\0\x22", 7);
            Template wanted;
            wanted.bytes(CKA_EC_PARAMS, curve);
            key = named ? find() : generatePair(CKM_EC_KEY_PAIR_GEN, std::move(wanted));
        } else if (op == "hmac") {
            Template wanted;
            wanted.number(CKA_VALUE_LEN, 32).flag(CKA_SIGN, true);
            key = named ? find() : generate(CKM_GENERIC_SECRET_KEY_GEN, std::move(wanted));
        } else if (op.starts_with("gcm") || op == "derive" || op == "data-key") {
            Template wanted;
            wanted.number(CKA_VALUE_LEN, 32).flag(CKA_DERIVE, true);
            base = named ? find() : generate(CKM_AES_KEY_GEN, std::move(wanted));
            key = derive();
            ciphertext.resize(input.size() + 16);
            CK_ULONG length = ciphertext.size();
            CK_MECHANISM mechanism{CKM_AES_GCM, &gcm, sizeof gcm};
            require(f.C_EncryptInit(h(), &mechanism, key), "C_EncryptInit");
            require(f.C_Encrypt(h(), input.data(), input.size(), ciphertext.data(), &length),
                    "C_Encrypt");
        } else if (op != "random") {
            stop("unknown operation " + op);
        }
    }

    void sign(CK_MECHANISM_TYPE type, size_t length, void *params = nullptr, CK_ULONG bytes = 0)
    {
        CK_MECHANISM mechanism{type, params, bytes};
        CK_ULONG outLength = output.size();
        require(f.C_SignInit(h(), &mechanism, key), "C_SignInit");
        require(f.C_Sign(h(), input.data(), length, output.data(), &outLength), "C_Sign");
    }

    void perform()
    {
        const std::string &op = options.op;
        CK_MECHANISM mechanism{CKM_AES_GCM, &gcm, sizeof gcm};
        CK_ULONG length = output.size();
        if (op == "random") {
            require(f.C_GenerateRandom(h(), output.data(), options.bytes), "C_GenerateRandom");
        } else if (op.ends_with("-pss")) {
            sign(CKM_RSA_PKCS_PSS, 32, &pss, sizeof pss);
        } else if (op.starts_with("rsa")) {
            sign(CKM_RSA_PKCS, std::min<size_t>(options.bytes, 51));
        } else if (op == "p256-sign" || op == "p384-sign") {
            sign(CKM_ECDSA, std::min<size_t>(options.bytes, op == "p256-sign" ? 32 : 48));
        } else if (op == "hmac") {
            sign(CKM_SHA256_HMAC, options.bytes);
        } else if (op == "derive") {
            require(f.C_DestroyObject(h(), derive()), "C_DestroyObject");
        } else if (op == "gcm-encrypt" || op == "data-key") {
            if (op == "data-key")
                require(f.C_GenerateRandom(h(), input.data(), input.size()), "C_GenerateRandom");
            putU64(iv, ++counter);
            require(f.C_EncryptInit(h(), &mechanism, key), "C_EncryptInit");
            require(f.C_Encrypt(h(), input.data(), input.size(), output.data(), &length),
                    "C_Encrypt");
        } else {
            require(f.C_DecryptInit(h(), &mechanism, key), "C_DecryptInit");
            require(f.C_Decrypt(h(), ciphertext.data(), ciphertext.size(), output.data(), &length),
                    "C_Decrypt");
        }
    }
};

double cpuSeconds()
{
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval &time) {
        return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
    };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

} // namespace

int main(int argc, char **argv)
{
    const Options options = parseOptions(argc, argv);
    std::shared_ptr<Module> module;
    const Failure failure = Module::open(options.module.c_str(), nullptr, module);
    if (failure.failed())
        failure.text.empty() ? require(failure.rv, failure.call) : stop(failure.text);
    std::vector<SlotDescription> slots;
    require(module->slots(slots).rv, "C_GetSlotList");
    std::optional<CK_SLOT_ID> slot;
    for (const SlotDescription &description : slots) {
        if (description.tokenPresent && trimmed(description.token.label) == options.label)
            slot = description.slot;
    }
    if (!slot)
        stop("no token with label " + options.label);
    Session anchor(*module, *slot);
    require(anchor.open(), "C_OpenSession");
    {
        SecretBytes pin = readPin(options.pinFile);
        require(module->functions().C_Login(anchor.handle(), CKU_USER, pin.data(), pin.size()),
                "C_Login");
    }

    std::vector<std::unique_ptr<Worker>> workers;
    for (unsigned i = 0; i < options.sessions; i++) {
        workers.push_back(std::make_unique<Worker>(options, *module, *slot));
        workers.back()->prepare();
    }
    if (options.waits) {
        std::puts("ready");
        std::fflush(stdout);
        (void)std::getchar();
    }
    std::atomic<uint64_t> operations{0};
    const double cpuBefore = cpuSeconds();
    const Clock::time_point start = Clock::now();
    const Clock::time_point end = start + std::chrono::duration_cast<Clock::duration>(
                                              std::chrono::duration<double>(options.seconds));
    std::vector<std::thread> threads;
    for (const std::unique_ptr<Worker> &worker : workers) {
        threads.emplace_back([&worker, &operations, &options, end] {
            worker->micros.reserve(1 << 20);
            Clock::time_point before = Clock::now(), due = before;
            while (before < end) {
                worker->perform();
                const Clock::time_point after = Clock::now();
                worker->micros.push_back(
                    std::chrono::duration<float, std::micro>(after - before).count());
                if (options.everyMicros > 0) {
                    due += std::chrono::duration_cast<Clock::duration>(
                        std::chrono::duration<double, std::micro>(options.everyMicros));
                    std::this_thread::sleep_until(due);
                }
                before = Clock::now();
            }
            operations += worker->micros.size();
        });
    }
    for (std::thread &thread : threads)
        thread.join();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    const double cpu = cpuSeconds() - cpuBefore;
    std::vector<float> micros;
    for (const std::unique_ptr<Worker> &worker : workers)
        micros.insert(micros.end(), worker->micros.begin(), worker->micros.end());
    std::sort(micros.begin(), micros.end());
    const double count = static_cast<double>(std::max<uint64_t>(operations.load(), 1));
    std::printf("{\"op\":\"%s\",\"sessions\":%u,\"bytes\":%zu,\"operations\":%llu,\"seconds\":%.3f,"
                "\"perSecond\":%.0f,\"p50Micros\":%.1f,\"cpuMicros\":%.2f}\n",
                options.op.c_str(), options.sessions, options.bytes,
                static_cast<unsigned long long>(operations.load()), seconds,
                static_cast<double>(operations.load()) / seconds,
                micros.empty() ? 0 : static_cast<double>(micros[micros.size() / 2]),
                cpu * 1e6 / count);
    workers.clear();
    anchor.close();
    (void)Module::release(module);
    return 0;
}
