/*
 * A loaded PKCS#11 module: its function list, start-up queries and token initialisation. One per
 * library in a process, shared by whoever opens it; C_Finalize comes with the last release. The
 * queries are synchronous and may be called from any thread.
 */
#pragma once

#include "cryptoki.h"
#include "secret.h"

#include <memory>
#include <string>
#include <vector>

namespace hsmgate
{

/* What went wrong: a C_ function and its answer, or, with an empty `call`, the loader's words. */
struct Failure {
    CK_RV rv = CKR_OK;
    const char *call = "";
    std::string text;

    bool failed() const { return rv != CKR_OK || !text.empty(); }
};

struct SlotDescription {
    CK_SLOT_ID slot = 0;
    bool tokenPresent = false;
    CK_TOKEN_INFO token{};
};

struct MechanismDescription {
    CK_MECHANISM_TYPE type = 0;
    CK_MECHANISM_INFO bounds{};
};

/* A blank-padded field of a PKCS#11 structure without its padding. */
template <size_t n> std::string trimmed(const CK_UTF8CHAR (&field)[n])
{
    size_t length = n;
    while (length > 0 && (field[length - 1] == ' ' || field[length - 1] == 0))
        length--;
    return {reinterpret_cast<const char *>(field), length};
}

/* Functions of later versions of PKCS#11; null where the module has none. */
struct LaterFunctions {
    decltype(CK_FUNCTION_LIST_3_0::C_SessionCancel) sessionCancel = nullptr;
    decltype(CK_FUNCTION_LIST_3_2::C_DecapsulateKey) decapsulateKey = nullptr;
};

class Module
{
public:
    Module(CK_FUNCTION_LIST *functions, const LaterFunctions &later)
        : functions_(functions), later_(later)
    {
    }
    Module(const Module &) = delete;
    Module &operator=(const Module &) = delete;

    /*
     * dlopen with RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND, C_GetFunctionList, C_Initialize with
     * CKF_OS_LOCKING_OK. DEEPBIND binds the module to its own libcrypto instead of the OpenSSL
     * symbols that Node exports; HSMGATE_NO_DEEPBIND=1 drops it, because the sanitizers' runtimes
     * refuse it. A library that is open already is shared.
     */
    static Failure open(const char *path, const char *initArgs, std::shared_ptr<Module> &module);
    /* Gives back one `open`; the last one calls C_Finalize, if this process initialised the module
     * here. */
    static Failure release(const std::shared_ptr<Module> &module);
    /* For the end of the process: C_Finalize of everything that is still open, without counting. */
    static void finalizeAll();

    Failure describe(CK_INFO &info);
    Failure slots(std::vector<SlotDescription> &slots);
    Failure mechanisms(CK_SLOT_ID slot, std::vector<MechanismDescription> &mechanisms);
    /* C_InitToken, then C_InitPIN in a security officer's session. */
    Failure initToken(CK_SLOT_ID slot, const std::string &label, SecretBytes &soPin,
                      SecretBytes &userPin);

    const CK_FUNCTION_LIST &functions() const { return *functions_; }
    const LaterFunctions &later() const { return later_; }

private:
    CK_FUNCTION_LIST *functions_;
    LaterFunctions later_;
    bool initialisedHere_ = false;
    unsigned users_ = 0;
};

} // namespace hsmgate
