/*
 * PKCS#11 types, values and the function list, as far as hsmgate uses them. Written from the names
 * and numbers of the OASIS specifications "PKCS #11 Base 2.40", "3.0" and "3.2"; no vendor header
 * is included anywhere. CK_ULONG has 64 bits and structures are not packed: the Unix ABI of every
 * 64-bit module.
 */
#pragma once

#include <cstdint>

extern "C" {

using CK_BYTE = unsigned char;
using CK_CHAR = CK_BYTE;
using CK_UTF8CHAR = CK_BYTE;
using CK_BBOOL = CK_BYTE;
using CK_ULONG = unsigned long;
using CK_FLAGS = CK_ULONG;
using CK_RV = CK_ULONG;
using CK_SLOT_ID = CK_ULONG;
using CK_SESSION_HANDLE = CK_ULONG;
using CK_OBJECT_HANDLE = CK_ULONG;
using CK_ATTRIBUTE_TYPE = CK_ULONG;
using CK_MECHANISM_TYPE = CK_ULONG;
using CK_USER_TYPE = CK_ULONG;
using CK_VOID_PTR = void *;

static_assert(sizeof(CK_ULONG) == 8, "hsmgate needs 64-bit CK_ULONG");

/* Return values that the core acts upon; all others pass through by number. */
constexpr CK_RV CKR_OK = 0x00;
constexpr CK_RV CKR_HOST_MEMORY = 0x02;
constexpr CK_RV CKR_GENERAL_ERROR = 0x05;
constexpr CK_RV CKR_FUNCTION_FAILED = 0x06;
constexpr CK_RV CKR_ARGUMENTS_BAD = 0x07;
constexpr CK_RV CKR_ATTRIBUTE_SENSITIVE = 0x11;
constexpr CK_RV CKR_ATTRIBUTE_TYPE_INVALID = 0x12;
constexpr CK_RV CKR_DEVICE_ERROR = 0x30;
constexpr CK_RV CKR_ENCRYPTED_DATA_INVALID = 0x40;
constexpr CK_RV CKR_ENCRYPTED_DATA_LEN_RANGE = 0x41;
constexpr CK_RV CKR_FUNCTION_NOT_SUPPORTED = 0x54;
constexpr CK_RV CKR_KEY_HANDLE_INVALID = 0x60;
constexpr CK_RV CKR_MECHANISM_INVALID = 0x70;
constexpr CK_RV CKR_MECHANISM_PARAM_INVALID = 0x71;
constexpr CK_RV CKR_OBJECT_HANDLE_INVALID = 0x82;
constexpr CK_RV CKR_OPERATION_ACTIVE = 0x90;
constexpr CK_RV CKR_OPERATION_NOT_INITIALIZED = 0x91;
constexpr CK_RV CKR_PIN_INCORRECT = 0xA0;
constexpr CK_RV CKR_SESSION_CLOSED = 0xB0;
constexpr CK_RV CKR_SESSION_COUNT = 0xB1;
constexpr CK_RV CKR_SESSION_HANDLE_INVALID = 0xB3;
constexpr CK_RV CKR_SIGNATURE_INVALID = 0xC0;
constexpr CK_RV CKR_SIGNATURE_LEN_RANGE = 0xC1;
constexpr CK_RV CKR_TOKEN_NOT_PRESENT = 0xE0;
constexpr CK_RV CKR_UNWRAPPING_KEY_HANDLE_INVALID = 0xF0;
constexpr CK_RV CKR_USER_ALREADY_LOGGED_IN = 0x100;
constexpr CK_RV CKR_USER_NOT_LOGGED_IN = 0x101;
constexpr CK_RV CKR_WRAPPING_KEY_HANDLE_INVALID = 0x113;
constexpr CK_RV CKR_BUFFER_TOO_SMALL = 0x150;
constexpr CK_RV CKR_CRYPTOKI_NOT_INITIALIZED = 0x190;
constexpr CK_RV CKR_CRYPTOKI_ALREADY_INITIALIZED = 0x191;

constexpr CK_ULONG CK_UNAVAILABLE_INFORMATION = ~CK_ULONG{0};
constexpr CK_SESSION_HANDLE CK_INVALID_HANDLE = 0;
constexpr CK_BBOOL CK_TRUE = 1;
constexpr CK_BBOOL CK_FALSE = 0;

constexpr CK_FLAGS CKF_TOKEN_PRESENT = 0x01;
constexpr CK_FLAGS CKF_OS_LOCKING_OK = 0x02;
constexpr CK_FLAGS CKF_RW_SESSION = 0x02;
constexpr CK_FLAGS CKF_SERIAL_SESSION = 0x04;
constexpr CK_FLAGS CKF_ENCRYPT = 0x100;
constexpr CK_FLAGS CKF_DECRYPT = 0x200;
constexpr CK_FLAGS CKF_SIGN = 0x800;
constexpr CK_FLAGS CKF_VERIFY = 0x2000;
/* PKCS#11 3.0: C_SessionCancel of a search. */
constexpr CK_FLAGS CKF_FIND_OBJECTS = 0x40;

constexpr CK_USER_TYPE CKU_SO = 0;
constexpr CK_USER_TYPE CKU_USER = 1;

/* Session states in which the user is logged in. */
constexpr CK_ULONG CKS_RO_USER_FUNCTIONS = 1;
constexpr CK_ULONG CKS_RW_USER_FUNCTIONS = 3;

constexpr CK_ULONG CKO_SECRET_KEY = 4;
constexpr CK_ULONG CKK_GENERIC_SECRET = 0x10;
constexpr CK_ULONG CKK_AES = 0x1F;

constexpr CK_ATTRIBUTE_TYPE CKA_CLASS = 0x00;
constexpr CK_ATTRIBUTE_TYPE CKA_TOKEN = 0x01;
constexpr CK_ATTRIBUTE_TYPE CKA_PRIVATE = 0x02;
constexpr CK_ATTRIBUTE_TYPE CKA_LABEL = 0x03;
constexpr CK_ATTRIBUTE_TYPE CKA_VALUE = 0x11;
constexpr CK_ATTRIBUTE_TYPE CKA_KEY_TYPE = 0x100;
constexpr CK_ATTRIBUTE_TYPE CKA_ID = 0x102;
constexpr CK_ATTRIBUTE_TYPE CKA_SENSITIVE = 0x103;
constexpr CK_ATTRIBUTE_TYPE CKA_ENCRYPT = 0x104;
constexpr CK_ATTRIBUTE_TYPE CKA_DECRYPT = 0x105;
constexpr CK_ATTRIBUTE_TYPE CKA_WRAP = 0x106;
constexpr CK_ATTRIBUTE_TYPE CKA_UNWRAP = 0x107;
constexpr CK_ATTRIBUTE_TYPE CKA_SIGN = 0x108;
constexpr CK_ATTRIBUTE_TYPE CKA_VERIFY = 0x10A;
constexpr CK_ATTRIBUTE_TYPE CKA_DERIVE = 0x10C;
constexpr CK_ATTRIBUTE_TYPE CKA_MODULUS_BITS = 0x121;
constexpr CK_ATTRIBUTE_TYPE CKA_PUBLIC_EXPONENT = 0x122;
constexpr CK_ATTRIBUTE_TYPE CKA_VALUE_LEN = 0x161;
constexpr CK_ATTRIBUTE_TYPE CKA_EXTRACTABLE = 0x162;
constexpr CK_ATTRIBUTE_TYPE CKA_EC_PARAMS = 0x180;
/* Bit of every attribute whose value is an array; of these CKA_ALLOWED_MECHANISMS alone is not an
 * array of attributes. */
constexpr CK_ATTRIBUTE_TYPE CKF_ARRAY_ATTRIBUTE = 0x40000000;
constexpr CK_ATTRIBUTE_TYPE CKA_UNWRAP_TEMPLATE = 0x40000212;
constexpr CK_ATTRIBUTE_TYPE CKA_ALLOWED_MECHANISMS = 0x40000600;

constexpr CK_MECHANISM_TYPE CKM_RSA_PKCS_KEY_PAIR_GEN = 0x00;
constexpr CK_MECHANISM_TYPE CKM_RSA_PKCS = 0x01;
constexpr CK_MECHANISM_TYPE CKM_RSA_X_509 = 0x03;
constexpr CK_MECHANISM_TYPE CKM_RSA_PKCS_OAEP = 0x09;
constexpr CK_MECHANISM_TYPE CKM_SHA_1 = 0x220;
constexpr CK_MECHANISM_TYPE CKM_SHA256 = 0x250;
constexpr CK_MECHANISM_TYPE CKM_SHA256_HMAC = 0x251;
constexpr CK_MECHANISM_TYPE CKM_SHA384 = 0x260;
constexpr CK_MECHANISM_TYPE CKM_SHA512 = 0x270;
constexpr CK_MECHANISM_TYPE CKM_GENERIC_SECRET_KEY_GEN = 0x350;
constexpr CK_MECHANISM_TYPE CKM_SP800_108_COUNTER_KDF = 0x3AC;
constexpr CK_MECHANISM_TYPE CKM_EC_KEY_PAIR_GEN = 0x1040;
constexpr CK_MECHANISM_TYPE CKM_ECDSA = 0x1041;
constexpr CK_MECHANISM_TYPE CKM_AES_KEY_GEN = 0x1080;
constexpr CK_MECHANISM_TYPE CKM_AES_GCM = 0x1087;
constexpr CK_MECHANISM_TYPE CKM_AES_ECB_ENCRYPT_DATA = 0x1104;
constexpr CK_MECHANISM_TYPE CKM_AES_CBC_ENCRYPT_DATA = 0x1105;
constexpr CK_MECHANISM_TYPE CKM_AES_KEY_WRAP = 0x2109;

constexpr CK_ULONG CKG_MGF1_SHA1 = 1;
constexpr CK_ULONG CKG_MGF1_SHA256 = 2;
constexpr CK_ULONG CKZ_DATA_SPECIFIED = 1;
/* CK_PRF_DATA_TYPE, PKCS#11 3.0 section 2.42.3. */
constexpr CK_ULONG CK_SP800_108_ITERATION_VARIABLE = 1;
constexpr CK_ULONG CK_SP800_108_BYTE_ARRAY = 4;

struct CK_VERSION {
    CK_BYTE major;
    CK_BYTE minor;
};

struct CK_INFO {
    CK_VERSION cryptokiVersion;
    CK_UTF8CHAR manufacturerID[32];
    CK_FLAGS flags;
    CK_UTF8CHAR libraryDescription[32];
    CK_VERSION libraryVersion;
};

struct CK_SLOT_INFO {
    CK_UTF8CHAR slotDescription[64];
    CK_UTF8CHAR manufacturerID[32];
    CK_FLAGS flags;
    CK_VERSION hardwareVersion;
    CK_VERSION firmwareVersion;
};

struct CK_TOKEN_INFO {
    CK_UTF8CHAR label[32];
    CK_UTF8CHAR manufacturerID[32];
    CK_UTF8CHAR model[16];
    CK_CHAR serialNumber[16];
    CK_FLAGS flags;
    CK_ULONG ulMaxSessionCount;
    CK_ULONG ulSessionCount;
    CK_ULONG ulMaxRwSessionCount;
    CK_ULONG ulRwSessionCount;
    CK_ULONG ulMaxPinLen;
    CK_ULONG ulMinPinLen;
    CK_ULONG ulTotalPublicMemory;
    CK_ULONG ulFreePublicMemory;
    CK_ULONG ulTotalPrivateMemory;
    CK_ULONG ulFreePrivateMemory;
    CK_VERSION hardwareVersion;
    CK_VERSION firmwareVersion;
    CK_CHAR utcTime[16];
};

struct CK_SESSION_INFO {
    CK_SLOT_ID slotID;
    CK_ULONG state;
    CK_FLAGS flags;
    CK_ULONG ulDeviceError;
};

struct CK_MECHANISM_INFO {
    CK_ULONG ulMinKeySize;
    CK_ULONG ulMaxKeySize;
    CK_FLAGS flags;
};

struct CK_ATTRIBUTE {
    CK_ATTRIBUTE_TYPE type;
    CK_VOID_PTR pValue;
    CK_ULONG ulValueLen;
};

struct CK_MECHANISM {
    CK_MECHANISM_TYPE mechanism;
    CK_VOID_PTR pParameter;
    CK_ULONG ulParameterLen;
};

struct CK_C_INITIALIZE_ARGS {
    CK_VOID_PTR CreateMutex;
    CK_VOID_PTR DestroyMutex;
    CK_VOID_PTR LockMutex;
    CK_VOID_PTR UnlockMutex;
    CK_FLAGS flags;
    /* Reserved by the standard; NSS softokn and its likes read a parameter string here. */
    CK_VOID_PTR pReserved;
};

struct CK_GCM_PARAMS {
    CK_BYTE *pIv;
    CK_ULONG ulIvLen;
    CK_ULONG ulIvBits;
    CK_BYTE *pAAD;
    CK_ULONG ulAADLen;
    CK_ULONG ulTagBits;
};

struct CK_RSA_PKCS_OAEP_PARAMS {
    CK_MECHANISM_TYPE hashAlg;
    CK_ULONG mgf;
    CK_ULONG source;
    CK_VOID_PTR pSourceData;
    CK_ULONG ulSourceDataLen;
};

struct CK_RSA_PKCS_PSS_PARAMS {
    CK_MECHANISM_TYPE hashAlg;
    CK_ULONG mgf;
    CK_ULONG sLen;
};

struct CK_ECDH1_DERIVE_PARAMS {
    CK_ULONG kdf;
    CK_ULONG ulSharedDataLen;
    CK_BYTE *pSharedData;
    CK_ULONG ulPublicDataLen;
    CK_BYTE *pPublicData;
};

struct CK_KEY_DERIVATION_STRING_DATA {
    CK_BYTE *pData;
    CK_ULONG ulLen;
};

struct CK_AES_CBC_ENCRYPT_DATA_PARAMS {
    CK_BYTE iv[16];
    CK_BYTE *pData;
    CK_ULONG length;
};

struct CK_EDDSA_PARAMS {
    CK_BBOOL phFlag;
    CK_ULONG ulContextDataLen;
    CK_BYTE *pContextData;
};

struct CK_SP800_108_COUNTER_FORMAT {
    CK_BBOOL bLittleEndian;
    CK_ULONG ulWidthInBits;
};

struct CK_PRF_DATA_PARAM {
    CK_ULONG type;
    CK_VOID_PTR pValue;
    CK_ULONG ulValueLen;
};

struct CK_SP800_108_KDF_PARAMS {
    CK_MECHANISM_TYPE prfType;
    CK_ULONG ulNumberOfDataParams;
    CK_PRF_DATA_PARAM *pDataParams;
    CK_ULONG ulAdditionalDerivedKeys;
    CK_VOID_PTR pAdditionalDerivedKeys;
};

/* A function that hsmgate never calls: only its place in the list counts. */
using CK_UNUSED = void (*)(void);

/* Order and count are those of the standard (PKCS#11 Base 2.40, section 3.6): 68 functions, one a
 * line for comparison. */
/* clang-format off */
struct CK_FUNCTION_LIST {
    CK_VERSION version;
    CK_RV (*C_Initialize)(CK_VOID_PTR);
    CK_RV (*C_Finalize)(CK_VOID_PTR);
    CK_RV (*C_GetInfo)(CK_INFO *);
    CK_RV (*C_GetFunctionList)(CK_FUNCTION_LIST **);
    CK_RV (*C_GetSlotList)(CK_BBOOL, CK_SLOT_ID *, CK_ULONG *);
    CK_RV (*C_GetSlotInfo)(CK_SLOT_ID, CK_SLOT_INFO *);
    CK_RV (*C_GetTokenInfo)(CK_SLOT_ID, CK_TOKEN_INFO *);
    CK_RV (*C_GetMechanismList)(CK_SLOT_ID, CK_MECHANISM_TYPE *, CK_ULONG *);
    CK_RV (*C_GetMechanismInfo)(CK_SLOT_ID, CK_MECHANISM_TYPE, CK_MECHANISM_INFO *);
    CK_RV (*C_InitToken)(CK_SLOT_ID, CK_UTF8CHAR *, CK_ULONG, CK_UTF8CHAR *);
    CK_RV (*C_InitPIN)(CK_SESSION_HANDLE, CK_UTF8CHAR *, CK_ULONG);
    CK_UNUSED C_SetPIN;
    CK_RV (*C_OpenSession)(CK_SLOT_ID, CK_FLAGS, CK_VOID_PTR, CK_VOID_PTR, CK_SESSION_HANDLE *);
    CK_RV (*C_CloseSession)(CK_SESSION_HANDLE);
    CK_RV (*C_CloseAllSessions)(CK_SLOT_ID);
    CK_RV (*C_GetSessionInfo)(CK_SESSION_HANDLE, CK_SESSION_INFO *);
    CK_UNUSED C_GetOperationState;
    CK_UNUSED C_SetOperationState;
    CK_RV (*C_Login)(CK_SESSION_HANDLE, CK_USER_TYPE, CK_UTF8CHAR *, CK_ULONG);
    CK_RV (*C_Logout)(CK_SESSION_HANDLE);
    CK_RV (*C_CreateObject)(CK_SESSION_HANDLE, CK_ATTRIBUTE *, CK_ULONG, CK_OBJECT_HANDLE *);
    CK_UNUSED C_CopyObject;
    CK_RV (*C_DestroyObject)(CK_SESSION_HANDLE, CK_OBJECT_HANDLE);
    CK_UNUSED C_GetObjectSize;
    CK_RV (*C_GetAttributeValue)(CK_SESSION_HANDLE, CK_OBJECT_HANDLE, CK_ATTRIBUTE *, CK_ULONG);
    CK_RV (*C_SetAttributeValue)(CK_SESSION_HANDLE, CK_OBJECT_HANDLE, CK_ATTRIBUTE *, CK_ULONG);
    CK_RV (*C_FindObjectsInit)(CK_SESSION_HANDLE, CK_ATTRIBUTE *, CK_ULONG);
    CK_RV (*C_FindObjects)(CK_SESSION_HANDLE, CK_OBJECT_HANDLE *, CK_ULONG, CK_ULONG *);
    CK_RV (*C_FindObjectsFinal)(CK_SESSION_HANDLE);
    CK_RV (*C_EncryptInit)(CK_SESSION_HANDLE, CK_MECHANISM *, CK_OBJECT_HANDLE);
    CK_RV (*C_Encrypt)(CK_SESSION_HANDLE, CK_BYTE *, CK_ULONG, CK_BYTE *, CK_ULONG *);
    CK_UNUSED C_EncryptUpdate;
    CK_RV (*C_EncryptFinal)(CK_SESSION_HANDLE, CK_BYTE *, CK_ULONG *);
    CK_RV (*C_DecryptInit)(CK_SESSION_HANDLE, CK_MECHANISM *, CK_OBJECT_HANDLE);
    CK_RV (*C_Decrypt)(CK_SESSION_HANDLE, CK_BYTE *, CK_ULONG, CK_BYTE *, CK_ULONG *);
    CK_UNUSED C_DecryptUpdate;
    CK_RV (*C_DecryptFinal)(CK_SESSION_HANDLE, CK_BYTE *, CK_ULONG *);
    CK_UNUSED C_DigestInit;
    CK_UNUSED C_Digest;
    CK_UNUSED C_DigestUpdate;
    CK_UNUSED C_DigestKey;
    CK_UNUSED C_DigestFinal;
    CK_RV (*C_SignInit)(CK_SESSION_HANDLE, CK_MECHANISM *, CK_OBJECT_HANDLE);
    CK_RV (*C_Sign)(CK_SESSION_HANDLE, CK_BYTE *, CK_ULONG, CK_BYTE *, CK_ULONG *);
    CK_UNUSED C_SignUpdate;
    CK_RV (*C_SignFinal)(CK_SESSION_HANDLE, CK_BYTE *, CK_ULONG *);
    CK_UNUSED C_SignRecoverInit;
    CK_UNUSED C_SignRecover;
    CK_RV (*C_VerifyInit)(CK_SESSION_HANDLE, CK_MECHANISM *, CK_OBJECT_HANDLE);
    CK_RV (*C_Verify)(CK_SESSION_HANDLE, CK_BYTE *, CK_ULONG, CK_BYTE *, CK_ULONG);
    CK_UNUSED C_VerifyUpdate;
    CK_RV (*C_VerifyFinal)(CK_SESSION_HANDLE, CK_BYTE *, CK_ULONG);
    CK_UNUSED C_VerifyRecoverInit;
    CK_UNUSED C_VerifyRecover;
    CK_UNUSED C_DigestEncryptUpdate;
    CK_UNUSED C_DecryptDigestUpdate;
    CK_UNUSED C_SignEncryptUpdate;
    CK_UNUSED C_DecryptVerifyUpdate;
    CK_RV (*C_GenerateKey)(CK_SESSION_HANDLE, CK_MECHANISM *, CK_ATTRIBUTE *, CK_ULONG, CK_OBJECT_HANDLE *);
    CK_RV (*C_GenerateKeyPair)(CK_SESSION_HANDLE, CK_MECHANISM *, CK_ATTRIBUTE *, CK_ULONG, CK_ATTRIBUTE *, CK_ULONG, CK_OBJECT_HANDLE *, CK_OBJECT_HANDLE *);
    CK_RV (*C_WrapKey)(CK_SESSION_HANDLE, CK_MECHANISM *, CK_OBJECT_HANDLE, CK_OBJECT_HANDLE, CK_BYTE *, CK_ULONG *);
    CK_RV (*C_UnwrapKey)(CK_SESSION_HANDLE, CK_MECHANISM *, CK_OBJECT_HANDLE, CK_BYTE *, CK_ULONG, CK_ATTRIBUTE *, CK_ULONG, CK_OBJECT_HANDLE *);
    CK_RV (*C_DeriveKey)(CK_SESSION_HANDLE, CK_MECHANISM *, CK_OBJECT_HANDLE, CK_ATTRIBUTE *, CK_ULONG, CK_OBJECT_HANDLE *);
    CK_UNUSED C_SeedRandom;
    CK_RV (*C_GenerateRandom)(CK_SESSION_HANDLE, CK_BYTE *, CK_ULONG);
    CK_UNUSED C_GetFunctionStatus;
    CK_UNUSED C_CancelFunction;
    CK_UNUSED C_WaitForSlotEvent;
};
/* clang-format on */

static_assert(sizeof(CK_FUNCTION_LIST) == 8 + 68 * sizeof(void *),
              "function list must have 68 entries");

/* The additions of PKCS#11 3.0. */
struct CK_FUNCTION_LIST_3_0 {
    CK_FUNCTION_LIST base;
    CK_UNUSED C_GetInterfaceList;
    CK_UNUSED C_GetInterface;
    CK_UNUSED C_LoginUser;
    CK_RV (*C_SessionCancel)(CK_SESSION_HANDLE, CK_FLAGS);
    /* The message functions: C_MessageEncryptInit to C_MessageVerifyFinal. */
    CK_UNUSED message[20];
};

/* The first additions of PKCS#11 3.2; later ones are not needed. */
/* clang-format off */
struct CK_FUNCTION_LIST_3_2 {
    CK_FUNCTION_LIST_3_0 base;
    CK_RV (*C_EncapsulateKey)(CK_SESSION_HANDLE, CK_MECHANISM *, CK_OBJECT_HANDLE, CK_ATTRIBUTE *, CK_ULONG, CK_BYTE *, CK_ULONG *, CK_OBJECT_HANDLE *);
    CK_RV (*C_DecapsulateKey)(CK_SESSION_HANDLE, CK_MECHANISM *, CK_OBJECT_HANDLE, CK_ATTRIBUTE *, CK_ULONG, CK_BYTE *, CK_ULONG, CK_OBJECT_HANDLE *);
};
/* clang-format on */

struct CK_INTERFACE {
    CK_UTF8CHAR *pInterfaceName;
    CK_VOID_PTR pFunctionList;
    CK_FLAGS flags;
};

using CK_C_GetFunctionList = CK_RV (*)(CK_FUNCTION_LIST **);
using CK_C_GetInterface = CK_RV (*)(CK_UTF8CHAR *, CK_VERSION *, CK_INTERFACE **, CK_FLAGS);

} /* extern "C" */
