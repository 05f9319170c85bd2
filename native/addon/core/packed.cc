#include "packed.h"

#include <cstring>

namespace hsmgate
{

namespace
{

constexpr size_t attributeHeaderBytes = 12;

size_t alignUp(size_t length)
{
    return (length + 7) & ~static_cast<size_t>(7);
}

bool fits(const Reader &reader)
{
    return reader.ended();
}

} // namespace

void putU32(uint8_t *to, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        to[i] = static_cast<uint8_t>(value >> (8 * i));
}

void putU64(uint8_t *to, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        to[i] = static_cast<uint8_t>(value >> (8 * i));
}

uint64_t getU64(const uint8_t *from)
{
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--)
        value = value << 8 | from[i];
    return value;
}

uint64_t Reader::integer(size_t length)
{
    const std::span<uint8_t> bytes = take(length);
    uint64_t value = 0;
    for (size_t i = bytes.size(); i > 0; i--)
        value = value << 8 | bytes[i - 1];
    return value;
}

std::span<uint8_t> Reader::take(size_t length)
{
    if (!good_ || length > rest_.size()) {
        good_ = false;
        return {};
    }
    const std::span<uint8_t> taken = rest_.first(length);
    rest_ = rest_.subspan(length);
    return taken;
}

template <typename Params> void Mechanism::use(Params &params)
{
    mechanism_.pParameter = &params;
    mechanism_.ulParameterLen = sizeof params;
}

bool Mechanism::decode(CK_MECHANISM_TYPE type, std::span<uint8_t> packed)
{
    mechanism_ = {type, nullptr, 0};
    moduleIv_ = {};
    if (packed.empty())
        return true;
    Reader reader(packed);
    switch (static_cast<ParamKind>(reader.u8())) {
    case ParamKind::gcm: {
        const size_t ivLength = reader.u8();
        const CK_ULONG tagBits = reader.u8();
        const uint8_t ivMode = reader.u8();
        const size_t aadLength = reader.u32();
        const std::span<uint8_t> iv = reader.take(ivLength);
        const std::span<uint8_t> aad = reader.take(aadLength);
        params_.gcm = {iv.data(),  iv.size(), iv.size() * 8, aad.empty() ? nullptr : aad.data(),
                       aad.size(), tagBits};
        use(params_.gcm);
        if (ivMode == 1)
            moduleIv_ = iv;
        return fits(reader) && ivMode <= 1 && !iv.empty();
    }
    case ParamKind::oaep: {
        const CK_MECHANISM_TYPE hashAlg = reader.u64();
        const CK_ULONG mgf = reader.u64();
        params_.oaep = {hashAlg, mgf, CKZ_DATA_SPECIFIED, nullptr, 0};
        use(params_.oaep);
        return fits(reader);
    }
    case ParamKind::pss: {
        const CK_MECHANISM_TYPE hashAlg = reader.u64();
        const CK_ULONG mgf = reader.u64();
        const CK_ULONG saltLength = reader.u64();
        params_.pss = {hashAlg, mgf, saltLength};
        use(params_.pss);
        return fits(reader);
    }
    case ParamKind::ecdh: {
        const CK_ULONG kdf = reader.u64();
        const std::span<uint8_t> publicData = reader.take(reader.u32());
        params_.ecdh = {kdf, 0, nullptr, publicData.size(), publicData.data()};
        use(params_.ecdh);
        return fits(reader);
    }
    case ParamKind::stringData: {
        const std::span<uint8_t> data = reader.take(reader.u32());
        params_.stringData = {data.data(), data.size()};
        use(params_.stringData);
        return fits(reader);
    }
    case ParamKind::cbcData: {
        const std::span<uint8_t> iv = reader.take(16);
        const std::span<uint8_t> data = reader.take(reader.u32());
        if (!fits(reader))
            return false;
        std::memcpy(params_.cbcData.iv, iv.data(), iv.size());
        params_.cbcData.pData = data.data();
        params_.cbcData.length = data.size();
        use(params_.cbcData);
        return true;
    }
    case ParamKind::eddsa: {
        const CK_BBOOL prehash = reader.u8();
        const std::span<uint8_t> context = reader.take(reader.u32());
        params_.eddsa = {prehash, context.size(), context.empty() ? nullptr : context.data()};
        use(params_.eddsa);
        return fits(reader) && prehash <= 1;
    }
    case ParamKind::raw: {
        const std::span<uint8_t> bytes = reader.take(reader.u32());
        if (!fits(reader))
            return false;
        raw_ = SecretBytes(bytes);
        mechanism_.pParameter = raw_.data();
        mechanism_.ulParameterLen = raw_.size();
        return true;
    }
    case ParamKind::sp800108: {
        const CK_MECHANISM_TYPE prf = reader.u64();
        const CK_ULONG counterBits = reader.u8();
        const std::span<uint8_t> fixedInput = reader.take(reader.u32());
        counter_ = {CK_FALSE, counterBits};
        prfData_[0] = {CK_SP800_108_ITERATION_VARIABLE, &counter_, sizeof counter_};
        prfData_[1] = {CK_SP800_108_BYTE_ARRAY, fixedInput.data(), fixedInput.size()};
        params_.sp800108 = {prf, fixedInput.empty() ? 1UL : 2UL, prfData_, 0, nullptr};
        use(params_.sp800108);
        return fits(reader);
    }
    }
    return false;
}

bool Attributes::decode(std::span<const uint8_t> packed)
{
    /* One attribute takes 12 + n packed bytes and at most 24 + n + 7 here, at every depth. */
    arena_.clear();
    arena_.resize(packed.size() * 3 + 8);
    used_ = 0;
    count_ = 0;
    first_ = fill(packed, 0, count_);
    return first_ != nullptr;
}

/* Returns the attributes, or null when `packed` is malformed. */
CK_ATTRIBUTE *Attributes::fill(std::span<const uint8_t> packed, unsigned depth, CK_ULONG &count)
{
    CK_ULONG found = 0;
    for (std::span<const uint8_t> rest = packed; !rest.empty(); found++) {
        if (rest.size() < attributeHeaderBytes)
            return nullptr;
        const size_t length = static_cast<size_t>(getU64(rest.data() + 4) >> 32);
        if (length > rest.size() - attributeHeaderBytes)
            return nullptr;
        rest = rest.subspan(attributeHeaderBytes + length);
    }
    CK_ATTRIBUTE *attributes = reinterpret_cast<CK_ATTRIBUTE *>(arena_.data() + used_);
    used_ += found * sizeof(CK_ATTRIBUTE);
    const uint8_t *at = packed.data();
    for (CK_ULONG i = 0; i < found; i++) {
        const CK_ATTRIBUTE_TYPE type = getU64(at);
        const size_t length = static_cast<size_t>(getU64(at + 4) >> 32);
        at += attributeHeaderBytes;
        if (holdsTemplate(type)) {
            CK_ULONG inner = 0;
            CK_ATTRIBUTE *nested = depth > 0 ? nullptr : fill({at, length}, depth + 1, inner);
            if (nested == nullptr)
                return nullptr;
            attributes[i] = {type, nested, inner * sizeof(CK_ATTRIBUTE)};
        } else {
            uint8_t *value = arena_.data() + used_;
            if (length > 0)
                std::memcpy(value, at, length);
            used_ += alignUp(length);
            attributes[i] = {type, value, length};
        }
        at += length;
    }
    count = found;
    return attributes;
}

} // namespace hsmgate
