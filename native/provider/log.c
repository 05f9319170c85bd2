#include "log.h"
#include "provider.h"
#include "wait.h"

#include <stdio.h>
#include <sys/socket.h>
#include <syslog.h>
#include <unistd.h>

enum { INTERVAL_MS = 1000, LINE_BYTES = 512 };

/* Not syslog(3): that is the application's, may block, and keeps a descriptor that a daemon closes.
 */
static void send_line(const struct settings *settings, const char *line, size_t bytes)
{
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return;
    (void)sendto(fd, line, bytes, MSG_NOSIGNAL, (const struct sockaddr *)&settings->log_address,
                 settings->log_address_bytes);
    close(fd);
}

void log_failure(struct provider *provider, const char *reason, const char *text)
{
    const struct settings *settings = &provider->settings;
    struct log *log = &provider->log;
    if (settings->log_address_bytes == 0)
        return;
    const long long now = now_ns();
    long long written = atomic_load(&log->written_ns);
    if ((written != 0 && now - written < ms_to_ns(INTERVAL_MS)) ||
        !atomic_compare_exchange_strong(&log->written_ns, &written, now)) {
        atomic_fetch_add(&log->untold, 1);
        return;
    }
    const unsigned untold = atomic_exchange(&log->untold, 0);
    char more[32] = "", line[LINE_BYTES];
    if (untold > 0)
        (void)snprintf(more, sizeof more, " (%u more before)", untold);
    const int bytes =
        snprintf(line, sizeof line, "<%d>%s[%d]: hsmgate: %s%s%s%s", LOG_DAEMON | LOG_ERR,
                 settings->app, (int)getpid(), reason, text[0] == '\0' ? "" : ": ", text, more);
    if (bytes > 0)
        send_line(settings, line, (size_t)bytes < sizeof line ? (size_t)bytes : sizeof line - 1);
}
