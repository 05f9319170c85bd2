/*
 * The load of the bench: signed requests over keep-alive connections, one thread, as little CPU as
 * epoll allows, so that what is measured is the server.
 *
 *   load --port n --requests <file> --connections n --seconds s
 *
 * The file holds whole HTTP requests, each after its length (u32, little-endian); connections send
 * them in turn, one at a time each. Prints one line of JSON. Any answer but 200 ends the run with
 * status 1 and shows that answer.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace
{

using Clock = std::chrono::steady_clock;

struct Connection {
    int fd = -1;
    Clock::time_point sentAt;
    std::string answer;
};

struct Options {
    uint16_t port = 0;
    std::string requests;
    size_t connections = 1;
    double seconds = 1;
};

[[noreturn]] void stop(const std::string &text)
{
    std::fprintf(stderr, "load: %s\n", text.c_str());
    std::exit(1);
}

Options parseOptions(int argc, char **argv)
{
    Options options;
    for (int i = 1; i + 1 < argc; i += 2) {
        const std::string name = argv[i];
        const char *value = argv[i + 1];
        if (name == "--port")
            options.port = static_cast<uint16_t>(std::strtoul(value, nullptr, 10));
        else if (name == "--requests")
            options.requests = value;
        else if (name == "--connections")
            options.connections = std::strtoul(value, nullptr, 10);
        else if (name == "--seconds")
            options.seconds = std::strtod(value, nullptr);
        else
            stop("unknown option " + name);
    }
    if (options.port == 0 || options.requests.empty() || options.connections < 1 ||
        options.connections > 1024 || !(options.seconds > 0) || options.seconds > 60)
        stop("--port, --requests, --connections 1 to 1024, --seconds up to 60");
    return options;
}

std::vector<std::string> readRequests(const std::string &path)
{
    std::ifstream file(path, std::ios::binary);
    const std::string all{std::istreambuf_iterator<char>(file), {}};
    std::vector<std::string> requests;
    size_t at = 0;
    while (at + 4 <= all.size()) {
        uint32_t length = 0;
        std::memcpy(&length, all.data() + at, 4);
        at += 4;
        if (length > all.size() - at)
            stop("the file of requests is cut off");
        requests.push_back(all.substr(at, length));
        at += length;
    }
    if (requests.empty())
        stop("no requests in " + path);
    return requests;
}

int dial(uint16_t port)
{
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int on = 1;
    if (fd < 0 || connect(fd, reinterpret_cast<sockaddr *>(&address), sizeof address) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0)
        stop(std::string("cannot connect: ") + std::strerror(errno));
    return fd;
}

void sendAll(int fd, const std::string &bytes)
{
    size_t sent = 0;
    while (sent < bytes.size()) {
        const ssize_t count = send(fd, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
        if (count < 0 && errno != EINTR)
            stop(std::string("send: ") + std::strerror(errno));
        sent += count > 0 ? static_cast<size_t>(count) : 0;
    }
}

/* Whether the answer is whole; ends the process when it is not the expected one. */
bool isWhole(const std::string &answer)
{
    const size_t headEnd = answer.find("\r\n\r\n");
    if (headEnd == std::string::npos)
        return false;
    static const char field[] = "\r\ncontent-length:";
    const auto found = std::search(answer.begin(), answer.begin() + static_cast<long>(headEnd),
                                   field, field + sizeof field - 1, [](char a, char b) {
                                       return (a >= 'A' && a <= 'Z' ? a + 32 : a) == b;
                                   });
    const size_t at = static_cast<size_t>(found - answer.begin()) + sizeof field - 1;
    const size_t body = at < headEnd ? std::strtoul(answer.c_str() + at, nullptr, 10) : 0;
    if (answer.size() < headEnd + 4 + body)
        return false;
    if (answer.compare(0, 13, "HTTP/1.1 200 ") != 0)
        stop("unexpected answer: " + answer);
    return true;
}

double cpuSeconds()
{
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval &time) {
        return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
    };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

} // namespace

int main(int argc, char **argv)
{
    const Options options = parseOptions(argc, argv);
    const std::vector<std::string> requests = readRequests(options.requests);
    const int poll = epoll_create1(EPOLL_CLOEXEC);
    std::vector<Connection> connections(options.connections);
    for (Connection &connection : connections) {
        connection.fd = dial(options.port);
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.ptr = &connection;
        epoll_ctl(poll, EPOLL_CTL_ADD, connection.fd, &event);
    }
    size_t next = 0;
    const auto ask = [&requests, &next](Connection &connection) {
        connection.answer.clear();
        connection.sentAt = Clock::now();
        sendAll(connection.fd, requests[next++ % requests.size()]);
    };
    std::vector<float> micros;
    micros.reserve(1 << 20);
    const double cpuBefore = cpuSeconds();
    const Clock::time_point start = Clock::now();
    const Clock::time_point end = start + std::chrono::duration_cast<Clock::duration>(
                                              std::chrono::duration<double>(options.seconds));
    for (Connection &connection : connections)
        ask(connection);
    epoll_event events[256];
    char chunk[16 * 1024];
    Clock::time_point now = start;
    while (now < end) {
        const int ready = epoll_wait(poll, events, 256, 100);
        now = Clock::now();
        for (int i = 0; i < ready; i++) {
            Connection &connection = *static_cast<Connection *>(events[i].data.ptr);
            const ssize_t count = recv(connection.fd, chunk, sizeof chunk, MSG_DONTWAIT);
            if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR))
                stop("the server ended a connection");
            if (count < 0)
                continue;
            connection.answer.append(chunk, static_cast<size_t>(count));
            if (!isWhole(connection.answer))
                continue;
            now = Clock::now();
            micros.push_back(
                std::chrono::duration<float, std::micro>(now - connection.sentAt).count());
            ask(connection);
        }
    }
    const double seconds = std::chrono::duration<double>(now - start).count();
    const double cpu = cpuSeconds() - cpuBefore;
    if (micros.empty())
        stop("no answer in time");
    std::sort(micros.begin(), micros.end());
    const double count = static_cast<double>(micros.size());
    std::printf("{\"requests\":%zu,\"seconds\":%.4f,\"perSecond\":%.1f,\"p50Micros\":%.1f,"
                "\"p99Micros\":%.1f,\"cpuMicros\":%.2f}\n",
                micros.size(), seconds, count / seconds,
                static_cast<double>(micros[micros.size() / 2]),
                static_cast<double>(micros[micros.size() * 99 / 100]), cpu * 1e6 / count);
    for (const Connection &connection : connections)
        close(connection.fd);
    close(poll);
    return 0;
}
