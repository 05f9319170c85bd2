#include "events.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <ctime>
#include <fcntl.h>
#include <unistd.h>

namespace hsmgate::shim
{

namespace
{

constexpr size_t lineBytesMax = 512;

double nowMs()
{
    struct timespec now {
    };
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}

/* `format` writes the members that follow the common ones. */
[[gnu::format(printf, 2, 3)]] void write(int descriptor, const char *format, ...)
{
    if (descriptor < 0)
        return;
    char line[lineBytesMax];
    const int head =
        std::snprintf(line, sizeof line, "{\"atMs\":%.3f,\"pid\":%d", nowMs(), getpid());
    const auto used = static_cast<size_t>(head);
    va_list arguments;
    va_start(arguments, format);
    const int tail = std::vsnprintf(line + used, sizeof line - used, format, arguments);
    va_end(arguments);
    if (tail < 0 || used + static_cast<size_t>(tail) >= sizeof line)
        return;
    (void)!::write(descriptor, line, used + static_cast<size_t>(tail));
}

/* What JSON would have to escape becomes an underscore. */
std::string plain(std::string text)
{
    text.resize(std::min<size_t>(text.size(), 200));
    std::replace_if(
        text.begin(), text.end(),
        [](char c) { return c < ' ' || c > '~' || c == '"' || c == '\\'; }, '_');
    return text;
}

} // namespace

void Events::open(const char *path)
{
    if (path == nullptr)
        return;
    descriptor_ = ::open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (descriptor_ < 0)
        trouble(std::string("cannot append to ") + path);
}

void Events::ended(Function function, CK_RV rv) const
{
    write(descriptor_, ",\"call\":\"%s\",\"rv\":%lu}\n", functionNames[indexOf(function)].data(),
          rv);
}

void Events::acted(Function function, const std::string &rule, std::string_view action,
                   const CK_RV *rv) const
{
    const char *call = functionNames[indexOf(function)].data();
    const std::string name = plain(rule);
    const int length = static_cast<int>(action.size());
    if (rv == nullptr)
        write(descriptor_, ",\"call\":\"%s\",\"rule\":\"%s\",\"action\":\"%.*s\"}\n", call,
              name.c_str(), length, action.data());
    else
        write(descriptor_, ",\"call\":\"%s\",\"rule\":\"%s\",\"action\":\"%.*s\",\"rv\":%lu}\n",
              call, name.c_str(), length, action.data(), *rv);
}

void Events::trouble(const std::string &text) const
{
    std::fprintf(stderr, "hsmgate-shim: %s\n", text.c_str());
    write(descriptor_, ",\"trouble\":\"%s\"}\n", plain(text).c_str());
}

} // namespace hsmgate::shim
