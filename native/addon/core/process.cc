#include "process.h"

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace hsmgate
{

int findPeerCredentials(int fd, PeerCredentials &credentials)
{
    ucred peer{};
    socklen_t length = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0)
        return errno;
    /* An unconnected or foreign socket answers without a peer. */
    if (length != sizeof peer || peer.pid == 0)
        return ENOTCONN;
    credentials = {peer.pid, peer.uid, peer.gid};
    return 0;
}

int lockFile(const char *path, int &fd)
{
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return errno;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    const int error = errno;
    (void)close(fd);
    fd = -1;
    return error == EWOULDBLOCK ? 0 : error;
}

int hardenProcess(bool dieWithParent)
{
    const rlimit none{0, 0};
    if (setrlimit(RLIMIT_CORE, &none) != 0)
        return errno;
    /* Also keeps ptrace and /proc/<pid>/mem of the same uid out. */
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
        return errno;
    if (dieWithParent && prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0)
        return errno;
    return 0;
}

int notifyServiceManager(std::string_view socketPath, std::string_view state)
{
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (socketPath.empty() || socketPath.size() >= sizeof address.sun_path)
        return EINVAL;
    std::memcpy(address.sun_path, socketPath.data(), socketPath.size());
    if (address.sun_path[0] == '@')
        address.sun_path[0] = '\0';
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno;
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socketPath.size());
    const ssize_t sent = sendto(fd, state.data(), state.size(), MSG_NOSIGNAL | MSG_DONTWAIT,
                                reinterpret_cast<const sockaddr *>(&address), length);
    const int error = sent < 0 ? errno : 0;
    (void)close(fd);
    return error;
}

} // namespace hsmgate
