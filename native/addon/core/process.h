/* What a process asks of Linux for its own protection: no dumps, end with the parent, one owner of
 * a state folder, who is the peer; and what it tells the service manager. */
#pragma once

#include <string_view>
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
/* Sends a state (sd_notify(3), e.g. `READY=1`) to the service manager's datagram socket; a path
 * that begins with `@` is in the abstract namespace. */
int notifyServiceManager(std::string_view socketPath, std::string_view state);

} // namespace hsmgate
