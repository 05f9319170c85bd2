/* What a process asks of Linux for its own protection: no dumps, end with the parent, one owner of
 * a state folder, who is the peer. */
#pragma once

#include <sys/types.h>

namespace hsmgate
{

struct PeerCredentials {
    pid_t pid;
    uid_t uid;
    gid_t gid;
};

/* All return 0 or an errno value. */
int findPeerCredentials(int fd, PeerCredentials &credentials);
/* Sets `fd` to the locked file's descriptor, or to -1 when another process holds the lock. */
int lockFile(const char *path, int &fd);
int hardenProcess(bool dieWithParent);

} // namespace hsmgate
