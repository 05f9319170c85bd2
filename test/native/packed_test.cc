#include "check.h"
#include "packed.h"

#include <cstring>

using namespace hsmgate;
using namespace hsmgate::test;

namespace
{

const char *const wellFormed[] = {
    "010c8000020000000102030405060708090a0b0caabb",
    "010c600100000000000000000000000000000000",
    "0250020000000000000200000000000000",
    "03500200000000000002000000000000002000000000000000",
    "0401000000000000000200000004ff",
    "0503000000c0ffee",
    "060707070707070707070707070707070701000000dd",
    "07010100000063",
    "08020000001011",
    "095102000000000000200100000099",
};

/* xorshift64*: reproducible bytes without a dependency. */
struct Generator {
    uint64_t state = 0x9e3779b97f4a7c15ULL;
    uint8_t next()
    {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        return static_cast<uint8_t>((state * 0x2545f4914f6cdd1dULL) >> 56);
    }
};

} // namespace

TEST("parameters decode when they are whole and only then")
{
    for (const char *hex : wellFormed) {
        std::vector<uint8_t> packed = fromHex(hex);
        Mechanism whole;
        CHECK(whole.decode(1, packed));
        CHECK(whole.get()->pParameter != nullptr);
        for (size_t length = 1; length < packed.size(); length++) {
            std::vector<uint8_t> cut(packed.begin(),
                                     packed.begin() + static_cast<ptrdiff_t>(length));
            Mechanism partial;
            CHECK(!partial.decode(1, cut));
        }
        packed.push_back(0);
        Mechanism longer;
        CHECK(!longer.decode(1, packed));
    }
}

TEST("no parameters make a mechanism without parameter")
{
    Mechanism mechanism;
    CHECK(mechanism.decode(CKM_RSA_PKCS, {}));
    CHECK_EQUAL(mechanism.get()->mechanism, CKM_RSA_PKCS);
    CHECK(mechanism.get()->pParameter == nullptr);
    CHECK_EQUAL(mechanism.get()->ulParameterLen, CK_ULONG{0});
}

TEST("GCM parameters carry IV, AAD and tag length")
{
    std::vector<uint8_t> packed = fromHex(wellFormed[0]);
    Mechanism mechanism;
    CHECK(mechanism.decode(CKM_AES_GCM, packed));
    const auto *gcm = static_cast<const CK_GCM_PARAMS *>(mechanism.get()->pParameter);
    CHECK_EQUAL(mechanism.get()->ulParameterLen, sizeof(CK_GCM_PARAMS));
    CHECK_EQUAL(toHex({gcm->pIv, gcm->ulIvLen}), std::string("0102030405060708090a0b0c"));
    CHECK_EQUAL(gcm->ulIvBits, CK_ULONG{96});
    CHECK_EQUAL(toHex({gcm->pAAD, gcm->ulAADLen}), std::string("aabb"));
    CHECK_EQUAL(gcm->ulTagBits, CK_ULONG{128});
    CHECK(mechanism.moduleIv().empty());
}

TEST("SP 800-108 parameters are a counter and the fixed input")
{
    std::vector<uint8_t> packed = fromHex(wellFormed[9]);
    Mechanism mechanism;
    CHECK(mechanism.decode(CKM_SP800_108_COUNTER_KDF, packed));
    const auto *kdf = static_cast<const CK_SP800_108_KDF_PARAMS *>(mechanism.get()->pParameter);
    CHECK_EQUAL(kdf->prfType, CKM_SHA256_HMAC);
    CHECK_EQUAL(kdf->ulNumberOfDataParams, CK_ULONG{2});
    CHECK_EQUAL(
        static_cast<const CK_SP800_108_COUNTER_FORMAT *>(kdf->pDataParams[0].pValue)->ulWidthInBits,
        CK_ULONG{32});
    CHECK_EQUAL(toHex({static_cast<const uint8_t *>(kdf->pDataParams[1].pValue),
                       kdf->pDataParams[1].ulValueLen}),
                std::string("99"));
}

TEST("a template decodes to aligned values, nested templates included")
{
    Attributes attributes;
    const std::vector<uint8_t> packed =
        fromHex("01000000000000000100000001"
                "6101000000000000080000002000000000000000"
                "12020040000000000d00000003010000000000000100000001");
    CHECK(attributes.decode(packed));
    CHECK_EQUAL(attributes.count(), CK_ULONG{3});
    const CK_ATTRIBUTE *list = attributes.data();
    CHECK_EQUAL(list[0].type, CKA_TOKEN);
    CHECK_EQUAL(list[0].ulValueLen, CK_ULONG{1});
    CHECK_EQUAL(reinterpret_cast<uintptr_t>(list[1].pValue) % 8, uintptr_t{0});
    CHECK_EQUAL(*static_cast<const CK_ULONG *>(list[1].pValue), CK_ULONG{32});
    CHECK_EQUAL(list[2].ulValueLen, sizeof(CK_ATTRIBUTE));
    const auto *nested = static_cast<const CK_ATTRIBUTE *>(list[2].pValue);
    CHECK_EQUAL(nested->type, CKA_SENSITIVE);
    CHECK_EQUAL(*static_cast<const CK_BBOOL *>(nested->pValue), CK_TRUE);
}

TEST("a template that is cut, or nested twice, is refused")
{
    const std::vector<uint8_t> packed = fromHex("6101000000000000080000002000000000000000");
    for (size_t length = 1; length < packed.size(); length++) {
        Attributes attributes;
        CHECK(!attributes.decode(std::span(packed).first(length)));
    }
    Attributes twice;
    CHECK(!twice.decode(fromHex("1202004000000000"
                                "19000000"
                                "1202004000000000"
                                "0d000000"
                                "03010000000000000100000001")));
    Attributes none;
    CHECK(none.decode({}));
    CHECK_EQUAL(none.count(), CK_ULONG{0});
}

TEST("arbitrary bytes never lead outside the buffers")
{
    Generator random;
    for (int round = 0; round < 20000; round++) {
        std::vector<uint8_t> bytes(random.next() % 96);
        for (uint8_t &byte : bytes)
            byte = random.next();
        /* Small lengths, so that many decode. */
        if (bytes.size() > 11)
            bytes[9] = bytes[10] = bytes[11] = 0;
        Attributes attributes;
        if (attributes.decode(bytes)) {
            for (CK_ULONG i = 0; i < attributes.count(); i++) {
                const CK_ATTRIBUTE &attribute = attributes.data()[i];
                (void)toHex({static_cast<const uint8_t *>(attribute.pValue), attribute.ulValueLen});
            }
        }
        if (!bytes.empty())
            bytes[0] = static_cast<uint8_t>(bytes[0] % 12);
        Mechanism mechanism;
        (void)mechanism.decode(1, bytes);
    }
}
