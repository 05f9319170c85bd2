/* The pool when the module misbehaves: real SoftHSM2 with single functions replaced. Every case
 * sets its own counters. */
#include "check.h"
#include "session_objects.h"
#include "token.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <string>
#include <vector>

using namespace hsmgate;
using namespace hsmgate::test;

namespace
{

const std::string iv(12, '\7');

/* Replacements are plain functions, so what they count and obey is global; atomic, because session
 * threads call them. */
std::atomic<int> logins;
std::atomic<int> opened;
std::atomic<int> failures;
std::atomic<int> calls;
std::atomic<int> cancels;
std::atomic<unsigned long> answer;

void resetCounters(CK_RV rv = CKR_OK, int times = 0)
{
    logins = 0;
    opened = 0;
    calls = 0;
    cancels = 0;
    answer = rv;
    failures = times;
}

bool failNow()
{
    return failures.fetch_sub(1) > 0;
}

CK_RV countingLogin(CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_UTF8CHAR *pin, CK_ULONG length)
{
    logins++;
    return answer != CKR_OK ? answer.load() : real().C_Login(session, user, pin, length);
}

CK_RV countingOpen(CK_SLOT_ID slot, CK_FLAGS flags, CK_VOID_PTR application, CK_VOID_PTR notify,
                   CK_SESSION_HANDLE *session)
{
    opened++;
    return real().C_OpenSession(slot, flags, application, notify, session);
}

CK_RV limitedOpen(CK_SLOT_ID slot, CK_FLAGS flags, CK_VOID_PTR application, CK_VOID_PTR notify,
                  CK_SESSION_HANDLE *session)
{
    /* The anchor and two more. */
    return opened++ < 3 ? real().C_OpenSession(slot, flags, application, notify, session)
                        : CKR_SESSION_COUNT;
}

CK_RV closingRandom(CK_SESSION_HANDLE session, CK_BYTE *out, CK_ULONG length)
{
    calls++;
    if (failNow())
        (void)real().C_CloseSession(session);
    return real().C_GenerateRandom(session, out, length);
}

CK_RV failingRandom(CK_SESSION_HANDLE session, CK_BYTE *out, CK_ULONG length)
{
    calls++;
    return failNow() ? answer.load() : real().C_GenerateRandom(session, out, length);
}

CK_RV failingGenerate(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_ATTRIBUTE *attributes,
                      CK_ULONG count, CK_OBJECT_HANDLE *key)
{
    calls++;
    return failNow() ? answer.load()
                     : real().C_GenerateKey(session, mechanism, attributes, count, key);
}

/* Fails and leaves what C_SignInit started. */
CK_RV lazySign(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG length, CK_BYTE *signature,
               CK_ULONG *signatureLength)
{
    return failNow() ? CKR_FUNCTION_FAILED
                     : real().C_Sign(session, data, length, signature, signatureLength);
}

CK_RV stubbornFinal(CK_SESSION_HANDLE, CK_BYTE *, CK_ULONG *)
{
    calls++;
    return CKR_GENERAL_ERROR;
}

CK_RV countingFinal(CK_SESSION_HANDLE session, CK_BYTE *out, CK_ULONG *length)
{
    calls++;
    return real().C_SignFinal(session, out, length);
}

CK_RV cancelling(CK_SESSION_HANDLE session, CK_FLAGS flags)
{
    cancels++;
    uint8_t scratch[512];
    CK_ULONG length = sizeof scratch;
    return flags == CKF_SIGN ? real().C_SignFinal(session, scratch, &length)
                             : CKR_FUNCTION_NOT_SUPPORTED;
}

/* A key encapsulation mechanism of the simplest kind: the ciphertext is the secret. */
CK_RV unwrappingNothing(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE,
                        CK_ATTRIBUTE *attributes, CK_ULONG count, CK_BYTE *ciphertext,
                        CK_ULONG length, CK_OBJECT_HANDLE *secret)
{
    calls++;
    if (mechanism->mechanism != 0x17)
        return CKR_MECHANISM_INVALID;
    std::vector<CK_ATTRIBUTE> made(attributes, attributes + count);
    made.push_back({CKA_VALUE, ciphertext, length});
    return real().C_CreateObject(session, made.data(), made.size(), secret);
}

/* Says "too small" without saying how much it wants. */
CK_RV taciturnEncrypt(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG length, CK_BYTE *out,
                      CK_ULONG *outLength)
{
    calls++;
    if (failNow()) {
        *outLength = CK_UNAVAILABLE_INFORMATION;
        return CKR_BUFFER_TOO_SMALL;
    }
    return real().C_Encrypt(session, data, length, out, outLength);
}

/* Claims more output than there is room for. */
CK_RV boastingEncrypt(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG length, CK_BYTE *out,
                      CK_ULONG *outLength)
{
    const CK_RV rv = real().C_Encrypt(session, data, length, out, outLength);
    *outLength = 1UL << 40;
    return rv;
}

/* Encrypts something else. */
CK_RV lyingEncrypt(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG length, CK_BYTE *out,
                   CK_ULONG *outLength)
{
    std::vector<CK_BYTE> changed(data, data + length);
    changed[0] ^= 1;
    return real().C_Encrypt(session, changed.data(), length, out, outLength);
}

CK_RV countingSignInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key)
{
    calls++;
    return real().C_SignInit(session, mechanism, key);
}

Module *forgottenModule = nullptr;

/* Signs while another thread finds that the module closed its session. */
CK_RV forgettingSign(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG length, CK_BYTE *signature,
                     CK_ULONG *signatureLength)
{
    const CK_RV rv = real().C_Sign(session, data, length, signature, signatureLength);
    SessionObjects::instance().forgetToken(Session(*forgottenModule, tokenSlot()));
    return rv;
}

std::mutex gate;

CK_RV gatedRandom(CK_SESSION_HANDLE session, CK_BYTE *out, CK_ULONG length)
{
    calls++;
    const std::lock_guard wait(gate);
    return real().C_GenerateRandom(session, out, length);
}

CK_OBJECT_HANDLE makeMacKey(Runner &runner)
{
    const auto job = runner.run(Op::generateKey, CKM_GENERIC_SECRET_KEY_GEN, 0, "", "",
                                flag(CKA_TOKEN, false) + attribute(CKA_VALUE_LEN, packedUlong(32)) +
                                    flag(CKA_SIGN, true),
                                0);
    CHECK_EQUAL(job->rv, CKR_OK);
    return job->handle;
}

CK_OBJECT_HANDLE makeAesKey(Runner &runner)
{
    const auto job = runner.run(Op::generateKey, CKM_AES_KEY_GEN, 0, "", "",
                                aesTemplate(flag(CKA_ENCRYPT, true) + flag(CKA_DECRYPT, true)), 0);
    CHECK_EQUAL(job->rv, CKR_OK);
    return job->handle;
}

} // namespace

TEST("a refused PIN is tried exactly once and leaves no session open")
{
    resetCounters(CKR_PIN_INCORRECT);
    Wired wired;
    wired.functions.C_Login = countingLogin;
    wired.functions.C_OpenSession = countingOpen;
    Runner runner(wired.module, 4);
    const Failure failure = runner.open();
    CHECK_EQUAL(failure.rv, CKR_PIN_INCORRECT);
    CHECK_EQUAL(std::string(failure.call), std::string("C_Login"));
    CHECK_EQUAL(logins.load(), 1);
    CHECK_EQUAL(opened.load(), 1);
}

TEST("a user who is logged in already is success")
{
    resetCounters(CKR_USER_ALREADY_LOGGED_IN);
    Wired wired;
    wired.functions.C_Login = countingLogin;
    Runner runner(wired.module, 1);
    CHECK(!runner.open().failed());
    CHECK_EQUAL(logins.load(), 1);
}

TEST("a login that was lost is reported and never repeated")
{
    resetCounters();
    Wired wired;
    wired.functions.C_Login = countingLogin;
    wired.functions.C_GenerateRandom = failingRandom;
    Runner runner(wired.module, 1);
    CHECK(!runner.open().failed());
    resetCounters(CKR_USER_NOT_LOGGED_IN, 1);
    CHECK_EQUAL(runner.run(Op::random, 0, 0, "", "", "", 8)->rv, CKR_USER_NOT_LOGGED_IN);
    CHECK_EQUAL(calls.load(), 1);
    CHECK_EQUAL(logins.load(), 0);
}

TEST("a login that was lost is told from an object that is not there")
{
    Runner runner(softhsm(), 1);
    CHECK(!runner.open().failed());
    const std::string nothing = attribute(CKA_LABEL, "no such object");
    const auto find = [&] { return runner.run(Op::find, 0, 0, "", "", nothing, 64)->rv; };
    const auto destroy = [&] { return runner.run(Op::destroy, 0, 0xffff, "", "", "", 0)->rv; };
    CHECK_EQUAL(find(), CKR_OK);
    CHECK_EQUAL(destroy(), CKR_OBJECT_HANDLE_INVALID);
    CK_SESSION_HANDLE other = CK_INVALID_HANDLE;
    CHECK_EQUAL(real().C_OpenSession(tokenSlot(), CKF_SERIAL_SESSION, nullptr, nullptr, &other),
                CKR_OK);
    CHECK_EQUAL(real().C_Logout(other), CKR_OK);
    CHECK_EQUAL(real().C_CloseSession(other), CKR_OK);
    CHECK_EQUAL(find(), CKR_USER_NOT_LOGGED_IN);
    CHECK_EQUAL(destroy(), CKR_USER_NOT_LOGGED_IN);
}

TEST("a pool makes do with the sessions that the token grants")
{
    resetCounters();
    Wired wired;
    wired.functions.C_OpenSession = limitedOpen;
    Runner runner(wired.module, 6);
    CHECK(!runner.open().failed());
    CHECK_EQUAL(runner.pool().depth().sessions, size_t{2});
    CHECK_EQUAL(runner.run(Op::random, 0, 0, "", "", "", 8)->rv, CKR_OK);
}

TEST("a session that the module closed is reopened and the job repeated once")
{
    Wired wired;
    wired.functions.C_OpenSession = countingOpen;
    wired.functions.C_GenerateRandom = closingRandom;
    Runner runner(wired.module, 1);
    CHECK(!runner.open().failed());
    resetCounters(CKR_OK, 1);
    CHECK_EQUAL(runner.run(Op::random, 0, 0, "", "", "", 8)->rv, CKR_OK);
    CHECK_EQUAL(calls.load(), 2);
    CHECK_EQUAL(opened.load(), 1);
    resetCounters(CKR_OK, 2);
    CHECK_EQUAL(runner.run(Op::random, 0, 0, "", "", "", 8)->rv, CKR_SESSION_HANDLE_INVALID);
    CHECK_EQUAL(calls.load(), 2);
    CHECK_EQUAL(runner.run(Op::random, 0, 0, "", "", "", 8)->rv, CKR_OK);
}

TEST("a creating job is not repeated, but its session is reopened")
{
    Wired wired;
    wired.functions.C_OpenSession = countingOpen;
    wired.functions.C_GenerateKey = failingGenerate;
    Runner runner(wired.module, 1);
    CHECK(!runner.open().failed());
    resetCounters(CKR_SESSION_CLOSED, 1);
    const auto job = runner.run(Op::generateKey, CKM_AES_KEY_GEN, 0, "", "", aesTemplate(""), 0);
    CHECK_EQUAL(job->rv, CKR_SESSION_CLOSED);
    CHECK_EQUAL(job->handle, CK_OBJECT_HANDLE{0});
    CHECK_EQUAL(calls.load(), 1);
    CHECK_EQUAL(opened.load(), 1);
}

TEST("an operation that an error left active is ended by its Final, without losing the session")
{
    Wired wired;
    wired.functions.C_OpenSession = countingOpen;
    wired.functions.C_Sign = lazySign;
    wired.functions.C_SignFinal = countingFinal;
    Runner runner(wired.module, 1);
    CHECK(!runner.open().failed());
    const CK_OBJECT_HANDLE key = makeMacKey(runner);
    resetCounters(CKR_OK, 1);
    CHECK_EQUAL(runner.run(Op::sign, CKM_SHA256_HMAC, key, "", "x", "", 32)->rv,
                CKR_FUNCTION_FAILED);
    CHECK_EQUAL(calls.load(), 1);
    CHECK_EQUAL(runner.run(Op::sign, CKM_SHA256_HMAC, key, "", "x", "", 32)->rv, CKR_OK);
    CHECK_EQUAL(opened.load(), 0);
}

TEST("a module of version 3 is asked to cancel instead")
{
    Wired wired({.sessionCancel = cancelling});
    wired.functions.C_OpenSession = countingOpen;
    wired.functions.C_Sign = lazySign;
    wired.functions.C_SignFinal = countingFinal;
    Runner runner(wired.module, 1);
    CHECK(!runner.open().failed());
    const CK_OBJECT_HANDLE key = makeMacKey(runner);
    resetCounters(CKR_OK, 1);
    CHECK_EQUAL(runner.run(Op::sign, CKM_SHA256_HMAC, key, "", "x", "", 32)->rv,
                CKR_FUNCTION_FAILED);
    CHECK_EQUAL(cancels.load(), 1);
    CHECK_EQUAL(calls.load(), 0);
    CHECK_EQUAL(runner.run(Op::sign, CKM_SHA256_HMAC, key, "", "x", "", 32)->rv, CKR_OK);
    CHECK_EQUAL(opened.load(), 0);
}

TEST("a module of version 3.2 decapsulates, and the secret object is gone")
{
    Wired wired({.decapsulateKey = unwrappingNothing});
    Runner runner(wired.module, 1);
    CHECK(!runner.open().failed());
    const CK_OBJECT_HANDLE key = makeMacKey(runner);
    const std::string secret = attribute(CKA_CLASS, packedUlong(CKO_SECRET_KEY)) +
                               attribute(CKA_KEY_TYPE, packedUlong(CKK_GENERIC_SECRET)) +
                               flag(CKA_TOKEN, false) + flag(CKA_SENSITIVE, false) +
                               flag(CKA_EXTRACTABLE, true) + attribute(CKA_LABEL, "decapsulated");
    resetCounters(CKR_OK, 0);
    const auto opened = runner.run(Op::decapsulate, 0x17, key, "", "the secret", secret, 32);
    CHECK_EQUAL(opened->rv, CKR_OK);
    CHECK_EQUAL(
        std::string(reinterpret_cast<const char *>(opened->output.data()), opened->outputLength),
        std::string("the secret"));
    CHECK_EQUAL(opened->handle, CK_OBJECT_HANDLE{0});
    CHECK_EQUAL(calls.load(), 1);
    const std::string named = attribute(CKA_LABEL, "decapsulated");
    CHECK_EQUAL(runner.run(Op::find, 0, 0, "", "", named, 80)->outputLength, size_t{0});
    CHECK_EQUAL(runner.run(Op::decapsulate, 0x18, key, "", "x", secret, 32)->rv,
                CKR_MECHANISM_INVALID);
}

TEST("a module before version 3.2 decapsulates nothing")
{
    Wired wired;
    Runner runner(wired.module, 1);
    CHECK(!runner.open().failed());
    CHECK_EQUAL(runner.run(Op::decapsulate, 0x17, makeMacKey(runner), "", "x", "", 32)->rv,
                CKR_FUNCTION_NOT_SUPPORTED);
}

TEST("a session that cannot be settled is reopened")
{
    Wired wired;
    wired.functions.C_OpenSession = countingOpen;
    wired.functions.C_Sign = lazySign;
    wired.functions.C_SignFinal = stubbornFinal;
    Runner runner(wired.module, 1);
    Runner owner(softhsm(), 1);
    CHECK(!runner.open().failed());
    CHECK(!owner.open().failed());
    /* The key belongs to another session and survives. */
    const CK_OBJECT_HANDLE key = makeMacKey(owner);
    resetCounters(CKR_OK, 1);
    CHECK_EQUAL(runner.run(Op::sign, CKM_SHA256_HMAC, key, "", "x", "", 32)->rv,
                CKR_FUNCTION_FAILED);
    CHECK_EQUAL(opened.load(), 1);
    CHECK_EQUAL(runner.run(Op::sign, CKM_SHA256_HMAC, key, "", "x", "", 32)->rv, CKR_OK);
}

TEST("a key whose session was closed is not looked for under its old handle")
{
    Wired wired;
    wired.functions.C_GenerateRandom = closingRandom;
    wired.functions.C_SignInit = countingSignInit;
    Runner runner(wired.module, 1);
    CHECK(!runner.open().failed());
    const CK_OBJECT_HANDLE key = makeMacKey(runner);
    resetCounters(CKR_OK, 1);
    CHECK_EQUAL(runner.run(Op::random, 0, 0, "", "", "", 8)->rv, CKR_OK);
    resetCounters(CKR_OK, 0);
    CHECK_EQUAL(runner.run(Op::sign, CKM_SHA256_HMAC, key, "", "x", "", 32)->rv,
                CKR_KEY_HANDLE_INVALID);
    CHECK_EQUAL(runner.run(Op::destroy, 0, key, "", "", "", 0)->rv, CKR_OBJECT_HANDLE_INVALID);
    CHECK_EQUAL(calls.load(), 0);
    const CK_OBJECT_HANDLE next = makeMacKey(runner);
    CHECK(next != key);
    CHECK_EQUAL(runner.run(Op::sign, CKM_SHA256_HMAC, next, "", "x", "", 32)->rv, CKR_OK);
    CHECK_EQUAL(calls.load(), 1);
}

TEST("a result of a key whose session was closed meanwhile does not count")
{
    Wired wired;
    wired.functions.C_Sign = forgettingSign;
    forgottenModule = wired.module.get();
    Runner runner(wired.module, 2);
    CHECK(!runner.open().failed());
    const CK_OBJECT_HANDLE key = makeMacKey(runner);
    resetCounters(CKR_OK, 1);
    const auto job = runner.run(Op::sign, CKM_SHA256_HMAC, key, "", "x", "", 32);
    CHECK_EQUAL(job->rv, CKR_KEY_HANDLE_INVALID);
    CHECK_EQUAL(job->outputLength, size_t{0});
}

TEST("a module that doesn't say how much room it wants gets more once")
{
    Wired wired;
    wired.functions.C_Encrypt = taciturnEncrypt;
    Runner runner(wired.module, 1);
    CHECK(!runner.open().failed());
    const CK_OBJECT_HANDLE key = makeAesKey(runner);
    resetCounters(CKR_OK, 1);
    const auto job = runner.run(Op::encrypt, CKM_AES_GCM, key, gcmParams(iv, ""), "abc", "", 4);
    CHECK_EQUAL(job->rv, CKR_OK);
    CHECK_EQUAL(job->outputLength, size_t{19});
    resetCounters(CKR_OK, 2);
    CHECK_EQUAL(runner.run(Op::encrypt, CKM_AES_GCM, key, gcmParams(iv, ""), "abc", "", 4)->rv,
                CKR_BUFFER_TOO_SMALL);
    CHECK_EQUAL(calls.load(), 2);
}

TEST("an output length beyond the buffer is an error, not a read beyond it")
{
    resetCounters();
    Wired wired;
    wired.functions.C_Encrypt = boastingEncrypt;
    Runner runner(wired.module, 1);
    CHECK(!runner.open().failed());
    const CK_OBJECT_HANDLE key = makeAesKey(runner);
    const auto job = runner.run(Op::encrypt, CKM_AES_GCM, key, gcmParams(iv, ""), "abc", "", 64);
    CHECK_EQUAL(job->rv, CKR_GENERAL_ERROR);
    CHECK_EQUAL(job->outputLength, size_t{0});
}

TEST("a ciphertext that does not decrypt to the plaintext is withheld")
{
    resetCounters();
    Wired wired;
    wired.functions.C_Encrypt = lyingEncrypt;
    Runner runner(wired.module, 1);
    CHECK(!runner.open().failed());
    const CK_OBJECT_HANDLE key = makeAesKey(runner);
    const auto job =
        runner.run(Op::encryptVerify, CKM_AES_GCM, key, gcmParams(iv, ""), "abc", "", 64);
    CHECK_EQUAL(job->rv, CKR_DEVICE_ERROR);
    CHECK_EQUAL(job->outputLength, size_t{0});
    CHECK(std::all_of(job->output.data(), job->output.data() + job->output.capacity(),
                      [](uint8_t byte) { return byte == 0; }));
}

TEST("a full queue refuses, and a hung module does not hold up the end of the process")
{
    resetCounters();
    Wired wired;
    wired.functions.C_GenerateRandom = gatedRandom;
    Runner runner(wired.module, 1, 4);
    CHECK(!runner.open().failed());
    {
        const std::lock_guard hang(gate);
        CHECK(runner.submit(runner.make(Op::random, 0, 0, "", "", "", 8)) == Offer::accepted);
        while (calls.load() == 0)
            std::this_thread::yield();
        for (int i = 0; i < 4; i++)
            CHECK(runner.submit(runner.make(Op::random, 0, 0, "", "", "", 8)) == Offer::accepted);
        CHECK(runner.submit(runner.make(Op::random, 0, 0, "", "", "", 8)) == Offer::full);
        const Depth depth = runner.pool().depth();
        CHECK_EQUAL(depth.queued, size_t{4});
        CHECK_EQUAL(depth.busy, size_t{1});
        CHECK(!runner.pool().abandon(std::chrono::milliseconds(1)));
    }
    CHECK(runner.pool().abandon(std::chrono::seconds(60)));
    std::vector<std::unique_ptr<Job>> finished;
    runner.pool().drain(finished);
    CHECK_EQUAL(finished.size(), size_t{1});
    CHECK_EQUAL(calls.load(), 1);
}
