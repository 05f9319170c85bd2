#include "session.h"

#include "secret.h"
#include "session_objects.h"

namespace hsmgate
{

namespace
{

CK_FLAGS cancelFlag(Activity activity)
{
    switch (activity) {
    case Activity::sign:
        return CKF_SIGN;
    case Activity::verify:
        return CKF_VERIFY;
    case Activity::encrypt:
        return CKF_ENCRYPT;
    case Activity::decrypt:
        return CKF_DECRYPT;
    case Activity::find:
        break;
    }
    return CKF_FIND_OBJECTS;
}

/* The largest last block or signature that a Final could give; what doesn't fit leaves the
 * operation active. */
constexpr size_t scratchBytes = 2048;

CK_RV finish(const CK_FUNCTION_LIST &functions, CK_SESSION_HANDLE handle, Activity activity)
{
    uint8_t scratch[scratchBytes] = {};
    CK_ULONG length = sizeof scratch;
    CK_RV rv = CKR_OK;
    switch (activity) {
    case Activity::sign:
        rv = functions.C_SignFinal(handle, scratch, &length);
        break;
    case Activity::verify:
        /* Any signature will do: C_VerifyFinal ends the operation whatever its verdict. */
        rv = functions.C_VerifyFinal(handle, scratch, 1);
        if (rv == CKR_SIGNATURE_INVALID || rv == CKR_SIGNATURE_LEN_RANGE)
            rv = CKR_OK;
        break;
    case Activity::encrypt:
        rv = functions.C_EncryptFinal(handle, scratch, &length);
        break;
    case Activity::decrypt:
        rv = functions.C_DecryptFinal(handle, scratch, &length);
        break;
    case Activity::find:
        rv = functions.C_FindObjectsFinal(handle);
        break;
    }
    wipe(scratch, sizeof scratch);
    return rv;
}

} // namespace

CK_RV Session::open()
{
    if (isOpen())
        return CKR_OK;
    CK_SESSION_HANDLE opened = CK_INVALID_HANDLE;
    /* Some modules refuse a callback or its argument (CloudHSM: CKR_ARGUMENTS_BAD), so both are
     * null. */
    const CK_RV rv = functions().C_OpenSession(slot_, CKF_RW_SESSION | CKF_SERIAL_SESSION, nullptr,
                                               nullptr, &opened);
    if (rv == CKR_OK)
        handle_ = opened;
    return rv;
}

void Session::close()
{
    if (isOpen()) {
        /* First: the handles of its objects are anybody's as soon as it is closed. */
        SessionObjects::instance().forget(*this);
        closings_++;
        (void)functions().C_CloseSession(handle_);
    }
    handle_ = CK_INVALID_HANDLE;
}

CK_RV Session::reopen()
{
    close();
    return open();
}

bool Session::isLoggedIn() const
{
    CK_SESSION_INFO session{};
    return functions().C_GetSessionInfo(handle_, &session) == CKR_OK &&
           (session.state == CKS_RO_USER_FUNCTIONS || session.state == CKS_RW_USER_FUNCTIONS);
}

void Session::settle(Activity activity)
{
    if (!isOpen())
        return;
    const auto cancel = module_.later().sessionCancel;
    CK_RV rv =
        cancel != nullptr ? cancel(handle_, cancelFlag(activity)) : CKR_FUNCTION_NOT_SUPPORTED;
    if (rv != CKR_OK && rv != CKR_OPERATION_NOT_INITIALIZED)
        rv = finish(functions(), handle_, activity);
    if (rv != CKR_OK && rv != CKR_OPERATION_NOT_INITIALIZED)
        (void)reopen();
}

} // namespace hsmgate
