/*
 * What the provider is told: its section of openssl.cnf, then the environment, which wins. Read
 * once, in OSSL_provider_init, because nginx clears the environment of its workers later; immutable
 * after.
 */
#pragma once

#include "frame.h"
#include "reference.h"

#include <openssl/core_dispatch.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

struct provider;

enum { SETTINGS_ENDPOINTS_MAX = 8, SETTINGS_POOL_MAX = 1024 };

struct endpoint {
    /* Empty: for references that name no endpoint. */
    char alias[REFERENCE_ENDPOINT_BYTES_MAX + 1];
    struct sockaddr_un address;
    socklen_t address_bytes;
    /* The path for messages; begins with @ for an abstract socket. */
    char name[sizeof(((struct sockaddr_un *)0)->sun_path) + 1];
};

struct settings {
    struct endpoint endpoints[SETTINGS_ENDPOINTS_MAX];
    unsigned endpoint_count;
    unsigned deadline_ms;
    unsigned pool_max;
    bool async;
    /* The socket of a syslog daemon; log_address_bytes is 0 when there is none. */
    struct sockaddr_un log_address;
    socklen_t log_address_bytes;
    char app[FRAME_APP_BYTES_MAX + 1];
};

/* False with an error raised when a setting is not valid. */
bool settings_load(const struct provider *provider, OSSL_FUNC_core_get_params_fn *get_params,
                   struct settings *settings);
