/* Vectors: the examples of FIPS 180-4 (NIST "Secure Hash Standard, example algorithms"); lengths
 * and MGF1 made with Python's hashlib. */
#include "check.h"
#include "hash.h"

#include <cstring>

using namespace hsmgate;
using namespace hsmgate::test;

namespace
{

struct Vector {
    CK_MECHANISM_TYPE mechanism;
    /* "", "abc", the 896-bit message, a million times "a" */
    const char *digests[4];
    /* Digest over the digests of bytes (7 i + n) mod 256, i < n, for n = 0 ... 300. */
    const char *lengths;
    /* 70 bytes of MGF1("seed"). */
    const char *mgf1;
};

const Vector vectors[] = {
    {CKM_SHA_1,
     {"da39a3ee5e6b4b0d3255bfef95601890afd80709", "a9993e364706816aba3e25717850c26c9cd0d89d",
      "a49b2446a02c645bf419f995b67091253a04a259", "34aa973cd4c4daa4f61eeb2bdbad27316534016f"},
     "e570432b09ac39935ad256f819b381ba3900dbbd",
     "09d8db2214e56d4dec8f9a3099b851a46886fe3f682e3c4f6a35ff98dd072c11"
     "24a6b7b411e543f204ffbe1792ab51164538516a486f13eb429493635ecc3410"
     "846592b58abc"},
    {CKM_SHA256,
     {"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
      "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
      "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1",
      "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
     "60d63ff40b5558727a9b786ac0be9300f7ca58fd9ddd3b2f3681b369018a87dc",
     "336f28a022193939585a1b4edc989f870917f3a5f6ddd16e4fb357084a6bdfc2"
     "73a649427664d03bbb062e456425488416c52c64ef46fe011ed2a983f30ea9b9"
     "0eeb559ba519"},
    {CKM_SHA384,
     {"38b060a751ac96384cd9327eb1b1e36a21fdb71114be07434c0cc7bf63f6e1da"
      "274edebfe76f65fbd51ad2f14898b95b",
      "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed"
      "8086072ba1e7cc2358baeca134c825a7",
      "09330c33f71147e83d192fc782cd1b4753111b173b3b05d22fa08086e3b0f712"
      "fcc7c71a557e2db966c3e9fa91746039",
      "9d0e1809716474cb086e834e310a4a1ced149e9c00f248527972cec5704c2a5b"
      "07b8b3dc38ecc4ebae97ddd87f3d8985"},
     "022ac2b92dcdb9358b044b9475cd22bacae49d2510f5493370847b4c61050cac"
     "c2325d1d80119adbc3ca9eaa7ecd3de7",
     "e721d6bbe0d42240bced67392f8a8edb1f79e25ed92a70a4b1521722f1cb8177"
     "2d8539173cc5055fabed6ce53315711586b889b1fec78c386fb8211e61ce989f"
     "3c7aa431027c"},
    {CKM_SHA512,
     {"cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce"
      "47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e",
      "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
      "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
      "8e959b75dae313da8cf4f72814fc143f8f7779c6eb9f7fa17299aeadb6889018"
      "501d289e4900f7e4331b99dec4b5433ac7d329eeb6dd26545e96e55b874be909",
      "e718483d0ce769644e2e42c7bc15b4638e1f98b13b2044285632a803afa973eb"
      "de0ff244877ea60a4cb0432ce577c31beb009c5c2c49aa2e4eadb217ad8cc09b"},
     "e1f2f7d5d8fc48db06ec2a0eed639593f549caffa40245747258761214a3ec07"
     "134903fde52ace6cfae161a82097ba01f33a97d48dd6a80d4521d96d7401357e",
     "b76f0d507aafecd10f1a1f9893059f9d691de22082c56b9057c38ea555a50614"
     "8fda313e51515d18522c4e70066f8adfc773cde314d480b9521773495e3069ad"
     "24cb16e3eebf"},
};

std::span<const uint8_t> bytesOf(const std::string &text)
{
    return {reinterpret_cast<const uint8_t *>(text.data()), text.size()};
}

std::string digest(HashId id, const std::string &message, size_t chunk)
{
    Hash hash(id);
    for (size_t at = 0; at < message.size(); at += chunk)
        hash.update(bytesOf(message).subspan(at, std::min(chunk, message.size() - at)));
    uint8_t out[hashBytesMax];
    hash.finish(out);
    return toHex({out, hashBytes(id)});
}

} // namespace

TEST("a hash gives the digests of FIPS 180-4, however the message is cut")
{
    const std::string messages[] = {"", "abc",
                                    "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn"
                                    "hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
                                    std::string(1000000, 'a')};
    for (const Vector &vector : vectors) {
        const HashId id = hashOf(vector.mechanism).value();
        for (size_t i = 0; i < std::size(messages); i++) {
            for (const size_t chunk : {size_t{1}, size_t{63}, size_t{129}, size_t{1000000}})
                CHECK_EQUAL(digest(id, messages[i], chunk), std::string(vector.digests[i]));
        }
    }
}

TEST("a hash is right at every length around its blocks")
{
    for (const Vector &vector : vectors) {
        const HashId id = hashOf(vector.mechanism).value();
        Hash all(id);
        for (size_t n = 0; n <= 300; n++) {
            std::vector<uint8_t> message(n);
            for (size_t i = 0; i < n; i++)
                message[i] = static_cast<uint8_t>(7 * i + n);
            Hash hash(id);
            hash.update(message);
            uint8_t out[hashBytesMax];
            hash.finish(out);
            all.update({out, hashBytes(id)});
        }
        uint8_t out[hashBytesMax];
        all.finish(out);
        CHECK_EQUAL(toHex({out, hashBytes(id)}), std::string(vector.lengths));
    }
}

TEST("MGF1 masks by exclusive or")
{
    for (const Vector &vector : vectors) {
        std::vector<uint8_t> target(70);
        mgf1Xor(hashOf(vector.mechanism).value(), bytesOf("seed"), target);
        CHECK_EQUAL(toHex(target), std::string(vector.mgf1));
        mgf1Xor(hashOf(vector.mechanism).value(), bytesOf("seed"), target);
        CHECK_EQUAL(toHex(target), toHex(std::vector<uint8_t>(70)));
    }
}

TEST("a mechanism that is no digest names no hash")
{
    CHECK(!hashOf(CKM_RSA_PKCS).has_value());
    CHECK(!hashOf(CKM_SHA256_HMAC).has_value());
}
