#include "operation.h"

#include "oaep.h"
#include "packed.h"
#include "session_objects.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <vector>

namespace hsmgate
{

namespace
{

/* PKCS#11 writes through pointers to non-const although it only reads there. */
CK_BYTE *bytes(std::span<const uint8_t> span)
{
    return const_cast<CK_BYTE *>(span.data());
}

/*
 * Calls `call(buffer, &length)` on `output` from byte `offset` on, and once more when the module
 * wants more room; the operation stays active in between (PKCS#11 section 5.2).
 */
template <typename Call>
CK_RV produce(SecretBytes &output, size_t offset, size_t room, size_t &produced, Call call)
{
    output.resize(offset + room);
    CK_ULONG length = room;
    CK_RV rv = call(output.data() + offset, &length);
    if (rv == CKR_BUFFER_TOO_SMALL) {
        /* A module that doesn't tell how much gets four times as much. */
        const size_t wanted =
            length > room && length != CK_UNAVAILABLE_INFORMATION ? length : 4 * room + 1024;
        if (wanted > outputBytesMax)
            return rv;
        output.resize(offset + wanted);
        length = wanted;
        rv = call(output.data() + offset, &length);
    }
    if (rv == CKR_OK && length > output.size() - offset)
        return CKR_GENERAL_ERROR;
    produced = rv == CKR_OK ? length : 0;
    return rv;
}

class Performance
{
public:
    Performance(Session &session, Job &job) : session_(session), f_(session.functions()), job_(job)
    {
    }

    CK_RV run()
    {
        switch (job_.op) {
        case Op::sign:
            return sign();
        case Op::verify:
            return verify();
        case Op::encrypt:
            return encrypt();
        case Op::decrypt:
            return decrypt();
        case Op::encryptVerify:
            return encryptVerify();
        case Op::random:
            return random();
        case Op::find:
            return find();
        case Op::getAttributes:
            return getAttributes();
        case Op::derive:
            return derive();
        case Op::deriveValue:
            return deriveValue();
        case Op::generateKey:
            return generateKey();
        case Op::generateKeyPair:
            return generateKeyPair();
        case Op::wrap:
            return wrap();
        case Op::unwrap:
            return unwrap();
        case Op::createObject:
            return createObject();
        case Op::destroy:
            return f_.C_DestroyObject(h(), job_.key);
        case Op::oaepDecrypt:
            return oaepDecrypt();
        case Op::setAttributes:
            return setAttributes();
        case Op::decapsulate:
            return decapsulate();
        }
        return CKR_ARGUMENTS_BAD;
    }

private:
    CK_SESSION_HANDLE h() const { return session_.handle(); }
    bool decodeMechanism() { return mechanism_.decode(job_.mechanism, job_.params); }

    CK_RV settled(CK_RV rv, Activity activity)
    {
        if (rv != CKR_OK && rv != CKR_SESSION_CLOSED && rv != CKR_SESSION_HANDLE_INVALID)
            session_.settle(activity);
        return rv;
    }

    CK_RV sign()
    {
        if (!decodeMechanism())
            return CKR_MECHANISM_PARAM_INVALID;
        const CK_RV rv = f_.C_SignInit(h(), mechanism_.get(), job_.key);
        if (rv != CKR_OK)
            return rv;
        return settled(produce(job_.output, 0, job_.outMax, job_.outputLength,
                               [this](CK_BYTE *out, CK_ULONG *length) {
                                   return f_.C_Sign(h(), bytes(job_.input), job_.input.size(), out,
                                                    length);
                               }),
                       Activity::sign);
    }

    CK_RV verify()
    {
        if (!decodeMechanism())
            return CKR_MECHANISM_PARAM_INVALID;
        CK_RV rv = f_.C_VerifyInit(h(), mechanism_.get(), job_.key);
        if (rv != CKR_OK)
            return rv;
        rv = f_.C_Verify(h(), bytes(job_.input), job_.input.size(), bytes(job_.aux),
                         job_.aux.size());
        /* A verdict, not a failure: the operation has ended. */
        return rv == CKR_SIGNATURE_INVALID || rv == CKR_SIGNATURE_LEN_RANGE
                   ? rv
                   : settled(rv, Activity::verify);
    }

    /* Output: the IV if the module chose it, ciphertext, tag. */
    CK_RV encrypt()
    {
        if (!decodeMechanism())
            return CKR_MECHANISM_PARAM_INVALID;
        const std::span<uint8_t> iv = mechanism_.moduleIv();
        std::fill(iv.begin(), iv.end(), uint8_t{0});
        CK_RV rv = f_.C_EncryptInit(h(), mechanism_.get(), job_.key);
        if (rv != CKR_OK)
            return rv;
        rv = settled(produce(job_.output, iv.size(), job_.outMax, job_.outputLength,
                             [this](CK_BYTE *out, CK_ULONG *length) {
                                 return f_.C_Encrypt(h(), bytes(job_.input), job_.input.size(), out,
                                                     length);
                             }),
                     Activity::encrypt);
        if (rv == CKR_OK && !iv.empty()) {
            std::copy(iv.begin(), iv.end(), job_.output.data());
            job_.outputLength += iv.size();
        }
        return rv;
    }

    CK_RV decryptInto(CK_MECHANISM *mechanism, std::span<const uint8_t> ciphertext,
                      SecretBytes &plaintext, size_t room, size_t &length)
    {
        const CK_RV rv = f_.C_DecryptInit(h(), mechanism, job_.key);
        if (rv != CKR_OK)
            return rv;
        return settled(produce(plaintext, 0, room, length,
                               [&](CK_BYTE *out, CK_ULONG *outLength) {
                                   return f_.C_Decrypt(h(), bytes(ciphertext), ciphertext.size(),
                                                       out, outLength);
                               }),
                       Activity::decrypt);
    }

    CK_RV decrypt()
    {
        if (!decodeMechanism())
            return CKR_MECHANISM_PARAM_INVALID;
        return decryptInto(mechanism_.get(), job_.input, job_.output, job_.outMax,
                           job_.outputLength);
    }

    CK_RV encryptVerify()
    {
        CK_RV rv = encrypt();
        if (rv != CKR_OK)
            return rv;
        const size_t ivLength = mechanism_.moduleIv().size();
        const std::span<const uint8_t> ciphertext =
            job_.output.span().subspan(ivLength, job_.outputLength - ivLength);
        SecretBytes again;
        size_t length = 0;
        rv = decryptInto(mechanism_.get(), ciphertext, again, ciphertext.size(), length);
        if (rv == CKR_OK && !equalConstantTime(again.span().first(length), job_.input))
            rv = CKR_DEVICE_ERROR;
        return rv;
    }

    CK_RV random()
    {
        job_.output.resize(job_.outMax);
        const CK_RV rv = f_.C_GenerateRandom(h(), job_.output.data(), job_.outMax);
        job_.outputLength = job_.outMax;
        return rv;
    }

    CK_RV find()
    {
        Attributes attributes;
        if (!attributes.decode(job_.aux))
            return CKR_ARGUMENTS_BAD;
        const size_t limit = job_.outMax / 8;
        CK_RV rv = f_.C_FindObjectsInit(h(), attributes.data(), attributes.count());
        if (rv != CKR_OK)
            return rv;
        std::vector<CK_OBJECT_HANDLE> handles;
        CK_OBJECT_HANDLE batch[256];
        while (handles.size() < limit) {
            const size_t wanted = std::min(limit - handles.size(), std::size(batch));
            CK_ULONG found = 0;
            rv = f_.C_FindObjects(h(), batch, wanted, &found);
            if (rv != CKR_OK || found == 0)
                break;
            handles.insert(handles.end(), batch, batch + std::min<size_t>(found, wanted));
        }
        if (rv != CKR_OK)
            return settled(rv, Activity::find);
        rv = f_.C_FindObjectsFinal(h());
        if (rv != CKR_OK)
            return settled(rv, Activity::find);
        job_.output.resize(handles.size() * 8);
        for (size_t i = 0; i < handles.size(); i++)
            putU64(job_.output.data() + 8 * i, handles[i]);
        job_.outputLength = handles.size() * 8;
        return CKR_OK;
    }

    /* Lengths first, values second (PKCS#11, C_GetAttributeValue); attributes that are missing or
     * sensitive are no failure. */
    CK_RV getAttributes()
    {
        const size_t count = job_.aux.size() / 8;
        if (count == 0 || job_.aux.size() % 8 != 0)
            return CKR_ARGUMENTS_BAD;
        std::vector<CK_ATTRIBUTE> wanted(count);
        for (size_t i = 0; i < count; i++)
            wanted[i] = {getU64(job_.aux.data() + 8 * i), nullptr, 0};
        CK_RV rv = f_.C_GetAttributeValue(h(), job_.key, wanted.data(), count);
        if (!readable(rv))
            return rv;
        size_t total = 0;
        for (CK_ATTRIBUTE &attribute : wanted) {
            if (attribute.ulValueLen == CK_UNAVAILABLE_INFORMATION || holdsTemplate(attribute.type))
                continue;
            if (attribute.ulValueLen > outputBytesMax)
                return CKR_GENERAL_ERROR;
            total += (attribute.ulValueLen + 7) & ~size_t{7};
        }
        if (total > outputBytesMax)
            return CKR_BUFFER_TOO_SMALL;
        SecretBytes values(total + 8);
        std::vector<CK_ATTRIBUTE> given;
        size_t at = 0;
        for (const CK_ATTRIBUTE &attribute : wanted) {
            if (attribute.ulValueLen == CK_UNAVAILABLE_INFORMATION || holdsTemplate(attribute.type))
                continue;
            given.push_back({attribute.type, values.data() + at, attribute.ulValueLen});
            at += (attribute.ulValueLen + 7) & ~size_t{7};
        }
        const std::vector<CK_ATTRIBUTE> room = given;
        if (!given.empty()) {
            rv = f_.C_GetAttributeValue(h(), job_.key, given.data(), given.size());
            if (!readable(rv))
                return rv;
        }
        return pack(wanted, room, given);
    }

    static bool readable(CK_RV rv)
    {
        return rv == CKR_OK || rv == CKR_ATTRIBUTE_SENSITIVE || rv == CKR_ATTRIBUTE_TYPE_INVALID;
    }

    CK_RV pack(const std::vector<CK_ATTRIBUTE> &wanted, const std::vector<CK_ATTRIBUTE> &room,
               const std::vector<CK_ATTRIBUTE> &given)
    {
        size_t length = 0;
        for (const CK_ATTRIBUTE &attribute : room)
            length += attribute.ulValueLen;
        job_.output.resize(wanted.size() * 12 + length);
        uint8_t *to = job_.output.data();
        size_t next = 0;
        for (const CK_ATTRIBUTE &attribute : wanted) {
            putU64(to, attribute.type);
            if (attribute.ulValueLen == CK_UNAVAILABLE_INFORMATION ||
                holdsTemplate(attribute.type)) {
                putU32(to + 8, packedUnavailable);
                to += 12;
                continue;
            }
            const CK_ATTRIBUTE &value = given[next];
            const bool there = value.ulValueLen <= room[next].ulValueLen;
            next++;
            putU32(to + 8, there ? static_cast<uint32_t>(value.ulValueLen) : packedUnavailable);
            to += 12;
            if (there && value.ulValueLen > 0) {
                std::memcpy(to, value.pValue, value.ulValueLen);
                to += value.ulValueLen;
            }
        }
        job_.outputLength = static_cast<size_t>(to - job_.output.data());
        return CKR_OK;
    }

    CK_RV derive()
    {
        Attributes attributes;
        if (!decodeMechanism())
            return CKR_MECHANISM_PARAM_INVALID;
        if (!attributes.decode(job_.aux))
            return CKR_ARGUMENTS_BAD;
        return f_.C_DeriveKey(h(), mechanism_.get(), job_.key, attributes.data(),
                              attributes.count(), &job_.handle);
    }

    CK_RV deriveValue()
    {
        const CK_RV rv = derive();
        return rv == CKR_OK ? takeValue() : rv;
    }

    /* PKCS#11 3.2 section 5.18.9. */
    CK_RV decapsulate()
    {
        const auto decapsulateKey = session_.later().decapsulateKey;
        if (decapsulateKey == nullptr)
            return CKR_FUNCTION_NOT_SUPPORTED;
        Attributes attributes;
        if (!decodeMechanism())
            return CKR_MECHANISM_PARAM_INVALID;
        if (!attributes.decode(job_.aux))
            return CKR_ARGUMENTS_BAD;
        const CK_RV rv =
            decapsulateKey(h(), mechanism_.get(), job_.key, attributes.data(), attributes.count(),
                           bytes(job_.input), job_.input.size(), &job_.handle);
        return rv == CKR_OK ? takeValue() : rv;
    }

    /* Reads the value of the secret that was just made, which is destroyed whatever happens. */
    CK_RV takeValue()
    {
        const CK_OBJECT_HANDLE derived = job_.handle;
        job_.handle = 0;
        CK_ATTRIBUTE value = {CKA_VALUE, nullptr, 0};
        CK_RV rv = f_.C_GetAttributeValue(h(), derived, &value, 1);
        if (rv == CKR_OK && value.ulValueLen > outputBytesMax)
            rv = CKR_GENERAL_ERROR;
        if (rv == CKR_OK) {
            const size_t length = value.ulValueLen;
            job_.output.resize(length);
            value.pValue = job_.output.data();
            rv = f_.C_GetAttributeValue(h(), derived, &value, 1);
            if (rv == CKR_OK && value.ulValueLen > length)
                rv = CKR_GENERAL_ERROR;
            job_.outputLength = rv == CKR_OK ? value.ulValueLen : 0;
        }
        const CK_RV destroyed = f_.C_DestroyObject(h(), derived);
        return rv != CKR_OK ? rv : destroyed;
    }

    CK_RV generateKey()
    {
        Attributes attributes;
        if (!decodeMechanism())
            return CKR_MECHANISM_PARAM_INVALID;
        if (!attributes.decode(job_.aux))
            return CKR_ARGUMENTS_BAD;
        return f_.C_GenerateKey(h(), mechanism_.get(), attributes.data(), attributes.count(),
                                &job_.handle);
    }

    CK_RV generateKeyPair()
    {
        Attributes publicKey;
        Attributes privateKey;
        if (!decodeMechanism())
            return CKR_MECHANISM_PARAM_INVALID;
        if (!publicKey.decode(job_.input) || !privateKey.decode(job_.aux))
            return CKR_ARGUMENTS_BAD;
        return f_.C_GenerateKeyPair(h(), mechanism_.get(), publicKey.data(), publicKey.count(),
                                    privateKey.data(), privateKey.count(), &job_.handle,
                                    &job_.handle2);
    }

    CK_RV wrap()
    {
        if (!decodeMechanism())
            return CKR_MECHANISM_PARAM_INVALID;
        return produce(
            job_.output, 0, job_.outMax, job_.outputLength, [this](CK_BYTE *out, CK_ULONG *length) {
                return f_.C_WrapKey(h(), mechanism_.get(), job_.key, job_.key2, out, length);
            });
    }

    CK_RV unwrap()
    {
        Attributes attributes;
        if (!decodeMechanism())
            return CKR_MECHANISM_PARAM_INVALID;
        if (!attributes.decode(job_.aux))
            return CKR_ARGUMENTS_BAD;
        return f_.C_UnwrapKey(h(), mechanism_.get(), job_.key, bytes(job_.input), job_.input.size(),
                              attributes.data(), attributes.count(), &job_.handle);
    }

    CK_RV createObject()
    {
        Attributes attributes;
        if (!attributes.decode(job_.aux))
            return CKR_ARGUMENTS_BAD;
        return f_.C_CreateObject(h(), attributes.data(), attributes.count(), &job_.handle);
    }

    CK_RV setAttributes()
    {
        Attributes attributes;
        if (!attributes.decode(job_.aux))
            return CKR_ARGUMENTS_BAD;
        return f_.C_SetAttributeValue(h(), job_.key, attributes.data(), attributes.count());
    }

    CK_RV oaepDecrypt()
    {
        const std::optional<HashId> hash = hashOf(job_.mechanism);
        if (!hash)
            return CKR_MECHANISM_INVALID;
        CK_MECHANISM raw = {CKM_RSA_X_509, nullptr, 0};
        size_t length = 0;
        const size_t modulusBytes = job_.input.size();
        const CK_RV rv = decryptInto(&raw, job_.input, job_.output, modulusBytes, length);
        if (rv != CKR_OK)
            return rv;
        if (length > modulusBytes)
            return CKR_GENERAL_ERROR;
        job_.output.resize(modulusBytes);
        if (length < modulusBytes) {
            /* A module that drops leading zeros; a valid message loses exactly one. */
            std::memmove(job_.output.data() + (modulusBytes - length), job_.output.data(), length);
            std::memset(job_.output.data(), 0, modulusBytes - length);
        }
        const ptrdiff_t decoded = decodeOaep(*hash, job_.output.span());
        job_.outputLength = decoded < 0 ? 0 : static_cast<size_t>(decoded);
        return decoded < 0 ? CKR_ENCRYPTED_DATA_INVALID : CKR_OK;
    }

    Session &session_;
    const CK_FUNCTION_LIST &f_;
    Job &job_;
    Mechanism mechanism_;
};

bool lostSession(CK_RV rv)
{
    /* One thread uses the session, so an active operation is a leftover of the module's own making.
     */
    return rv == CKR_SESSION_CLOSED || rv == CKR_SESSION_HANDLE_INVALID ||
           rv == CKR_OPERATION_ACTIVE;
}

/* Token objects outlive their session; their handles are handed out as they are. */
bool makesTokenObject(std::span<const uint8_t> packed)
{
    Attributes attributes;
    if (!attributes.decode(packed))
        return false;
    for (CK_ULONG i = 0; i < attributes.count(); i++) {
        const CK_ATTRIBUTE &attribute = attributes.data()[i];
        if (attribute.type == CKA_TOKEN && attribute.ulValueLen == sizeof(CK_BBOOL))
            return *static_cast<const CK_BBOOL *>(attribute.pValue) != CK_FALSE;
    }
    return false;
}

CK_RV unknownObject(Op op)
{
    const bool namesAnyObject =
        op == Op::destroy || op == Op::getAttributes || op == Op::setAttributes;
    return namesAnyObject ? CKR_OBJECT_HANDLE_INVALID : CKR_KEY_HANDLE_INVALID;
}

/* Runs the job with the module's handles in place of names. What a session object did whose
 * session was closed meanwhile may have been done with another one: its result doesn't count. */
CK_RV runNamed(Session &session, Job &job)
{
    SessionObjects &objects = SessionObjects::instance();
    const CK_OBJECT_HANDLE key = job.key;
    const CK_OBJECT_HANDLE key2 = job.key2;
    const uint64_t generation = objects.generation();
    const unsigned closings = session.closings();
    const std::optional<CK_OBJECT_HANDLE> handle = objects.resolve(key);
    const std::optional<CK_OBJECT_HANDLE> handle2 = objects.resolve(key2);
    if (!handle || !handle2)
        return unknownObject(job.op);
    job.key = *handle;
    job.key2 = *handle2;
    CK_RV rv = Performance(session, job).run();
    job.key = key;
    job.key2 = key2;
    /* Where the job itself cost its session, its own failure is the one to report. */
    if (objects.generation() != generation && session.closings() == closings && !lostSession(rv) &&
        (!objects.resolve(key) || !objects.resolve(key2))) {
        if (rv == CKR_OK && job.handle != 0)
            (void)session.functions().C_DestroyObject(session.handle(), job.handle);
        rv = unknownObject(job.op);
    }
    if (rv != CKR_OK)
        return rv;
    if (job.op == Op::destroy)
        objects.remove(key);
    const auto &first = job.op == Op::generateKeyPair ? job.input : job.aux;
    if (job.handle != 0 && !makesTokenObject(first))
        job.handle = objects.add(session, job.handle);
    if (job.handle2 != 0 && !makesTokenObject(job.aux))
        job.handle2 = objects.add(session, job.handle2);
    return CKR_OK;
}

CK_RV attempt(Session &session, Job &job) noexcept
{
    const CK_RV opened = session.open();
    if (opened != CKR_OK)
        return opened;
    try {
        return runNamed(session, job);
    } catch (const std::bad_alloc &) {
        return CKR_HOST_MEMORY;
    }
}

bool mayHideLostLogin(const Job &job)
{
    switch (job.rv) {
    case CKR_OK:
        return job.op == Op::find && job.outputLength == 0;
    case CKR_KEY_HANDLE_INVALID:
    case CKR_OBJECT_HANDLE_INVALID:
    case CKR_WRAPPING_KEY_HANDLE_INVALID:
    case CKR_UNWRAPPING_KEY_HANDLE_INVALID:
        return true;
    default:
        return false;
    }
}

bool repeatable(Op op)
{
    switch (op) {
    case Op::derive:
    case Op::generateKey:
    case Op::generateKeyPair:
    case Op::unwrap:
    case Op::createObject:
    case Op::destroy:
        return false;
    default:
        return true;
    }
}

} // namespace

void perform(Session &session, Job &job) noexcept
{
    job.rv = attempt(session, job);
    if (lostSession(job.rv)) {
        /* Sessions seldom end alone; the others' objects may be gone before their threads know. */
        if (job.rv != CKR_OPERATION_ACTIVE)
            SessionObjects::instance().forgetToken(session);
        const CK_RV reopened = session.reopen();
        if (reopened == CKR_OK && repeatable(job.op)) {
            job.handle = 0;
            job.handle2 = 0;
            job.output.clear();
            job.outputLength = 0;
            job.rv = attempt(session, job);
            if (lostSession(job.rv))
                (void)session.reopen();
        }
    }
    if (mayHideLostLogin(job) && session.lostLogin())
        job.rv = CKR_USER_NOT_LOGGED_IN;
    if (job.rv != CKR_OK) {
        job.output.clear();
        job.outputLength = 0;
        job.handle = 0;
        job.handle2 = 0;
    }
}

} // namespace hsmgate
