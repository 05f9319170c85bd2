#include "module.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <map>
#include <mutex>

namespace hsmgate
{

namespace
{

/* Never destroyed: session threads may outlive static destructors. Key: the dlopen handle, one per
 * library. */
struct Registry {
    std::mutex mutex;
    std::map<void *, std::shared_ptr<Module>> modules;
};

Registry &registry()
{
    static Registry *instance = new Registry;
    return *instance;
}

int loadFlags()
{
    int flags = RTLD_NOW | RTLD_LOCAL;
#ifdef RTLD_DEEPBIND
    const char *off = std::getenv("HSMGATE_NO_DEEPBIND");
    if (off == nullptr || std::strcmp(off, "1") != 0)
        flags |= RTLD_DEEPBIND;
#endif
    return flags;
}

Failure loaderFailure()
{
    const char *text = dlerror();
    return {CKR_OK, "", text != nullptr ? text : "dlopen failed"};
}

/* The function list of exactly this version or a later one of the same major version. */
const CK_FUNCTION_LIST *findVersion(void *library, CK_VERSION version)
{
    const auto getInterface = reinterpret_cast<CK_C_GetInterface>(dlsym(library, "C_GetInterface"));
    if (getInterface == nullptr)
        return nullptr;
    CK_UTF8CHAR name[] = "PKCS 11";
    CK_VERSION wanted = version;
    CK_INTERFACE *found = nullptr;
    if (getInterface(name, &wanted, &found, 0) != CKR_OK || found == nullptr ||
        found->pFunctionList == nullptr)
        return nullptr;
    const auto *list = static_cast<const CK_FUNCTION_LIST *>(found->pFunctionList);
    const bool isLater =
        list->version.major == version.major && list->version.minor >= version.minor;
    return isLater ? list : nullptr;
}

/* Each version's list begins with the one before (PKCS#11 3.2 section 5.1). */
LaterFunctions findLaterFunctions(void *library)
{
    LaterFunctions later;
    const CK_FUNCTION_LIST *newest = findVersion(library, {3, 2});
    if (newest != nullptr)
        later.decapsulateKey =
            reinterpret_cast<const CK_FUNCTION_LIST_3_2 *>(newest)->C_DecapsulateKey;
    const CK_FUNCTION_LIST *list = newest != nullptr ? newest : findVersion(library, {3, 0});
    if (list != nullptr)
        later.sessionCancel = reinterpret_cast<const CK_FUNCTION_LIST_3_0 *>(list)->C_SessionCancel;
    return later;
}

} // namespace

Failure Module::open(const char *path, const char *initArgs, std::shared_ptr<Module> &module)
{
    Registry &all = registry();
    const std::lock_guard lock(all.mutex);
    /* The library is never unloaded: modules register exit handlers and thread-specific
     * destructors. */
    void *library = dlopen(path, loadFlags());
    if (library == nullptr)
        return loaderFailure();
    std::shared_ptr<Module> &entry = all.modules[library];
    if (entry == nullptr) {
        const auto getList =
            reinterpret_cast<CK_C_GetFunctionList>(dlsym(library, "C_GetFunctionList"));
        if (getList == nullptr) {
            all.modules.erase(library);
            return loaderFailure();
        }
        CK_FUNCTION_LIST *functions = nullptr;
        const CK_RV rv = getList(&functions);
        if (rv != CKR_OK || functions == nullptr) {
            all.modules.erase(library);
            return {rv != CKR_OK ? rv : CKR_GENERAL_ERROR, "C_GetFunctionList", ""};
        }
        entry = std::make_shared<Module>(functions, findLaterFunctions(library));
    }
    if (entry->users_ == 0) {
        std::string reserved = initArgs != nullptr ? initArgs : "";
        CK_C_INITIALIZE_ARGS args{};
        args.flags = CKF_OS_LOCKING_OK;
        args.pReserved = initArgs != nullptr ? reserved.data() : nullptr;
        const CK_RV rv = entry->functions_->C_Initialize(&args);
        if (rv != CKR_OK && rv != CKR_CRYPTOKI_ALREADY_INITIALIZED)
            return {rv, "C_Initialize", ""};
        /* Another binding of the same library owns it then, and its C_Finalize. */
        entry->initialisedHere_ = rv == CKR_OK;
    }
    entry->users_++;
    module = entry;
    return {};
}

Failure Module::release(const std::shared_ptr<Module> &module)
{
    const std::lock_guard lock(registry().mutex);
    if (module->users_ == 0 || --module->users_ > 0 || !module->initialisedHere_)
        return {};
    module->initialisedHere_ = false;
    return {module->functions_->C_Finalize(nullptr), "C_Finalize", ""};
}

void Module::finalizeAll()
{
    Registry &all = registry();
    const std::lock_guard lock(all.mutex);
    for (const auto &[library, module] : all.modules) {
        if (module->users_ > 0 && module->initialisedHere_)
            (void)module->functions_->C_Finalize(nullptr);
        module->users_ = 0;
        module->initialisedHere_ = false;
    }
}

Failure Module::describe(CK_INFO &info)
{
    return {functions_->C_GetInfo(&info), "C_GetInfo", ""};
}

Failure Module::slots(std::vector<SlotDescription> &slots)
{
    std::vector<CK_SLOT_ID> ids;
    CK_ULONG count = 0;
    CK_RV rv = functions_->C_GetSlotList(CK_FALSE, nullptr, &count);
    /* Slots may appear between the two calls. */
    for (int attempt = 0; rv == CKR_OK && attempt < 3; attempt++) {
        ids.resize(count + 8);
        count = ids.size();
        rv = functions_->C_GetSlotList(CK_FALSE, ids.data(), &count);
        if (rv != CKR_BUFFER_TOO_SMALL)
            break;
        rv = CKR_OK;
    }
    if (rv != CKR_OK)
        return {rv, "C_GetSlotList", ""};
    ids.resize(std::min<size_t>(count, ids.size()));
    for (const CK_SLOT_ID id : ids) {
        SlotDescription description;
        description.slot = id;
        CK_SLOT_INFO slot{};
        rv = functions_->C_GetSlotInfo(id, &slot);
        if (rv != CKR_OK)
            return {rv, "C_GetSlotInfo", ""};
        if ((slot.flags & CKF_TOKEN_PRESENT) != 0) {
            rv = functions_->C_GetTokenInfo(id, &description.token);
            /* A token that is just being taken away, or unknown to the module, is no token; it
             * doesn't hide the others. */
            description.tokenPresent = rv == CKR_OK;
            if (rv != CKR_OK)
                description.token = {};
        }
        slots.push_back(description);
    }
    return {};
}

Failure Module::mechanisms(CK_SLOT_ID slot, std::vector<MechanismDescription> &mechanisms)
{
    CK_ULONG count = 0;
    CK_RV rv = functions_->C_GetMechanismList(slot, nullptr, &count);
    std::vector<CK_MECHANISM_TYPE> types(count);
    if (rv == CKR_OK && count > 0)
        rv = functions_->C_GetMechanismList(slot, types.data(), &count);
    if (rv != CKR_OK)
        return {rv, "C_GetMechanismList", ""};
    types.resize(std::min<size_t>(count, types.size()));
    for (const CK_MECHANISM_TYPE type : types) {
        MechanismDescription description;
        description.type = type;
        rv = functions_->C_GetMechanismInfo(slot, type, &description.bounds);
        if (rv != CKR_OK)
            return {rv, "C_GetMechanismInfo", ""};
        mechanisms.push_back(description);
    }
    return {};
}

Failure Module::initToken(CK_SLOT_ID slot, const std::string &label, SecretBytes &soPin,
                          SecretBytes &userPin)
{
    CK_UTF8CHAR padded[32];
    std::memset(padded, ' ', sizeof padded);
    std::memcpy(padded, label.data(), std::min(label.size(), sizeof padded));
    CK_RV rv = functions_->C_InitToken(slot, soPin.data(), soPin.size(), padded);
    if (rv != CKR_OK)
        return {rv, "C_InitToken", ""};
    CK_SESSION_HANDLE session = CK_INVALID_HANDLE;
    rv = functions_->C_OpenSession(slot, CKF_RW_SESSION | CKF_SERIAL_SESSION, nullptr, nullptr,
                                   &session);
    if (rv != CKR_OK)
        return {rv, "C_OpenSession", ""};
    const char *call = "C_Login";
    rv = functions_->C_Login(session, CKU_SO, soPin.data(), soPin.size());
    if (rv == CKR_OK) {
        call = "C_InitPIN";
        rv = functions_->C_InitPIN(session, userPin.data(), userPin.size());
        (void)functions_->C_Logout(session);
    }
    (void)functions_->C_CloseSession(session);
    return {rv, call, ""};
}

} // namespace hsmgate
