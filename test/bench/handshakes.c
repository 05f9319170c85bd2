/*
 * The load of the TLS bench: full TLS 1.3 handshakes, each on a connection of its own, with one
 * request behind it; one thread, so that its CPU time is easily told from the server's.
 *
 *   handshakes --port n --connections n --seconds s --sigalgs list [--offer 1]
 *
 * A handshake counts when the signature is one of --sigalgs, the answer is 200 and no session was
 * resumed. With --offer each connection offers the last session that the server gave: that none is
 * taken shows that the server resumes nothing. Prints one line of JSON; latency is from connect to
 * the server's Finished.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST_CONNECTIONS = 1024, MOST_HANDSHAKES = 1 << 20, PATIENCE_MICROS = 15000000 };

struct visitor {
    int fd;
    SSL *tls;
    double began;
    double shook_after;
    bool shook;
    char answer[1024];
    size_t bytes;
};

static int poller;
static SSL_CTX *context;
static struct sockaddr_in address;
static SSL_SESSION *last_session;
static bool offers;
static float *latencies;
static size_t done, resumed, failed;
static char first_failure[256] = "";
static char negotiated[128] = "";

static void stop(const char *text)
{
    fprintf(stderr, "handshakes: %s\n", text);
    exit(1);
}

static double now_micros(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static double cpu_micros(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static int keep_session(SSL *tls, SSL_SESSION *session)
{
    (void)tls;
    SSL_SESSION_free(last_session);
    last_session = session;
    return 1;
}

static void begin(struct visitor *visitor)
{
    memset(visitor, 0, sizeof *visitor);
    visitor->began = now_micros();
    visitor->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const int on = 1;
    /* Ends without TIME_WAIT: a bench would run out of ports. */
    const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    if (visitor->fd < 0 || setsockopt(visitor->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0 ||
        setsockopt(visitor->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) != 0)
        stop("no socket");
    if (connect(visitor->fd, (struct sockaddr *)&address, sizeof address) != 0 &&
        errno != EINPROGRESS)
        stop("cannot connect");
    visitor->tls = SSL_new(context);
    if (visitor->tls == NULL || SSL_set_fd(visitor->tls, visitor->fd) != 1 ||
        SSL_set_tlsext_host_name(visitor->tls, "localhost") != 1)
        stop("no TLS");
    SSL_set_connect_state(visitor->tls);
    if (offers && last_session != NULL)
        SSL_set_session(visitor->tls, last_session);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = visitor};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, visitor->fd, &event) != 0)
        stop("epoll_ctl");
}

static void end(struct visitor *visitor)
{
    SSL_free(visitor->tls);
    close(visitor->fd);
}

static void fail(struct visitor *visitor, const char *what)
{
    failed++;
    if (first_failure[0] == '\0') {
        const unsigned long error = ERR_peek_error();
        const char *reason = error == 0 ? NULL : ERR_reason_error_string(error);
        snprintf(first_failure, sizeof first_failure, "%s%s%s", what, reason == NULL ? "" : ": ",
                 reason == NULL ? "" : reason);
    }
    ERR_clear_error();
    end(visitor);
    begin(visitor);
}

static void note_handshake(struct visitor *visitor)
{
    visitor->shook = true;
    if (SSL_session_reused(visitor->tls))
        resumed++;
    if (negotiated[0] == '\0') {
        int signature = NID_undef, digest = NID_undef;
        SSL_get_peer_signature_type_nid(visitor->tls, &signature);
        SSL_get_peer_signature_nid(visitor->tls, &digest);
        const char *group =
            SSL_group_to_name(visitor->tls, (int)SSL_get_negotiated_group(visitor->tls));
        snprintf(negotiated, sizeof negotiated, "%s %s %s %s/%s", SSL_get_version(visitor->tls),
                 SSL_get_cipher_name(visitor->tls), group == NULL ? "?" : group,
                 OBJ_nid2sn(signature), OBJ_nid2sn(digest));
    }
    visitor->shook_after = now_micros() - visitor->began;
}

/* True when the connection has come to its good end. */
static bool advance(struct visitor *visitor, const char **problem)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    if (!visitor->shook) {
        const int result = SSL_do_handshake(visitor->tls);
        if (result != 1) {
            const int error = SSL_get_error(visitor->tls, result);
            if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
                *problem = "handshake";
            return false;
        }
        note_handshake(visitor);
        if (SSL_write(visitor->tls, request, sizeof request - 1) != sizeof request - 1) {
            *problem = "request";
            return false;
        }
    }
    for (;;) {
        const int count = SSL_read(visitor->tls, visitor->answer + visitor->bytes,
                                   (int)(sizeof visitor->answer - 1 - visitor->bytes));
        if (count <= 0) {
            if (SSL_get_error(visitor->tls, count) != SSL_ERROR_WANT_READ)
                *problem = "answer";
            return false;
        }
        visitor->bytes += (size_t)count;
        if (strstr(visitor->answer, "\r\n\r\n") == NULL)
            continue;
        if (strncmp(visitor->answer, "HTTP/1.1 200", 12) == 0)
            return true;
        *problem = "status of the answer";
        return false;
    }
}

static int compare(const void *one, const void *other)
{
    const float a = *(const float *)one, b = *(const float *)other;
    return (a > b) - (a < b);
}

int main(int argc, char **argv)
{
    size_t connections = 1;
    double seconds = 1;
    const char *sigalgs = NULL;
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *value = argv[i + 1];
        if (strcmp(argv[i], "--port") == 0)
            address.sin_port = htons((uint16_t)strtoul(value, NULL, 10));
        else if (strcmp(argv[i], "--connections") == 0)
            connections = strtoul(value, NULL, 10);
        else if (strcmp(argv[i], "--seconds") == 0)
            seconds = strtod(value, NULL);
        else if (strcmp(argv[i], "--sigalgs") == 0)
            sigalgs = value;
        else if (strcmp(argv[i], "--offer") == 0)
            offers = strcmp(value, "1") == 0;
        else
            stop("unknown option");
    }
    if (address.sin_port == 0 || sigalgs == NULL || connections < 1 ||
        connections > MOST_CONNECTIONS || !(seconds > 0) || seconds > 60)
        stop("--port, --sigalgs, --connections 1 to 1024, --seconds up to 60");
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    context = SSL_CTX_new(TLS_client_method());
    if (context == NULL || SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set1_sigalgs_list(context, sigalgs) != 1)
        stop("TLS 1.3 with these --sigalgs is not to be had");
    if (offers) {
        SSL_CTX_set_session_cache_mode(context,
                                       SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL_STORE);
        SSL_CTX_sess_set_new_cb(context, keep_session);
    }
    poller = epoll_create1(EPOLL_CLOEXEC);
    latencies = calloc(MOST_HANDSHAKES, sizeof *latencies);
    struct visitor *visitors = calloc(connections, sizeof *visitors);
    if (latencies == NULL || visitors == NULL)
        stop("no memory");
    const double cpu = cpu_micros(), start = now_micros();
    for (size_t i = 0; i < connections; i++)
        begin(&visitors[i]);
    struct epoll_event events[256];
    double now = start;
    while ((now = now_micros()) < start + seconds * 1e6) {
        const int ready = epoll_wait(poller, events, 256, 20);
        for (int i = 0; i < ready; i++) {
            struct visitor *visitor = events[i].data.ptr;
            const char *problem = NULL;
            if (advance(visitor, &problem)) {
                if (done < MOST_HANDSHAKES)
                    latencies[done] = (float)visitor->shook_after;
                done++;
                end(visitor);
                begin(visitor);
            } else if (problem != NULL) {
                fail(visitor, problem);
            }
        }
        for (size_t i = 0; ready == 0 && i < connections; i++)
            if (now - visitors[i].began > PATIENCE_MICROS)
                fail(&visitors[i], "no end in time");
    }
    const double took = (now - start) / 1e6, used = cpu_micros() - cpu;
    const size_t kept = done < MOST_HANDSHAKES ? done : MOST_HANDSHAKES;
    qsort(latencies, kept, sizeof *latencies, compare);
    printf("{\"handshakes\":%zu,\"failed\":%zu,\"resumed\":%zu,\"perSecond\":%.1f,"
           "\"p50Micros\":%.1f,\"p99Micros\":%.1f,\"cpuMicros\":%.1f,"
           "\"negotiated\":\"%s\",\"firstFailure\":\"%s\"}\n",
           done, failed, resumed, (double)done / took, kept == 0 ? 0 : (double)latencies[kept / 2],
           kept == 0 ? 0 : (double)latencies[kept * 99 / 100], done == 0 ? 0 : used / (double)done,
           negotiated, first_failure);
    for (size_t i = 0; i < connections; i++)
        end(&visitors[i]);
    return 0;
}
