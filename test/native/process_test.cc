/* What a process tells the service manager (sd_notify(3)): one datagram, to a path or an abstract
 * name. */
#include "check.h"
#include "process.h"

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

using namespace hsmgate;
using namespace hsmgate::test;

namespace
{

/* What arrives on a socket of that abstract name. */
std::string receive(int fd)
{
    char text[64];
    const ssize_t length = recv(fd, text, sizeof text, MSG_DONTWAIT);
    return length < 0 ? std::string{} : std::string(text, static_cast<size_t>(length));
}

} // namespace

TEST("a state reaches the service manager")
{
    const std::string name = "@hsmgate-notify-" + std::to_string(getpid());
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, name.data(), name.size());
    address.sun_path[0] = '\0';
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CHECK_EQUAL(bind(fd, reinterpret_cast<const sockaddr *>(&address),
                     static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size())),
                0);
    CHECK_EQUAL(notifyServiceManager(name, "READY=1\nMAINPID=7"), 0);
    CHECK_EQUAL(receive(fd), std::string("READY=1\nMAINPID=7"));
    CHECK_EQUAL(close(fd), 0);
    CHECK_EQUAL(notifyServiceManager(name, "READY=1"), ECONNREFUSED);
}

TEST("a service manager's socket has a path that fits")
{
    CHECK_EQUAL(notifyServiceManager("", "READY=1"), EINVAL);
    CHECK_EQUAL(notifyServiceManager(std::string(200, 'a'), "READY=1"), EINVAL);
    CHECK_EQUAL(notifyServiceManager("/nonexistent/notify", "READY=1"), ENOENT);
}
