/* The pool on SoftHSM2, everything as it should be. What happens when a module misbehaves is in
 * fault_test.cc. */
#include "check.h"
#include "packed.h"
#include "token.h"

#include <algorithm>
#include <cstring>

using namespace hsmgate;
using namespace hsmgate::test;

namespace
{

const std::string iv(12, '\7');
const std::string cryptUsages = flag(CKA_ENCRYPT, true) + flag(CKA_DECRYPT, true);

std::string text(const Job &job)
{
    return {reinterpret_cast<const char *>(job.output.data()), job.outputLength};
}

CK_OBJECT_HANDLE makeAesKey(Runner &runner, const std::string &more = cryptUsages)
{
    const auto job = runner.run(Op::generateKey, CKM_AES_KEY_GEN, 0, "", "", aesTemplate(more), 0);
    CHECK_EQUAL(job->rv, CKR_OK);
    return job->handle;
}

struct KeyPair {
    CK_OBJECT_HANDLE publicKey;
    CK_OBJECT_HANDLE privateKey;
};

KeyPair makeRsaPair(Runner &runner)
{
    const auto job =
        runner.run(Op::generateKeyPair, CKM_RSA_PKCS_KEY_PAIR_GEN, 0, "",
                   flag(CKA_TOKEN, false) + flag(CKA_ENCRYPT, true) + flag(CKA_VERIFY, true) +
                       attribute(CKA_MODULUS_BITS, packedUlong(2048)) +
                       attribute(CKA_PUBLIC_EXPONENT, std::string("\1\0\1", 3)),
                   flag(CKA_TOKEN, false) + flag(CKA_DECRYPT, true) + flag(CKA_SIGN, true), 0);
    CHECK_EQUAL(job->rv, CKR_OK);
    return {job->handle, job->handle2};
}

} // namespace

TEST("a pool encrypts and decrypts, and notices a changed ciphertext")
{
    Runner runner(softhsm(), 2);
    CHECK(!runner.open().failed());
    const CK_OBJECT_HANDLE key = makeAesKey(runner);
    const std::string params = gcmParams(iv, "context");
    const auto encrypted =
        runner.run(Op::encryptVerify, CKM_AES_GCM, key, params, "plaintext", "", 25);
    CHECK_EQUAL(encrypted->rv, CKR_OK);
    CHECK_EQUAL(encrypted->outputLength, size_t{9 + 16});
    std::string ciphertext = text(*encrypted);
    CHECK_EQUAL(text(*runner.run(Op::decrypt, CKM_AES_GCM, key, params, ciphertext, "", 64)),
                std::string("plaintext"));
    ciphertext[0] = static_cast<char>(ciphertext[0] ^ 1);
    const auto refused = runner.run(Op::decrypt, CKM_AES_GCM, key, params, ciphertext, "", 64);
    CHECK(refused->rv != CKR_OK);
    CHECK_EQUAL(refused->outputLength, size_t{0});
    CHECK_EQUAL(text(*runner.run(Op::encrypt, CKM_AES_GCM, key, params, "plaintext", "", 64)),
                text(*encrypted));
}

TEST("a pool puts the IV before the ciphertext when the module chooses it")
{
    Runner runner(softhsm(), 1);
    CHECK(!runner.open().failed());
    const CK_OBJECT_HANDLE key = makeAesKey(runner);
    /* SoftHSM takes the zero IV as given: the place of the IV is what counts here. */
    const auto job =
        runner.run(Op::encryptVerify, CKM_AES_GCM, key, gcmParams(iv, "", true), "abc", "", 3 + 16);
    CHECK_EQUAL(job->rv, CKR_OK);
    CHECK_EQUAL(job->outputLength, size_t{12 + 3 + 16});
    const std::string zeroIv(12, '\0');
    CHECK_EQUAL(text(*job).substr(0, 12), zeroIv);
    CHECK_EQUAL(text(*runner.run(Op::decrypt, CKM_AES_GCM, key, gcmParams(zeroIv, ""),
                                 text(*job).substr(12), "", 64)),
                std::string("abc"));
}

TEST("a pool signs and verifies, and a wrong signature is a verdict")
{
    Runner runner(softhsm(), 2);
    CHECK(!runner.open().failed());
    const KeyPair pair = makeRsaPair(runner);
    const auto signature =
        runner.run(Op::sign, CKM_RSA_PKCS, pair.privateKey, "", "digest", "", 256);
    CHECK_EQUAL(signature->rv, CKR_OK);
    CHECK_EQUAL(signature->outputLength, size_t{256});
    std::string bytes = text(*signature);
    CHECK_EQUAL(runner.run(Op::verify, CKM_RSA_PKCS, pair.publicKey, "", "digest", bytes, 0)->rv,
                CKR_OK);
    bytes[100] = static_cast<char>(bytes[100] ^ 1);
    CHECK_EQUAL(runner.run(Op::verify, CKM_RSA_PKCS, pair.publicKey, "", "digest", bytes, 0)->rv,
                CKR_SIGNATURE_INVALID);
    CHECK_EQUAL(
        runner.run(Op::verify, CKM_RSA_PKCS, pair.publicKey, "", "digest", bytes.substr(1), 0)->rv,
        CKR_SIGNATURE_LEN_RANGE);
}

TEST("a pool decodes OAEP itself, and agrees with the module about SHA-1")
{
    Runner runner(softhsm(), 1);
    CHECK(!runner.open().failed());
    const KeyPair pair = makeRsaPair(runner);
    const std::string params = "\2" + packedUlong(CKM_SHA_1) + packedUlong(CKG_MGF1_SHA1);
    for (const std::string &message :
         {std::string(), std::string("secret"), std::string(214, 'x')}) {
        const auto encrypted =
            runner.run(Op::encrypt, CKM_RSA_PKCS_OAEP, pair.publicKey, params, message, "", 256);
        CHECK_EQUAL(encrypted->rv, CKR_OK);
        const auto decrypted =
            runner.run(Op::oaepDecrypt, CKM_SHA_1, pair.privateKey, "", text(*encrypted), "", 256);
        CHECK_EQUAL(decrypted->rv, CKR_OK);
        CHECK_EQUAL(text(*decrypted), message);
        CHECK_EQUAL(
            runner.run(Op::oaepDecrypt, CKM_SHA256, pair.privateKey, "", text(*encrypted), "", 256)
                ->rv,
            CKR_ENCRYPTED_DATA_INVALID);
    }
    CHECK_EQUAL(runner
                    .run(Op::oaepDecrypt, CKM_RSA_PKCS, pair.privateKey, "", std::string(256, '\1'),
                         "", 256)
                    ->rv,
                CKR_MECHANISM_INVALID);
}

TEST("a pool derives keys, and values that it shows")
{
    Runner runner(softhsm(), 1);
    CHECK(!runner.open().failed());
    const CK_OBJECT_HANDLE base = makeAesKey(runner, flag(CKA_DERIVE, true));
    const std::string data(32, 'd');
    const std::string params = "\5" + std::string("\x20\0\0\0", 4) + data;
    const std::string keyTemplate =
        flag(CKA_TOKEN, false) + attribute(CKA_CLASS, packedUlong(CKO_SECRET_KEY)) +
        attribute(CKA_KEY_TYPE, packedUlong(CKK_AES)) + attribute(CKA_VALUE_LEN, packedUlong(32));
    const auto derived = runner.run(Op::derive, CKM_AES_ECB_ENCRYPT_DATA, base, params, "",
                                    keyTemplate + cryptUsages, 0);
    CHECK_EQUAL(derived->rv, CKR_OK);
    CHECK_EQUAL(
        runner.run(Op::encrypt, CKM_AES_GCM, derived->handle, gcmParams(iv, ""), "x", "", 64)->rv,
        CKR_OK);
    const std::string shown =
        keyTemplate + flag(CKA_SENSITIVE, false) + flag(CKA_EXTRACTABLE, true);
    const auto value =
        runner.run(Op::deriveValue, CKM_AES_ECB_ENCRYPT_DATA, base, params, "", shown, 32);
    CHECK_EQUAL(value->rv, CKR_OK);
    CHECK_EQUAL(value->outputLength, size_t{32});
    CHECK_EQUAL(value->handle, CK_OBJECT_HANDLE{0});
    CHECK_EQUAL(
        text(*runner.run(Op::deriveValue, CKM_AES_ECB_ENCRYPT_DATA, base, params, "", shown, 32)),
        text(*value));
}

TEST("a pool wraps and unwraps")
{
    Runner runner(softhsm(), 1);
    CHECK(!runner.open().failed());
    const CK_OBJECT_HANDLE wrapping =
        makeAesKey(runner, flag(CKA_WRAP, true) + flag(CKA_UNWRAP, true));
    const CK_OBJECT_HANDLE key =
        makeAesKey(runner, cryptUsages + flag(CKA_EXTRACTABLE, true) + flag(CKA_SENSITIVE, false));
    std::unique_ptr<Job> job = runner.make(Op::wrap, CKM_AES_KEY_WRAP, wrapping, "", "", "", 40);
    job->key2 = key;
    CHECK(runner.submit(std::move(job)) == Offer::accepted);
    const auto wrapped = std::move(runner.collect(1).front());
    CHECK_EQUAL(wrapped->rv, CKR_OK);
    CHECK_EQUAL(wrapped->outputLength, size_t{40});
    const auto unwrapped =
        runner.run(Op::unwrap, CKM_AES_KEY_WRAP, wrapping, "", text(*wrapped),
                   flag(CKA_TOKEN, false) + attribute(CKA_CLASS, packedUlong(CKO_SECRET_KEY)) +
                       attribute(CKA_KEY_TYPE, packedUlong(CKK_AES)) + cryptUsages,
                   0);
    CHECK_EQUAL(unwrapped->rv, CKR_OK);
    const auto one = runner.run(Op::encrypt, CKM_AES_GCM, key, gcmParams(iv, ""), "x", "", 64);
    const auto other =
        runner.run(Op::encrypt, CKM_AES_GCM, unwrapped->handle, gcmParams(iv, ""), "x", "", 64);
    CHECK_EQUAL(text(*one), text(*other));
}

TEST("a pool finds, reads, changes and destroys objects")
{
    Runner runner(softhsm(), 1);
    CHECK(!runner.open().failed());
    std::vector<CK_OBJECT_HANDLE> made;
    for (int i = 0; i < 3; i++)
        made.push_back(
            makeAesKey(runner, attribute(CKA_ID, "find-me") + flag(CKA_SENSITIVE, true)));
    const std::string wanted = attribute(CKA_ID, "find-me");
    const auto found = runner.run(Op::find, 0, 0, "", "", wanted, 8 * 100);
    CHECK_EQUAL(found->rv, CKR_OK);
    std::vector<CK_OBJECT_HANDLE> handles;
    for (size_t at = 0; at < found->outputLength; at += 8)
        handles.push_back(getU64(found->output.data() + at));
    /* What is found has the module's handles, what was made has names of its own. */
    CHECK_EQUAL(handles.size(), made.size());
    for (const CK_OBJECT_HANDLE handle : handles)
        CHECK(std::find(made.begin(), made.end(), handle) == made.end());
    CHECK_EQUAL(runner.run(Op::find, 0, 0, "", "", wanted, 8 * 2)->outputLength, size_t{16});

    CHECK_EQUAL(
        runner.run(Op::setAttributes, 0, made[0], "", "", attribute(CKA_LABEL, "new name"), 0)->rv,
        CKR_OK);
    const auto read = runner.run(Op::getAttributes, 0, made[0], "", "",
                                 packedUlong(CKA_LABEL) + packedUlong(CKA_VALUE) +
                                     packedUlong(CKA_EC_PARAMS) + packedUlong(CKA_ID),
                                 0);
    CHECK_EQUAL(read->rv, CKR_OK);
    const std::string none = "\xff\xff\xff\xff";
    CHECK_EQUAL(text(*read), attribute(CKA_LABEL, "new name") + packedUlong(CKA_VALUE) + none +
                                 packedUlong(CKA_EC_PARAMS) + none + attribute(CKA_ID, "find-me"));
    for (const CK_OBJECT_HANDLE handle : made)
        CHECK_EQUAL(runner.run(Op::destroy, 0, handle, "", "", "", 0)->rv, CKR_OK);
    CHECK_EQUAL(runner.run(Op::find, 0, 0, "", "", wanted, 8 * 100)->outputLength, size_t{0});
    CHECK_EQUAL(runner.run(Op::destroy, 0, made[0], "", "", "", 0)->rv, CKR_OBJECT_HANDLE_INVALID);
}

TEST("a pool creates an object from a template")
{
    Runner runner(softhsm(), 1);
    CHECK(!runner.open().failed());
    const std::string secret = flag(CKA_TOKEN, false) +
                               attribute(CKA_CLASS, packedUlong(CKO_SECRET_KEY)) +
                               attribute(CKA_KEY_TYPE, packedUlong(CKK_GENERIC_SECRET)) +
                               attribute(CKA_VALUE, std::string(32, 'k')) + flag(CKA_SIGN, true);
    const auto created = runner.run(Op::createObject, 0, 0, "", "", secret, 0);
    CHECK_EQUAL(created->rv, CKR_OK);
    const auto mac = runner.run(Op::sign, CKM_SHA256_HMAC, created->handle, "", "message", "", 32);
    CHECK_EQUAL(mac->rv, CKR_OK);
    CHECK_EQUAL(toHex({mac->output.data(), 4}), std::string("63a375b8"));
}

TEST("malformed templates and parameters never reach the module")
{
    Runner runner(softhsm(), 1);
    CHECK(!runner.open().failed());
    CHECK_EQUAL(runner.run(Op::find, 0, 0, "", "", "short", 80)->rv, CKR_ARGUMENTS_BAD);
    CHECK_EQUAL(runner.run(Op::sign, CKM_RSA_PKCS, 1, "\1", "x", "", 80)->rv,
                CKR_MECHANISM_PARAM_INVALID);
    CHECK_EQUAL(runner.run(Op::getAttributes, 0, 1, "", "", "1234567", 80)->rv, CKR_ARGUMENTS_BAD);
    CHECK_EQUAL(runner.run(static_cast<Op>(99), 0, 1, "", "", "", 80)->rv, CKR_ARGUMENTS_BAD);
}

TEST("a pool grows an output that was too small")
{
    Runner runner(softhsm(), 1);
    CHECK(!runner.open().failed());
    const CK_OBJECT_HANDLE key = makeAesKey(runner);
    const auto job = runner.run(Op::encrypt, CKM_AES_GCM, key, gcmParams(iv, ""),
                                std::string(1000, 'x'), "", 10);
    CHECK_EQUAL(job->rv, CKR_OK);
    CHECK_EQUAL(job->outputLength, size_t{1016});
}

TEST("jobs of two pools run side by side, and one pool outlives the other")
{
    Runner one(softhsm(), 2);
    CHECK(!one.open().failed());
    {
        Runner two(softhsm(), 2);
        CHECK(!two.open().failed());
        const CK_OBJECT_HANDLE key = makeAesKey(two);
        for (int i = 0; i < 500; i++) {
            CHECK(two.submit(two.make(Op::encrypt, CKM_AES_GCM, key, gcmParams(iv, ""), "x", "",
                                      64)) == Offer::accepted);
            CHECK(one.submit(one.make(Op::random, 0, 0, "", "", "", 32)) == Offer::accepted);
        }
        for (const auto &job : two.collect(500))
            CHECK_EQUAL(job->rv, CKR_OK);
        for (const auto &job : one.collect(500))
            CHECK_EQUAL(job->rv, CKR_OK);
    }
    /* Private keys are still there: closing a pool does not log the user out. */
    CHECK(makeAesKey(one) != 0);
}

TEST("closing a pool finishes what is queued")
{
    Runner runner(softhsm(), 2);
    CHECK(!runner.open().failed());
    for (int i = 0; i < 300; i++)
        CHECK(runner.submit(runner.make(Op::random, 0, 0, "", "", "", 2048)) == Offer::accepted);
    runner.pool().close();
    std::vector<std::unique_ptr<Job>> finished;
    runner.pool().drain(finished);
    CHECK_EQUAL(finished.size(), size_t{300});
    CHECK(std::all_of(finished.begin(), finished.end(),
                      [](const auto &job) { return job->rv == CKR_OK; }));
    CHECK(runner.submit(runner.make(Op::random, 0, 0, "", "", "", 8)) == Offer::closed);
}

TEST("many finished jobs ring once when nobody drains in between")
{
    Runner runner(softhsm(), 2);
    CHECK(!runner.open().failed());
    for (int i = 0; i < 200; i++)
        CHECK(runner.submit(runner.make(Op::random, 0, 0, "", "", "", 16)) == Offer::accepted);
    runner.pool().close();
    CHECK_EQUAL(runner.wakes(), 1U);
}

TEST("a recycled job carries nothing of its former life")
{
    Runner runner(softhsm(), 1);
    CHECK(!runner.open().failed());
    std::unique_ptr<Job> job = runner.run(Op::random, 0, 0, "", "", "", 64);
    const uint8_t *output = job->output.data();
    runner.pool().putBack(std::move(job));
    CHECK(std::all_of(output, output + 64, [](uint8_t byte) { return byte == 0; }));
    job = runner.pool().borrowJob();
    CHECK_EQUAL(job->outputLength, size_t{0});
    CHECK(job->params.empty() && job->input.empty() && job->aux.empty());
}
