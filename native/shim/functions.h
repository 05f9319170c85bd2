/*
 * Every function of CK_FUNCTION_LIST (PKCS#11 Base 2.40, section 3.6) in the order of the standard,
 * with the meaning of each argument. All else is generated from this table: the pass-through, the
 * names in rules, the counters.
 */
#pragma once

#include "cryptoki.h"

#include <array>
#include <cstddef>
#include <string_view>

/* clang-format off */
#define HSMGATE_SHIM_FUNCTIONS(X) \
    X(C_Initialize, Pointer) \
    X(C_Finalize, Pointer) \
    X(C_GetInfo, Pointer) \
    X(C_GetFunctionList, Pointer) \
    X(C_GetSlotList, Flag, Pointer, Pointer) \
    X(C_GetSlotInfo, Slot, Pointer) \
    X(C_GetTokenInfo, Slot, Pointer) \
    X(C_GetMechanismList, Slot, Pointer, Pointer) \
    X(C_GetMechanismInfo, Slot, Number, Pointer) \
    X(C_InitToken, Slot, Pointer, Number, Pointer) \
    X(C_InitPIN, Session, Pointer, Number) \
    X(C_SetPIN, Session, Pointer, Number, Pointer, Number) \
    X(C_OpenSession, Slot, Number, Pointer, Pointer, NewSession) \
    X(C_CloseSession, Session) \
    X(C_CloseAllSessions, Slot) \
    X(C_GetSessionInfo, Session, Pointer) \
    X(C_GetOperationState, Session, Pointer, Pointer) \
    X(C_SetOperationState, Session, Pointer, Number, Key, Key) \
    X(C_Login, Session, Number, Pointer, Number) \
    X(C_Logout, Session) \
    X(C_CreateObject, Session, Pointer, Number, NewHandle) \
    X(C_CopyObject, Session, Object, Pointer, Number, NewHandle) \
    X(C_DestroyObject, Session, Object) \
    X(C_GetObjectSize, Session, Object, Pointer) \
    X(C_GetAttributeValue, Session, Object, Pointer, Number) \
    X(C_SetAttributeValue, Session, Object, Pointer, Number) \
    X(C_FindObjectsInit, Session, Pointer, Number) \
    X(C_FindObjects, Session, FoundHandles, Number, FoundCount) \
    X(C_FindObjectsFinal, Session) \
    X(C_EncryptInit, Session, Pointer, Key) \
    X(C_Encrypt, Session, Input, InputLength, Output, OutputLength) \
    X(C_EncryptUpdate, Session, Input, InputLength, Output, OutputLength) \
    X(C_EncryptFinal, Session, Output, OutputLength) \
    X(C_DecryptInit, Session, Pointer, Key) \
    X(C_Decrypt, Session, Input, InputLength, Output, OutputLength) \
    X(C_DecryptUpdate, Session, Input, InputLength, Output, OutputLength) \
    X(C_DecryptFinal, Session, Output, OutputLength) \
    X(C_DigestInit, Session, Pointer) \
    X(C_Digest, Session, Input, InputLength, Output, OutputLength) \
    X(C_DigestUpdate, Session, Input, InputLength) \
    X(C_DigestKey, Session, Key) \
    X(C_DigestFinal, Session, Output, OutputLength) \
    X(C_SignInit, Session, Pointer, Key) \
    X(C_Sign, Session, Input, InputLength, Output, OutputLength) \
    X(C_SignUpdate, Session, Input, InputLength) \
    X(C_SignFinal, Session, Output, OutputLength) \
    X(C_SignRecoverInit, Session, Pointer, Key) \
    X(C_SignRecover, Session, Input, InputLength, Output, OutputLength) \
    X(C_VerifyInit, Session, Pointer, Key) \
    X(C_Verify, Session, Input, InputLength, Pointer, Number) \
    X(C_VerifyUpdate, Session, Input, InputLength) \
    X(C_VerifyFinal, Session, Pointer, Number) \
    X(C_VerifyRecoverInit, Session, Pointer, Key) \
    X(C_VerifyRecover, Session, Input, InputLength, Output, OutputLength) \
    X(C_DigestEncryptUpdate, Session, Input, InputLength, Output, OutputLength) \
    X(C_DecryptDigestUpdate, Session, Input, InputLength, Output, OutputLength) \
    X(C_SignEncryptUpdate, Session, Input, InputLength, Output, OutputLength) \
    X(C_DecryptVerifyUpdate, Session, Input, InputLength, Output, OutputLength) \
    X(C_GenerateKey, Session, Pointer, Pointer, Number, NewHandle) \
    X(C_GenerateKeyPair, Session, Pointer, Pointer, Number, Pointer, Number, NewHandle, NewHandle) \
    X(C_WrapKey, Session, Pointer, WrappingKey, Key, Output, OutputLength) \
    X(C_UnwrapKey, Session, Pointer, UnwrappingKey, Input, InputLength, Pointer, Number, NewHandle) \
    X(C_DeriveKey, Session, Pointer, Key, Pointer, Number, NewHandle) \
    X(C_SeedRandom, Session, Input, InputLength) \
    X(C_GenerateRandom, Session, Output, Number) \
    X(C_GetFunctionStatus, Session) \
    X(C_CancelFunction, Session) \
    X(C_WaitForSlotEvent, Number, Pointer, Pointer)
/* clang-format on */

namespace hsmgate::shim
{

enum class Function : unsigned char {
#define X(name, ...) name,
    HSMGATE_SHIM_FUNCTIONS(X)
#undef X
};

constexpr std::string_view functionNames[] = {
#define X(name, ...) #name,
    HSMGATE_SHIM_FUNCTIONS(X)
#undef X
};

constexpr size_t functionCount = std::size(functionNames);

/* CK_FUNCTION_LIST as memory: a version and as many pointers. */
struct FunctionList {
    CK_VERSION version;
    void (*functions[functionCount])();
};

static_assert(sizeof(FunctionList) == sizeof(CK_FUNCTION_LIST));

constexpr size_t indexOf(Function function)
{
    return static_cast<size_t>(function);
}

} // namespace hsmgate::shim
