/*
 * A PKCS#11 3.2 module for tests: another module (HSMGATE_PQC_MODULE, in practice SoftHSM2) with
 * ML-DSA and ML-KEM added, so that the worker's side of them runs against something. The
 * cryptography is that of the OpenSSL which Node exports; nothing is linked, so it loads into Node
 * only. A key is a data object of the real token that holds its attributes and, if private, its
 * PKCS#8: one store for all processes, nothing protected. Never for production.
 *
 * HSMGATE_PQC_WITHOUT_MU=1: no CKM_ML_DSA_EXTERNAL_MU. HSMGATE_PQC_WRONG=1: signatures and secrets
 * that are wrong by one bit, for probes to find.
 */
#include "cryptoki.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <map>
#include <memory>
#include <mutex>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <string>
#include <vector>

namespace
{

/* PKCS#11 3.2; CKM_ML_DSA_EXTERNAL_MU is the OASIS number for 3.3. */
constexpr CK_MECHANISM_TYPE CKM_ML_KEM_KEY_PAIR_GEN = 0x0F;
constexpr CK_MECHANISM_TYPE CKM_ML_KEM = 0x17;
constexpr CK_MECHANISM_TYPE CKM_ML_DSA_KEY_PAIR_GEN = 0x1C;
constexpr CK_MECHANISM_TYPE CKM_ML_DSA = 0x1D;
constexpr CK_MECHANISM_TYPE CKM_ML_DSA_EXTERNAL_MU = 0x403C;
constexpr CK_FLAGS CKF_GENERATE_KEY_PAIR = 0x10000;
constexpr CK_FLAGS CKF_ENCAPSULATE = 0x10000000;
constexpr CK_FLAGS CKF_DECAPSULATE = 0x20000000;
constexpr CK_ULONG CKO_DATA = 0;
constexpr CK_ULONG CKO_PUBLIC_KEY = 2;
constexpr CK_ULONG CKO_PRIVATE_KEY = 3;
constexpr CK_ULONG CKK_ML_KEM = 0x49;
constexpr CK_ULONG CKK_ML_DSA = 0x4A;
constexpr CK_ATTRIBUTE_TYPE CKA_APPLICATION = 0x10;
constexpr CK_ATTRIBUTE_TYPE CKA_PUBLIC_KEY_INFO = 0x129;
constexpr CK_ATTRIBUTE_TYPE CKA_LOCAL = 0x163;
constexpr CK_ATTRIBUTE_TYPE CKA_NEVER_EXTRACTABLE = 0x164;
constexpr CK_ATTRIBUTE_TYPE CKA_ALWAYS_SENSITIVE = 0x165;
constexpr CK_ATTRIBUTE_TYPE CKA_MODIFIABLE = 0x170;
constexpr CK_ATTRIBUTE_TYPE CKA_PARAMETER_SET = 0x61D;
constexpr CK_ATTRIBUTE_TYPE CKA_DECAPSULATE = 0x634;
/* Where a private key keeps its PKCS#8; never shown. */
constexpr CK_ATTRIBUTE_TYPE privateValue = 0x80000001;
constexpr CK_RV CKR_KEY_FUNCTION_NOT_PERMITTED = 0x68;
constexpr CK_RV CKR_KEY_TYPE_INCONSISTENT = 0x63;
constexpr CK_RV CKR_DATA_LEN_RANGE = 0x21;
constexpr CK_RV CKR_TEMPLATE_INCOMPLETE = 0xD0;
constexpr CK_RV CKR_TEMPLATE_INCONSISTENT = 0xD1;
constexpr char application[] = "hsmgate pqc";
constexpr size_t muBytes = 64;

using Bytes = std::vector<CK_BYTE>;
using Attributes = std::map<CK_ATTRIBUTE_TYPE, Bytes>;
template <typename T, void (*release)(T *)> struct Releaser {
    void operator()(T *value) const { release(value); }
};
using Key = std::unique_ptr<EVP_PKEY, Releaser<EVP_PKEY, EVP_PKEY_free>>;
using Context = std::unique_ptr<EVP_PKEY_CTX, Releaser<EVP_PKEY_CTX, EVP_PKEY_CTX_free>>;
using Algorithm = std::unique_ptr<EVP_SIGNATURE, Releaser<EVP_SIGNATURE, EVP_SIGNATURE_free>>;

struct Signing {
    std::shared_ptr<EVP_PKEY> key;
    bool isMu;
};
struct Search {
    std::vector<CK_OBJECT_HANDLE> found;
    size_t at = 0;
};

CK_FUNCTION_LIST *real;
CK_FUNCTION_LIST functions;
CK_FUNCTION_LIST_3_2 functions32;
std::mutex mutex;
std::map<CK_SESSION_HANDLE, Signing> signings;
std::map<CK_SESSION_HANDLE, Search> searches;

bool isSet(const char *name)
{
    const char *value = std::getenv(name);
    return value != nullptr && std::strcmp(value, "1") == 0;
}

Bytes ulong(CK_ULONG value)
{
    Bytes bytes(sizeof value);
    std::memcpy(bytes.data(), &value, sizeof value);
    return bytes;
}

CK_ULONG toUlong(const Attributes &attributes, CK_ATTRIBUTE_TYPE type)
{
    const auto found = attributes.find(type);
    CK_ULONG value = CK_UNAVAILABLE_INFORMATION;
    if (found != attributes.end() && found->second.size() == sizeof value)
        std::memcpy(&value, found->second.data(), sizeof value);
    return value;
}

bool isTrue(const Attributes &attributes, CK_ATTRIBUTE_TYPE type)
{
    const auto found = attributes.find(type);
    return found != attributes.end() && found->second == Bytes{CK_TRUE};
}

Attributes toMap(const CK_ATTRIBUTE *list, CK_ULONG count)
{
    Attributes attributes;
    for (CK_ULONG i = 0; i < count; i++) {
        const auto *value = static_cast<const CK_BYTE *>(list[i].pValue);
        attributes[list[i].type] =
            value == nullptr ? Bytes{} : Bytes(value, value + list[i].ulValueLen);
    }
    return attributes;
}

Bytes pack(const Attributes &attributes)
{
    Bytes bytes;
    for (const auto &[type, value] : attributes) {
        for (const CK_ULONG number : {type, static_cast<CK_ULONG>(value.size())}) {
            const Bytes packed = ulong(number);
            bytes.insert(bytes.end(), packed.begin(), packed.end());
        }
        bytes.insert(bytes.end(), value.begin(), value.end());
    }
    return bytes;
}

Attributes unpack(const Bytes &bytes)
{
    Attributes attributes;
    for (size_t at = 0; at + 16 <= bytes.size();) {
        CK_ULONG type = 0;
        CK_ULONG length = 0;
        std::memcpy(&type, &bytes[at], 8);
        std::memcpy(&length, &bytes[at + 8], 8);
        at += 16;
        if (length > bytes.size() - at)
            break;
        const auto from = bytes.begin() + static_cast<ptrdiff_t>(at);
        attributes[type] = Bytes(from, from + static_cast<ptrdiff_t>(length));
        at += length;
    }
    return attributes;
}

/* The attributes of a key of ours; empty for every other object. */
Attributes load(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object)
{
    CK_ULONG objectClass = CK_UNAVAILABLE_INFORMATION;
    CK_ATTRIBUTE question = {CKA_CLASS, &objectClass, sizeof objectClass};
    if (real->C_GetAttributeValue(session, object, &question, 1) != CKR_OK ||
        objectClass != CKO_DATA)
        return {};
    char owner[sizeof application] = {};
    question = {CKA_APPLICATION, owner, sizeof owner - 1};
    if (real->C_GetAttributeValue(session, object, &question, 1) != CKR_OK ||
        std::strcmp(owner, application) != 0)
        return {};
    question = {CKA_VALUE, nullptr, 0};
    if (real->C_GetAttributeValue(session, object, &question, 1) != CKR_OK)
        return {};
    Bytes value(question.ulValueLen);
    question.pValue = value.data();
    if (real->C_GetAttributeValue(session, object, &question, 1) != CKR_OK)
        return {};
    return unpack(value);
}

CK_RV store(CK_SESSION_HANDLE session, const Attributes &attributes, CK_OBJECT_HANDLE *object)
{
    CK_ULONG objectClass = CKO_DATA;
    CK_BBOOL isToken = isTrue(attributes, CKA_TOKEN) ? CK_TRUE : CK_FALSE;
    CK_BBOOL isPrivate = isTrue(attributes, CKA_PRIVATE) ? CK_TRUE : CK_FALSE;
    Bytes value = pack(attributes);
    std::string owner = application;
    CK_ATTRIBUTE list[] = {{CKA_CLASS, &objectClass, sizeof objectClass},
                           {CKA_TOKEN, &isToken, 1},
                           {CKA_PRIVATE, &isPrivate, 1},
                           {CKA_APPLICATION, owner.data(), owner.size()},
                           {CKA_VALUE, value.data(), value.size()}};
    return real->C_CreateObject(session, list, std::size(list), object);
}

const char *nameOf(CK_ULONG keyType, CK_ULONG parameters)
{
    static const char *const dsa[] = {"ML-DSA-44", "ML-DSA-65", "ML-DSA-87"};
    static const char *const kem[] = {"ML-KEM-512", "ML-KEM-768", "ML-KEM-1024"};
    if (parameters < 1 || parameters > 3)
        return nullptr;
    return (keyType == CKK_ML_DSA ? dsa : kem)[parameters - 1];
}

CK_RV generateKeyPair(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_ATTRIBUTE *publicList,
                      CK_ULONG publicCount, CK_ATTRIBUTE *privateList, CK_ULONG privateCount,
                      CK_OBJECT_HANDLE *publicObject, CK_OBJECT_HANDLE *privateObject)
{
    const CK_MECHANISM_TYPE type = mechanism->mechanism;
    if (type != CKM_ML_DSA_KEY_PAIR_GEN && type != CKM_ML_KEM_KEY_PAIR_GEN)
        return real->C_GenerateKeyPair(session, mechanism, publicList, publicCount, privateList,
                                       privateCount, publicObject, privateObject);
    const CK_ULONG keyType = type == CKM_ML_DSA_KEY_PAIR_GEN ? CKK_ML_DSA : CKK_ML_KEM;
    Attributes publicKey = toMap(publicList, publicCount);
    Attributes privateKey = toMap(privateList, privateCount);
    if (publicKey.count(CKA_PARAMETER_SET) == 0)
        return CKR_TEMPLATE_INCOMPLETE;
    /* The set is that of the public template, and of no other (PKCS#11 3.2
     * sections 6.67.3, 6.68.3).
     */
    if (privateKey.count(CKA_PARAMETER_SET) != 0)
        return CKR_TEMPLATE_INCONSISTENT;
    for (Attributes *half : {&publicKey, &privateKey}) {
        if (half->count(CKA_KEY_TYPE) != 0 && toUlong(*half, CKA_KEY_TYPE) != keyType)
            return CKR_TEMPLATE_INCONSISTENT;
    }
    const CK_ULONG parameters = toUlong(publicKey, CKA_PARAMETER_SET);
    const char *name = nameOf(keyType, parameters);
    if (name == nullptr)
        return CKR_TEMPLATE_INCONSISTENT;
    const Key key(EVP_PKEY_Q_keygen(nullptr, nullptr, name));
    if (key == nullptr)
        return CKR_FUNCTION_FAILED;
    CK_BYTE *spki = nullptr;
    const int spkiLength = i2d_PUBKEY(key.get(), &spki);
    CK_BYTE *pkcs8 = nullptr;
    PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(key.get());
    const int pkcs8Length = i2d_PKCS8_PRIV_KEY_INFO(info, &pkcs8);
    PKCS8_PRIV_KEY_INFO_free(info);
    size_t length = 0;
    EVP_PKEY_get_octet_string_param(key.get(), OSSL_PKEY_PARAM_PUB_KEY, nullptr, 0, &length);
    Bytes value(length);
    EVP_PKEY_get_octet_string_param(key.get(), OSSL_PKEY_PARAM_PUB_KEY, value.data(), length,
                                    &length);
    publicKey[CKA_CLASS] = ulong(CKO_PUBLIC_KEY);
    publicKey[CKA_VALUE] = value;
    publicKey[CKA_PUBLIC_KEY_INFO] = Bytes(spki, spki + spkiLength);
    privateKey[CKA_CLASS] = ulong(CKO_PRIVATE_KEY);
    privateKey[privateValue] = Bytes(pkcs8, pkcs8 + pkcs8Length);
    privateKey[CKA_PARAMETER_SET] = ulong(parameters);
    privateKey[CKA_ALWAYS_SENSITIVE] = privateKey[CKA_SENSITIVE];
    privateKey[CKA_NEVER_EXTRACTABLE] = {isTrue(privateKey, CKA_EXTRACTABLE) ? CK_FALSE : CK_TRUE};
    for (Attributes *half : {&publicKey, &privateKey}) {
        (*half)[CKA_KEY_TYPE] = ulong(keyType);
        (*half)[CKA_LOCAL] = {CK_TRUE};
        half->try_emplace(CKA_MODIFIABLE, Bytes{CK_TRUE});
    }
    OPENSSL_free(spki);
    OPENSSL_clear_free(pkcs8, static_cast<size_t>(pkcs8Length));
    CK_RV rv = store(session, publicKey, publicObject);
    if (rv != CKR_OK)
        return rv;
    rv = store(session, privateKey, privateObject);
    if (rv != CKR_OK)
        real->C_DestroyObject(session, *publicObject);
    return rv;
}

std::shared_ptr<EVP_PKEY> privateHalf(const Attributes &attributes)
{
    const Bytes &pkcs8 = attributes.at(privateValue);
    const CK_BYTE *at = pkcs8.data();
    return {d2i_AutoPrivateKey(nullptr, &at, static_cast<long>(pkcs8.size())), EVP_PKEY_free};
}

CK_RV signInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE object)
{
    const CK_MECHANISM_TYPE type = mechanism->mechanism;
    const bool isMu = type == CKM_ML_DSA_EXTERNAL_MU && !isSet("HSMGATE_PQC_WITHOUT_MU");
    if (type != CKM_ML_DSA && !isMu)
        return real->C_SignInit(session, mechanism, object);
    if (mechanism->ulParameterLen != 0)
        return CKR_MECHANISM_PARAM_INVALID;
    const Attributes key = load(session, object);
    if (toUlong(key, CKA_CLASS) != CKO_PRIVATE_KEY)
        return CKR_KEY_HANDLE_INVALID;
    if (toUlong(key, CKA_KEY_TYPE) != CKK_ML_DSA)
        return CKR_KEY_TYPE_INCONSISTENT;
    if (!isTrue(key, CKA_SIGN))
        return CKR_KEY_FUNCTION_NOT_PERMITTED;
    const std::lock_guard lock(mutex);
    signings[session] = {privateHalf(key), isMu};
    return CKR_OK;
}

CK_RV sign(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG dataLength, CK_BYTE *signature,
           CK_ULONG *signatureLength)
{
    Signing signing;
    {
        const std::lock_guard lock(mutex);
        const auto found = signings.find(session);
        if (found == signings.end())
            return real->C_Sign(session, data, dataLength, signature, signatureLength);
        signing = found->second;
        const auto size = static_cast<CK_ULONG>(EVP_PKEY_get_size(signing.key.get()));
        if (signature == nullptr || *signatureLength < size) {
            *signatureLength = size;
            return signature == nullptr ? CKR_OK : CKR_BUFFER_TOO_SMALL;
        }
        signings.erase(found);
    }
    if (signing.isMu && dataLength != muBytes)
        return CKR_DATA_LEN_RANGE;
    int mu = signing.isMu ? 1 : 0;
    const OSSL_PARAM params[] = {OSSL_PARAM_construct_int(OSSL_SIGNATURE_PARAM_MU, &mu),
                                 OSSL_PARAM_construct_end()};
    const Algorithm algorithm(
        EVP_SIGNATURE_fetch(nullptr, EVP_PKEY_get0_type_name(signing.key.get()), nullptr));
    const Context context(EVP_PKEY_CTX_new_from_pkey(nullptr, signing.key.get(), nullptr));
    size_t length = *signatureLength;
    if (EVP_PKEY_sign_message_init(context.get(), algorithm.get(), params) != 1 ||
        EVP_PKEY_sign(context.get(), signature, &length, data, dataLength) != 1)
        return CKR_FUNCTION_FAILED;
    if (isSet("HSMGATE_PQC_WRONG"))
        signature[length / 2] ^= 1;
    *signatureLength = length;
    return CKR_OK;
}

CK_RV sessionCancel(CK_SESSION_HANDLE session, CK_FLAGS flags)
{
    const std::lock_guard lock(mutex);
    if ((flags & CKF_SIGN) != 0 && signings.erase(session) != 0)
        return CKR_OK;
    return CKR_FUNCTION_NOT_SUPPORTED;
}

CK_RV decapsulateKey(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE object,
                     CK_ATTRIBUTE *list, CK_ULONG count, CK_BYTE *ciphertext,
                     CK_ULONG ciphertextLength, CK_OBJECT_HANDLE *secretObject)
{
    if (mechanism->mechanism != CKM_ML_KEM)
        return CKR_MECHANISM_INVALID;
    const Attributes attributes = load(session, object);
    if (toUlong(attributes, CKA_CLASS) != CKO_PRIVATE_KEY)
        return CKR_KEY_HANDLE_INVALID;
    if (toUlong(attributes, CKA_KEY_TYPE) != CKK_ML_KEM)
        return CKR_KEY_TYPE_INCONSISTENT;
    if (!isTrue(attributes, CKA_DECAPSULATE))
        return CKR_KEY_FUNCTION_NOT_PERMITTED;
    const std::shared_ptr<EVP_PKEY> key = privateHalf(attributes);
    const Context context(EVP_PKEY_CTX_new_from_pkey(nullptr, key.get(), nullptr));
    CK_BYTE secret[32];
    size_t length = sizeof secret;
    if (EVP_PKEY_decapsulate_init(context.get(), nullptr) != 1 ||
        EVP_PKEY_decapsulate(context.get(), secret, &length, ciphertext, ciphertextLength) != 1)
        return CKR_ENCRYPTED_DATA_LEN_RANGE;
    if (isSet("HSMGATE_PQC_WRONG"))
        secret[0] ^= 1;
    std::vector<CK_ATTRIBUTE> made;
    for (CK_ULONG i = 0; i < count; i++) {
        if (list[i].type == CKA_VALUE_LEN) {
            CK_ULONG wanted = 0;
            std::memcpy(&wanted, list[i].pValue, sizeof wanted);
            if (wanted != length)
                return CKR_TEMPLATE_INCONSISTENT;
        } else {
            made.push_back(list[i]);
        }
    }
    made.push_back({CKA_VALUE, secret, length});
    const CK_RV rv = real->C_CreateObject(session, made.data(), made.size(), secretObject);
    OPENSSL_cleanse(secret, sizeof secret);
    return rv;
}

CK_RV encapsulateKey(CK_SESSION_HANDLE, CK_MECHANISM *, CK_OBJECT_HANDLE, CK_ATTRIBUTE *, CK_ULONG,
                     CK_BYTE *, CK_ULONG *, CK_OBJECT_HANDLE *)
{
    return CKR_FUNCTION_NOT_SUPPORTED;
}

CK_RV getAttributeValue(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *list,
                        CK_ULONG count)
{
    const Attributes key = load(session, object);
    if (key.empty())
        return real->C_GetAttributeValue(session, object, list, count);
    CK_RV rv = CKR_OK;
    for (CK_ULONG i = 0; i < count; i++) {
        const auto found = list[i].type == privateValue ? key.end() : key.find(list[i].type);
        if (found == key.end()) {
            const bool isSecret =
                list[i].type == CKA_VALUE && toUlong(key, CKA_CLASS) == CKO_PRIVATE_KEY;
            list[i].ulValueLen = CK_UNAVAILABLE_INFORMATION;
            rv = isSecret ? CKR_ATTRIBUTE_SENSITIVE : CKR_ATTRIBUTE_TYPE_INVALID;
            continue;
        }
        const Bytes &value = found->second;
        if (list[i].pValue != nullptr && list[i].ulValueLen < value.size()) {
            list[i].ulValueLen = CK_UNAVAILABLE_INFORMATION;
            rv = CKR_BUFFER_TOO_SMALL;
            continue;
        }
        if (list[i].pValue != nullptr)
            std::copy(value.begin(), value.end(), static_cast<CK_BYTE *>(list[i].pValue));
        list[i].ulValueLen = value.size();
    }
    return rv;
}

CK_RV setAttributeValue(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *list,
                        CK_ULONG count)
{
    Attributes key = load(session, object);
    if (key.empty())
        return real->C_SetAttributeValue(session, object, list, count);
    for (auto &[type, value] : toMap(list, count))
        key[type] = value;
    Bytes value = pack(key);
    CK_ATTRIBUTE changed = {CKA_VALUE, value.data(), value.size()};
    return real->C_SetAttributeValue(session, object, &changed, 1);
}

std::vector<CK_OBJECT_HANDLE> findAll(CK_SESSION_HANDLE session, CK_ATTRIBUTE *list, CK_ULONG count,
                                      CK_RV &rv)
{
    std::vector<CK_OBJECT_HANDLE> found;
    rv = real->C_FindObjectsInit(session, list, count);
    if (rv != CKR_OK)
        return found;
    CK_OBJECT_HANDLE batch[64];
    CK_ULONG more = 0;
    while ((rv = real->C_FindObjects(session, batch, std::size(batch), &more)) == CKR_OK &&
           more > 0)
        found.insert(found.end(), batch, batch + more);
    real->C_FindObjectsFinal(session);
    return found;
}

/* What the real token finds less our data objects, and of these the keys that match. */
CK_RV findObjectsInit(CK_SESSION_HANDLE session, CK_ATTRIBUTE *list, CK_ULONG count)
{
    CK_RV rv = CKR_OK;
    Search search;
    for (const CK_OBJECT_HANDLE handle : findAll(session, list, count, rv)) {
        if (load(session, handle).empty())
            search.found.push_back(handle);
    }
    if (rv != CKR_OK)
        return rv;
    CK_ULONG objectClass = CKO_DATA;
    std::string owner = application;
    CK_ATTRIBUTE ours[] = {{CKA_CLASS, &objectClass, sizeof objectClass},
                           {CKA_APPLICATION, owner.data(), owner.size()}};
    const Attributes wanted = toMap(list, count);
    for (const CK_OBJECT_HANDLE handle : findAll(session, ours, std::size(ours), rv)) {
        const Attributes key = load(session, handle);
        const bool matches = std::all_of(wanted.begin(), wanted.end(), [&](const auto &attribute) {
            const auto found = key.find(attribute.first);
            return found != key.end() && found->second == attribute.second;
        });
        if (matches)
            search.found.push_back(handle);
    }
    const std::lock_guard lock(mutex);
    searches[session] = search;
    return rv;
}

CK_RV findObjects(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE *handles, CK_ULONG limit,
                  CK_ULONG *count)
{
    const std::lock_guard lock(mutex);
    const auto found = searches.find(session);
    if (found == searches.end())
        return CKR_OPERATION_NOT_INITIALIZED;
    Search &search = found->second;
    *count = std::min<CK_ULONG>(limit, search.found.size() - search.at);
    std::copy_n(search.found.begin() + static_cast<ptrdiff_t>(search.at), *count, handles);
    search.at += *count;
    return CKR_OK;
}

CK_RV findObjectsFinal(CK_SESSION_HANDLE session)
{
    const std::lock_guard lock(mutex);
    return searches.erase(session) != 0 ? CKR_OK : CKR_OPERATION_NOT_INITIALIZED;
}

std::vector<CK_MECHANISM_TYPE> addedMechanisms()
{
    std::vector<CK_MECHANISM_TYPE> added = {CKM_ML_KEM_KEY_PAIR_GEN, CKM_ML_KEM,
                                            CKM_ML_DSA_KEY_PAIR_GEN, CKM_ML_DSA};
    if (!isSet("HSMGATE_PQC_WITHOUT_MU"))
        added.push_back(CKM_ML_DSA_EXTERNAL_MU);
    return added;
}

CK_RV getMechanismList(CK_SLOT_ID slot, CK_MECHANISM_TYPE *list, CK_ULONG *count)
{
    CK_ULONG known = 0;
    CK_RV rv = real->C_GetMechanismList(slot, nullptr, &known);
    if (rv != CKR_OK)
        return rv;
    const std::vector<CK_MECHANISM_TYPE> added = addedMechanisms();
    const CK_ULONG total = known + added.size();
    if (list != nullptr && *count < total)
        rv = CKR_BUFFER_TOO_SMALL;
    else if (list != nullptr) {
        rv = real->C_GetMechanismList(slot, list, &known);
        std::copy(added.begin(), added.end(), list + known);
    }
    *count = total;
    return rv;
}

CK_RV getMechanismInfo(CK_SLOT_ID slot, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO *info)
{
    const std::vector<CK_MECHANISM_TYPE> added = addedMechanisms();
    if (std::find(added.begin(), added.end(), type) == added.end())
        return real->C_GetMechanismInfo(slot, type, info);
    const bool generates = type == CKM_ML_KEM_KEY_PAIR_GEN || type == CKM_ML_DSA_KEY_PAIR_GEN;
    const CK_FLAGS uses =
        type == CKM_ML_KEM ? CKF_ENCAPSULATE | CKF_DECAPSULATE : CKF_SIGN | CKF_VERIFY;
    *info = {0, 0, generates ? CKF_GENERATE_KEY_PAIR : uses};
    return CKR_OK;
}

bool open()
{
    static std::once_flag once;
    std::call_once(once, [] {
        const char *path = std::getenv("HSMGATE_PQC_MODULE");
        void *library = path == nullptr ? nullptr : dlopen(path, RTLD_NOW | RTLD_DEEPBIND);
        if (library == nullptr)
            return;
        const auto getList =
            reinterpret_cast<CK_C_GetFunctionList>(dlsym(library, "C_GetFunctionList"));
        if (getList == nullptr || getList(&real) != CKR_OK)
            return;
        functions = *real;
        functions.C_GetMechanismList = getMechanismList;
        functions.C_GetMechanismInfo = getMechanismInfo;
        functions.C_GenerateKeyPair = generateKeyPair;
        functions.C_SignInit = signInit;
        functions.C_Sign = sign;
        functions.C_GetAttributeValue = getAttributeValue;
        functions.C_SetAttributeValue = setAttributeValue;
        functions.C_FindObjectsInit = findObjectsInit;
        functions.C_FindObjects = findObjects;
        functions.C_FindObjectsFinal = findObjectsFinal;
        functions32.base.base = functions;
        functions32.base.base.version = {3, 2};
        functions32.base.C_SessionCancel = sessionCancel;
        functions32.C_EncapsulateKey = encapsulateKey;
        functions32.C_DecapsulateKey = decapsulateKey;
    });
    return real != nullptr;
}

} // namespace

extern "C" __attribute__((visibility("default"))) CK_RV C_GetFunctionList(CK_FUNCTION_LIST **list)
{
    if (!open())
        return CKR_GENERAL_ERROR;
    *list = &functions;
    return CKR_OK;
}

extern "C" __attribute__((visibility("default"))) CK_RV
C_GetInterface(CK_UTF8CHAR *, CK_VERSION *version, CK_INTERFACE **found, CK_FLAGS)
{
    static CK_UTF8CHAR name[] = "PKCS 11";
    static CK_INTERFACE interface = {name, &functions32, 0};
    if (!open())
        return CKR_GENERAL_ERROR;
    if (version != nullptr && (version->major != 3 || version->minor != 2))
        return CKR_FUNCTION_FAILED;
    *found = &interface;
    return CKR_OK;
}
