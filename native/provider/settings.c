#include "settings.h"
#include "error.h"
#include "provider.h"
#include "text.h"

#include <errno.h>
#include <openssl/params.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char default_endpoints[] = "/run/hsmgate/sign.sock";

struct source {
    /* The name in openssl.cnf and the variable that overrides it. */
    const char *name;
    const char *variable;
    const char *value;
};

static bool parse_number(const struct provider *provider, const struct source *source, unsigned min,
                         unsigned max, unsigned *number)
{
    if (source->value == NULL)
        return true;
    char *end;
    errno = 0;
    const unsigned long value = strtoul(source->value, &end, 10);
    if (errno != 0 || *end != '\0' || source->value[0] < '0' || source->value[0] > '9' ||
        value < min || value > max)
        return RAISE(provider, REASON_SETTING, "%s is a number from %u to %u", source->name, min,
                     max);
    *number = (unsigned)value;
    return true;
}

static bool parse_switch(const struct provider *provider, const struct source *source, bool *on)
{
    if (source->value == NULL)
        return true;
    if (strcasecmp(source->value, "on") == 0)
        *on = true;
    else if (strcasecmp(source->value, "off") == 0)
        *on = false;
    else
        return RAISE(provider, REASON_SETTING, "%s is on or off", source->name);
    return true;
}

/* A path, or an abstract socket, which begins with @. */
static bool parse_address(const struct provider *provider, const char *setting, const char *word,
                          size_t bytes, struct sockaddr_un *address, socklen_t *address_bytes)
{
    /* The last byte stays 0, as some systems want it. */
    if (bytes < 2 || bytes >= sizeof address->sun_path || (word[0] != '/' && word[0] != '@'))
        return RAISE(provider, REASON_SETTING,
                     "%s: a socket is an absolute path or @name, at most %zu bytes", setting,
                     sizeof address->sun_path - 1);
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, word, bytes);
    *address_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + bytes + 1);
    if (word[0] == '@') {
        address->sun_path[0] = '\0';
        (*address_bytes)--;
    }
    return true;
}

/* One of `[alias=]socket`. */
static bool parse_endpoint(const struct provider *provider, const char *word, size_t bytes,
                           struct endpoint *endpoint)
{
    memset(endpoint, 0, sizeof *endpoint);
    const char *equals = memchr(word, '=', bytes);
    if (equals != NULL && memchr(word, '/', (size_t)(equals - word)) == NULL) {
        const size_t alias_bytes = (size_t)(equals - word);
        if (alias_bytes == 0 || alias_bytes > REFERENCE_ENDPOINT_BYTES_MAX)
            return RAISE(provider, REASON_SETTING, "hsmgate-endpoints: an alias has 1 to 64 bytes");
        memcpy(endpoint->alias, word, alias_bytes);
        word = equals + 1;
        bytes -= alias_bytes + 1;
    }
    if (!parse_address(provider, "hsmgate-endpoints", word, bytes, &endpoint->address,
                       &endpoint->address_bytes))
        return false;
    memcpy(endpoint->name, word, bytes);
    return true;
}

static bool parse_endpoints(const struct provider *provider, const char *list,
                            struct settings *settings)
{
    static const char separators[] = " \t,";
    settings->endpoint_count = 0;
    for (const char *at = list + strspn(list, separators); *at != '\0';
         at += strspn(at, separators)) {
        const size_t bytes = strcspn(at, separators);
        if (settings->endpoint_count == SETTINGS_ENDPOINTS_MAX)
            return RAISE(provider, REASON_SETTING, "hsmgate-endpoints: at most %d",
                         SETTINGS_ENDPOINTS_MAX);
        if (!parse_endpoint(provider, at, bytes, &settings->endpoints[settings->endpoint_count]))
            return false;
        settings->endpoint_count++;
        at += bytes;
    }
    return settings->endpoint_count > 0 ||
           RAISE(provider, REASON_SETTING, "hsmgate-endpoints is empty");
}

static bool parse_log(const struct provider *provider, const char *value, struct settings *settings)
{
    settings->log_address_bytes = 0;
    return value == NULL || strcasecmp(value, "off") == 0 ||
           parse_address(provider, "hsmgate-log", value, strlen(value), &settings->log_address,
                         &settings->log_address_bytes);
}

/* The program's name for the audit record of the gateway. nginx rewrites its argv later: a copy. */
static void copy_app_name(char app[FRAME_APP_BYTES_MAX + 1])
{
    const char *name = program_invocation_short_name;
    const size_t bytes = strnlen(name, FRAME_APP_BYTES_MAX);
    if (bytes == 0 || !text_is_plain((const uint8_t *)name, bytes))
        memcpy(app, "unknown", sizeof "unknown");
    else
        memcpy(app, name, bytes), app[bytes] = '\0';
}

bool settings_load(const struct provider *provider, OSSL_FUNC_core_get_params_fn *get_params,
                   struct settings *settings)
{
    struct source endpoints = {"hsmgate-endpoints", "HSMGATE_ENDPOINTS", default_endpoints};
    struct source deadline = {"hsmgate-deadline-ms", "HSMGATE_DEADLINE_MS", NULL};
    struct source pool = {"hsmgate-pool", "HSMGATE_POOL", NULL};
    struct source async = {"hsmgate-async", "HSMGATE_ASYNC", NULL};
    struct source log = {"hsmgate-log", "HSMGATE_LOG", NULL};
    struct source *sources[] = {&endpoints, &deadline, &pool, &async, &log};
    OSSL_PARAM params[sizeof sources / sizeof *sources + 1];
    size_t count = 0;
    for (; count < sizeof sources / sizeof *sources; count++)
        params[count] =
            OSSL_PARAM_construct_utf8_ptr(sources[count]->name, (char **)&sources[count]->value, 0);
    params[count] = OSSL_PARAM_construct_end();
    if (get_params != NULL && !get_params(provider->core, params))
        return false;
    for (size_t i = 0; i < count; i++) {
        const char *value = secure_getenv(sources[i]->variable);
        if (value != NULL)
            sources[i]->value = value;
    }
    settings->deadline_ms = 1000;
    settings->pool_max = 16;
    settings->async = true;
    copy_app_name(settings->app);
    return parse_endpoints(provider, endpoints.value, settings) &&
           parse_number(provider, &deadline, 10, 60000, &settings->deadline_ms) &&
           parse_number(provider, &pool, 1, SETTINGS_POOL_MAX, &settings->pool_max) &&
           parse_switch(provider, &async, &settings->async) &&
           parse_log(provider, log.value, settings);
}
