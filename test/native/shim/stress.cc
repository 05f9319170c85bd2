/*
 * Eight threads call the shim while a ninth changes its rules: run under ThreadSanitizer by `make
 * shim-tsan`. Ends with 0 when every call came back and the rules acted.
 */
#include "functions.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

extern "C" CK_RV C_GetFunctionList(CK_FUNCTION_LIST **list);

namespace
{

constexpr int threadCount = 8;
constexpr int roundsPerThread = 300;

const char *const ruleSets[] = {
    "",
    "C_* chance=0.2 rv=CKR_FUNCTION_FAILED\n",
    "C_GenerateRandom delay=uniform:0:0.2\nC_GenerateRandom flip every=2 scope=all\n",
    "C_GenerateRandom every=5 drop\nC_OpenSession sessions=6\n",
    "C_Find* every=7 drop=all\nC_GetTokenInfo in=one log\nC_GenerateRandom over=500 rv=0x30\n",
    "C_FindObjects every=3 stale\nC_Login logout after\n",
};

void work(const CK_FUNCTION_LIST &f, CK_SLOT_ID slot, std::atomic<int> &answered)
{
    CK_SESSION_HANDLE session = CK_INVALID_HANDLE;
    CK_BYTE bytes[32];
    CK_OBJECT_HANDLE handles[4];
    CK_ULONG found = 0;
    CK_TOKEN_INFO token;
    for (int i = 0; i < roundsPerThread; i++) {
        if (i % 10 == 0) {
            (void)f.C_CloseSession(session);
            (void)f.C_OpenSession(slot, CKF_SERIAL_SESSION, nullptr, nullptr, &session);
        }
        (void)f.C_GenerateRandom(session, bytes, sizeof bytes);
        (void)f.C_GetTokenInfo(slot, &token);
        if (f.C_FindObjectsInit(session, nullptr, 0) == CKR_OK) {
            (void)f.C_FindObjects(session, handles, 4, &found);
            (void)f.C_FindObjectsFinal(session);
        }
        answered++;
    }
    (void)f.C_CloseSession(session);
}

} // namespace

int main()
{
    std::string folder = (std::filesystem::temp_directory_path() / "hsmgate-shim-XXXXXX").string();
    if (mkdtemp(folder.data()) == nullptr)
        return 1;
    std::filesystem::create_directory(folder + "/tokens");
    std::ofstream(folder + "/softhsm2.conf")
        << "directories.tokendir = " << folder << "/tokens\nobjectstore.backend = file\n";
    setenv("SOFTHSM2_CONF", (folder + "/softhsm2.conf").c_str(), 1);
    setenv("HSMGATE_SHIM_MODULE", "/usr/lib/softhsm/libsofthsm2.so", 0);
    setenv("HSMGATE_SHIM_RULES", (folder + "/rules").c_str(), 1);
    setenv("HSMGATE_SHIM_LOG", (folder + "/log").c_str(), 1);

    CK_FUNCTION_LIST *f = nullptr;
    CK_C_INITIALIZE_ARGS args{};
    args.flags = CKF_OS_LOCKING_OK;
    if (C_GetFunctionList(&f) != CKR_OK || f->C_Initialize(&args) != CKR_OK)
        return 1;
    CK_UTF8CHAR label[33] = "stress                          ";
    CK_UTF8CHAR pin[] = "12345678";
    CK_SLOT_ID slots[8];
    CK_ULONG slotCount = 8;
    if (f->C_InitToken(0, pin, 8, label) != CKR_OK ||
        f->C_GetSlotList(CK_TRUE, slots, &slotCount) != CKR_OK)
        return 1;

    std::atomic<int> answered{0};
    std::atomic<bool> done{false};
    std::vector<std::thread> threads;
    for (int i = 0; i < threadCount; i++)
        threads.emplace_back(work, std::cref(*f), slots[0], std::ref(answered));
    std::thread changer([&] {
        for (size_t i = 0; !done; i++) {
            std::ofstream(folder + "/rules.new")
                << ruleSets[i % std::size(ruleSets)] << std::string(i % 100, '\n');
            std::filesystem::rename(folder + "/rules.new", folder + "/rules");
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
        }
    });
    for (std::thread &thread : threads)
        thread.join();
    done = true;
    changer.join();
    (void)f->C_Finalize(nullptr);
    const bool acted = std::filesystem::file_size(folder + "/log") > 0;
    std::filesystem::remove_all(folder);
    std::printf("%d rounds\n", answered.load());
    return answered == threadCount * roundsPerThread && acted ? 0 : 1;
}
