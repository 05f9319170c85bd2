/*
 * One PKCS#11 session and the thread that uses it: never shared, so CKR_OPERATION_ACTIVE cannot
 * come from concurrency. Always opened read-write. Session objects that it made die when it closes;
 * it is therefore reopened only when nothing else helps.
 */
#pragma once

#include "cryptoki.h"
#include "module.h"

namespace hsmgate
{

/* What C_XInit left behind when the operation after it failed. */
enum class Activity : uint8_t { sign, verify, encrypt, decrypt, find };

class Session
{
public:
    /* `showsLogin`: the user is logged in, and the module tells by the session's state. */
    Session(const Module &module, CK_SLOT_ID slot, bool showsLogin = false)
        : module_(module), slot_(slot), showsLogin_(showsLogin)
    {
    }
    ~Session() { close(); }
    Session(const Session &) = delete;
    Session &operator=(const Session &) = delete;

    CK_RV open();
    void close();
    /* Closes and opens again; after a failure the session is closed and `open` may be tried again.
     */
    CK_RV reopen();
    bool isOpen() const { return handle_ != CK_INVALID_HANDLE; }

    /*
     * Ends an operation that a failed call may have left active: C_SessionCancel (PKCS#11 3.0),
     * else the operation's own Final; where neither leaves the session certainly idle it is
     * reopened.
     */
    void settle(Activity activity);

    /* Whether the session's state is that of a logged-in user. */
    bool isLoggedIn() const;
    /*
     * Whether the login is gone without the module having said so: nobody sees private objects
     * then, and calls on them fail as if there were none.
     */
    bool lostLogin() const { return showsLogin_ && isOpen() && !isLoggedIn(); }

    const CK_FUNCTION_LIST &functions() const { return module_.functions(); }
    const LaterFunctions &later() const { return module_.later(); }
    CK_SESSION_HANDLE handle() const { return handle_; }
    CK_SLOT_ID slot() const { return slot_; }
    /* How often it was closed. */
    unsigned closings() const { return closings_; }

private:
    const Module &module_;
    CK_SLOT_ID slot_;
    bool showsLogin_;
    unsigned closings_ = 0;
    CK_SESSION_HANDLE handle_ = CK_INVALID_HANDLE;
};

} // namespace hsmgate
