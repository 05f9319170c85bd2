/*
 * From packed bytes (native/README.md) to the structures of PKCS#11. Every length is checked
 * against the bytes that are there. What these objects build points into themselves or into the
 * packed bytes: both outlive the PKCS#11 call.
 */
#pragma once

#include "cryptoki.h"
#include "secret.h"

#include <cstdint>
#include <span>

namespace hsmgate
{

/* The wire values of `paramKind` in src/hsm/worker/addon.ts. */
enum class ParamKind : uint8_t {
    gcm = 1,
    oaep = 2,
    pss = 3,
    ecdh = 4,
    stringData = 5,
    cbcData = 6,
    eddsa = 7,
    raw = 8,
    sp800108 = 9,
};

class Reader
{
public:
    explicit Reader(std::span<uint8_t> bytes) : rest_(bytes) {}
    uint8_t u8() { return static_cast<uint8_t>(integer(1)); }
    uint32_t u32() { return static_cast<uint32_t>(integer(4)); }
    uint64_t u64() { return integer(8); }
    std::span<uint8_t> take(size_t length);
    /* False once anything was read beyond the end. */
    bool good() const { return good_; }
    bool ended() const { return good_ && rest_.empty(); }
    size_t left() const { return rest_.size(); }

private:
    uint64_t integer(size_t length);
    std::span<uint8_t> rest_;
    bool good_ = true;
};

class Mechanism
{
public:
    /* False when `packed` is malformed. No bytes at all = a mechanism without parameter. */
    bool decode(CK_MECHANISM_TYPE type, std::span<uint8_t> packed);
    CK_MECHANISM *get() { return &mechanism_; }
    /* The IV that the module wrote (or, before the call, will write); empty when the caller gave
     * one. */
    std::span<uint8_t> moduleIv() const { return moduleIv_; }

private:
    template <typename Params> void use(Params &params);

    CK_MECHANISM mechanism_{};
    union {
        CK_GCM_PARAMS gcm;
        CK_RSA_PKCS_OAEP_PARAMS oaep;
        CK_RSA_PKCS_PSS_PARAMS pss;
        CK_ECDH1_DERIVE_PARAMS ecdh;
        CK_KEY_DERIVATION_STRING_DATA stringData;
        CK_AES_CBC_ENCRYPT_DATA_PARAMS cbcData;
        CK_EDDSA_PARAMS eddsa;
        CK_SP800_108_KDF_PARAMS sp800108;
    } params_{};
    CK_SP800_108_COUNTER_FORMAT counter_{};
    CK_PRF_DATA_PARAM prfData_[2]{};
    /* Aligned, because the bytes may be a CK_ULONG. */
    SecretBytes raw_;
    std::span<uint8_t> moduleIv_;
};

class Attributes
{
public:
    /* False when `packed` is malformed. Values are copied to aligned places: modules read CK_ULONGs
     * through casts. */
    bool decode(std::span<const uint8_t> packed);
    CK_ATTRIBUTE *data() { return first_; }
    CK_ULONG count() const { return count_; }

private:
    CK_ATTRIBUTE *fill(std::span<const uint8_t> packed, unsigned depth, CK_ULONG &count);

    SecretBytes arena_;
    size_t used_ = 0;
    CK_ATTRIBUTE *first_ = nullptr;
    CK_ULONG count_ = 0;
};

/* Whether a value of this type is itself a template (CKA_WRAP_TEMPLATE, CKA_UNWRAP_TEMPLATE, ...).
 */
constexpr bool holdsTemplate(CK_ATTRIBUTE_TYPE type)
{
    return (type & CKF_ARRAY_ATTRIBUTE) != 0 && (type & 0x80000000UL) == 0 &&
           type != CKA_ALLOWED_MECHANISMS;
}

/* Length that marks an attribute without value in packed attributes. */
constexpr uint32_t packedUnavailable = 0xffffffff;

void putU32(uint8_t *to, uint32_t value);
void putU64(uint8_t *to, uint64_t value);
uint64_t getU64(const uint8_t *from);

} // namespace hsmgate
