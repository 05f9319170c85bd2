/*
 * AlgorithmIdentifiers of signatures in DER, written byte by byte: RFC 8017 appendix A.2 and RFC
 * 4055 (RSA; with the NULL parameters of hashes that RFC 4055, section 2.1 asks for), RFC 5758
 * section 3.2 (ECDSA), RFC 8410 (Ed25519).
 */
#include "provider.h"
#include "signature.h"

#include <string.h>

/* The last arc of each hash's OIDs: RSA with it, ECDSA with it, the hash alone. */
static const struct {
    uint8_t rsa, ecdsa, hash;
} arcs[] = {
    [HASH_SHA256] = {11, 2, 1},
    [HASH_SHA384] = {12, 3, 2},
    [HASH_SHA512] = {13, 4, 3},
};

static size_t copy(uint8_t *out, size_t capacity, const uint8_t *bytes, size_t count)
{
    if (count > capacity)
        return 0;
    memcpy(out, bytes, count);
    return count;
}

static size_t pss_identifier(uint8_t hash_arc, uint8_t mgf_arc, uint16_t salt_bytes, uint8_t *out,
                             size_t capacity)
{
    const uint8_t fixed[] = {/* id-RSASSA-PSS */
                             0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a,
                             /* RSASSA-PSS-params; its length is set below */
                             0x30, 0x00,
                             /* [0] hashAlgorithm */
                             0xa0, 0x0f, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03,
                             0x04, 0x02, hash_arc, 0x05, 0x00,
                             /* [1] maskGenAlgorithm: id-mgf1 */
                             0xa1, 0x1c, 0x30, 0x1a, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d,
                             0x01, 0x01, 0x08, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65,
                             0x03, 0x04, 0x02, mgf_arc, 0x05, 0x00};
    enum { PARAMS_AT = 13, PARAMS_LENGTH_AT = 12 };
    uint8_t bytes[2 + sizeof fixed + 6] = {0x30};
    uint8_t *at = bytes + 2;
    memcpy(at, fixed, sizeof fixed);
    at += sizeof fixed;
    /* [2] saltLength, left out where it is the default of 20 (DER) */
    if (salt_bytes != 20) {
        const uint8_t high = (uint8_t)(salt_bytes >> 8), low = (uint8_t)salt_bytes;
        const bool wide = salt_bytes > 127;
        *at++ = 0xa2;
        *at++ = wide ? 4 : 3;
        *at++ = 0x02;
        *at++ = wide ? 2 : 1;
        if (wide)
            *at++ = high;
        *at++ = low;
    }
    const size_t count = (size_t)(at - bytes);
    bytes[1] = (uint8_t)(count - 2);
    bytes[2 + PARAMS_LENGTH_AT] = (uint8_t)(count - 2 - PARAMS_AT);
    return copy(out, capacity, bytes, count);
}

size_t algorithm_identifier(const struct signature *signature, uint8_t *out, size_t capacity)
{
    const enum wire_hash hash = signature->hash;
    if (signature->key->type == KEY_ED25519) {
        static const uint8_t bytes[] = {0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70};
        return copy(out, capacity, bytes, sizeof bytes);
    }
    if (hash == HASH_NONE)
        return 0;
    if (signature->key->type == KEY_EC) {
        const uint8_t bytes[] = {0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86,
                                 0x48, 0xce, 0x3d, 0x04, 0x03, arcs[hash].ecdsa};
        return copy(out, capacity, bytes, sizeof bytes);
    }
    if (!signature->is_pss) {
        const uint8_t bytes[] = {0x30, 0x0d, 0x06, 0x09, 0x2a,           0x86, 0x48, 0x86,
                                 0xf7, 0x0d, 0x01, 0x01, arcs[hash].rsa, 0x05, 0x00};
        return copy(out, capacity, bytes, sizeof bytes);
    }
    uint16_t salt_bytes;
    const enum wire_hash mgf = signature->mgf_hash != HASH_NONE ? signature->mgf_hash : hash;
    return signature_salt_bytes(signature, &salt_bytes)
               ? pss_identifier(arcs[hash].hash, arcs[mgf].hash, salt_bytes, out, capacity)
               : 0;
}
