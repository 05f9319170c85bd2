#include "verification.h"

#include "values.h"

#include <memory>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <string>
#include <vector>

namespace hsmgate
{

namespace
{

/* The wire values of `signatureScheme` in src/hsm/worker/addon.ts. */
enum class Scheme : uint8_t {
    pkcs1 = 1,
    pss = 2,
    ecdsa = 3,
    ed25519 = 4,
    ed25519ph = 5,
    mlDsa = 6,
    mlDsaMu = 7,
};
constexpr uint64_t schemeLast = 7;

template <typename T, void (*release)(T *)> struct Releaser {
    void operator()(T *value) const { release(value); }
};
using Key = std::unique_ptr<EVP_PKEY, Releaser<EVP_PKEY, EVP_PKEY_free>>;
using KeyContext = std::unique_ptr<EVP_PKEY_CTX, Releaser<EVP_PKEY_CTX, EVP_PKEY_CTX_free>>;
using DigestContext = std::unique_ptr<EVP_MD_CTX, Releaser<EVP_MD_CTX, EVP_MD_CTX_free>>;
using Signature = std::unique_ptr<EVP_SIGNATURE, Releaser<EVP_SIGNATURE, EVP_SIGNATURE_free>>;
using Bytes = std::vector<uint8_t>;

struct Question {
    Scheme scheme;
    std::string hash;
    Bytes publicKey;
    Bytes input;
    Bytes signature;
};

Bytes copyOf(std::span<const uint8_t> bytes)
{
    return {bytes.begin(), bytes.end()};
}

bool verifiesDigest(EVP_PKEY *key, const Question &question)
{
    const KeyContext context(EVP_PKEY_CTX_new_from_pkey(nullptr, key, nullptr));
    if (context == nullptr || EVP_PKEY_verify_init(context.get()) != 1)
        return false;
    if (question.scheme != Scheme::ecdsa) {
        const bool isPss = question.scheme == Scheme::pss;
        const EVP_MD *hash = EVP_get_digestbyname(question.hash.c_str());
        if (hash == nullptr ||
            EVP_PKEY_CTX_set_rsa_padding(context.get(),
                                         isPss ? RSA_PKCS1_PSS_PADDING : RSA_PKCS1_PADDING) != 1 ||
            EVP_PKEY_CTX_set_signature_md(context.get(), hash) != 1 ||
            (isPss && EVP_PKEY_CTX_set_rsa_pss_saltlen(context.get(), RSA_PSS_SALTLEN_DIGEST) != 1))
            return false;
    }
    return EVP_PKEY_verify(context.get(), question.signature.data(), question.signature.size(),
                           question.input.data(), question.input.size()) == 1;
}

/* The schemes that take the message itself (RFC 8032, FIPS 204). */
bool verifiesMessage(EVP_PKEY *key, const Question &question)
{
    std::string instance = "Ed25519ph";
    const OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_SIGNATURE_PARAM_INSTANCE,
                                                                  instance.data(), instance.size()),
                                 OSSL_PARAM_construct_end()};
    const DigestContext context(EVP_MD_CTX_new());
    return context != nullptr &&
           EVP_DigestVerifyInit_ex(context.get(), nullptr, nullptr, nullptr, nullptr, key,
                                   question.scheme == Scheme::ed25519ph ? params : nullptr) == 1 &&
           EVP_DigestVerify(context.get(), question.signature.data(), question.signature.size(),
                            question.input.data(), question.input.size()) == 1;
}

/* ML-DSA.Verify_internal with mu computed elsewhere (FIPS 204 section 6.3). */
bool verifiesMu(EVP_PKEY *key, const Question &question)
{
    int isMu = 1;
    const OSSL_PARAM params[] = {OSSL_PARAM_construct_int(OSSL_SIGNATURE_PARAM_MU, &isMu),
                                 OSSL_PARAM_construct_end()};
    const char *name = EVP_PKEY_get0_type_name(key);
    if (name == nullptr)
        return false;
    const Signature algorithm(EVP_SIGNATURE_fetch(nullptr, name, nullptr));
    const KeyContext context(EVP_PKEY_CTX_new_from_pkey(nullptr, key, nullptr));
    return algorithm != nullptr && context != nullptr &&
           EVP_PKEY_verify_message_init(context.get(), algorithm.get(), params) == 1 &&
           EVP_PKEY_verify(context.get(), question.signature.data(), question.signature.size(),
                           question.input.data(), question.input.size()) == 1;
}

/* Whether the key is of the kind that the scheme is for. */
bool fits(EVP_PKEY *key, Scheme scheme)
{
    switch (scheme) {
    case Scheme::pkcs1:
    case Scheme::pss:
        return EVP_PKEY_is_a(key, "RSA") == 1;
    case Scheme::ecdsa:
        return EVP_PKEY_is_a(key, "EC") == 1;
    case Scheme::ed25519:
    case Scheme::ed25519ph:
        return EVP_PKEY_is_a(key, "ED25519") == 1;
    case Scheme::mlDsa:
    case Scheme::mlDsaMu:
        return EVP_PKEY_is_a(key, "ML-DSA-44") == 1 || EVP_PKEY_is_a(key, "ML-DSA-65") == 1 ||
               EVP_PKEY_is_a(key, "ML-DSA-87") == 1;
    }
    return false;
}

/* False for whatever is not a valid signature, malformed ones included. */
bool verifies(const Question &question)
{
    const uint8_t *at = question.publicKey.data();
    const Key key(d2i_PUBKEY(nullptr, &at, static_cast<long>(question.publicKey.size())));
    if (key == nullptr || !fits(key.get(), question.scheme))
        return false;
    switch (question.scheme) {
    case Scheme::pkcs1:
    case Scheme::pss:
    case Scheme::ecdsa:
        return verifiesDigest(key.get(), question);
    case Scheme::ed25519:
    case Scheme::ed25519ph:
    case Scheme::mlDsa:
        return verifiesMessage(key.get(), question);
    case Scheme::mlDsaMu:
        return verifiesMu(key.get(), question);
    }
    return false;
}

class Verification : public Napi::AsyncWorker
{
public:
    Verification(Napi::Env env, Question question)
        : Napi::AsyncWorker(env, "hsmgate verification"), deferred_(env),
          question_(std::move(question))
    {
    }
    Napi::Promise promise() const { return deferred_.Promise(); }

private:
    void Execute() override
    {
        valid_ = verifies(question_);
        /* The queue belongs to the thread, which Node uses for other work next. */
        ERR_clear_error();
    }
    void OnOK() override { deferred_.Resolve(Napi::Boolean::New(Env(), valid_)); }
    void OnError(const Napi::Error &error) override { deferred_.Reject(error.Value()); }

    Napi::Promise::Deferred deferred_;
    Question question_;
    bool valid_ = false;
};

} // namespace

Napi::Value verifySignature(const Napi::CallbackInfo &args)
{
    const Napi::Env env = args.Env();
    const auto scheme = integerOf(env, args[0], "scheme", schemeLast);
    if (scheme == 0 || !args[1].IsString())
        throw Napi::TypeError::New(env, "scheme must be one, hash must be a string");
    auto *work = new Verification(
        env, {static_cast<Scheme>(scheme), args[1].As<Napi::String>().Utf8Value(),
              copyOf(bytesOf(env, args[2], "publicKey")), copyOf(bytesOf(env, args[3], "input")),
              copyOf(bytesOf(env, args[4], "signature"))});
    const Napi::Promise promise = work->promise();
    work->Queue();
    return promise;
}

} // namespace hsmgate
