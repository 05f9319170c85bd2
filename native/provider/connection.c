#include "connection.h"
#include "provider.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    /* RESULT and ERROR fit whole; a longer WELCOME makes it grow. */
    IN_BYTES = FRAME_HEAD_BYTES + FRAME_RESULT_BYTES_MAX,
    HELLO_BYTES = 256,
    TOKENS_FIRST = 4,
    /* A full backlog answers EAGAIN and offers nothing to wait for. */
    BACKLOG_RETRY_MS = 1
};

static bool ensure_capacity(uint8_t **buffer, size_t *capacity, size_t needed)
{
    if (needed <= *capacity)
        return true;
    uint8_t *larger = malloc(needed);
    if (larger == NULL)
        return false;
    if (*buffer != NULL) {
        memcpy(larger, *buffer, *capacity);
        OPENSSL_cleanse(*buffer, *capacity);
        free(*buffer);
    }
    *buffer = larger;
    *capacity = needed;
    return true;
}

static enum exchange_outcome fail_with(struct reply *reply, int error)
{
    reply->system_error = error;
    return error == EACCES || error == EPERM ? EXCHANGE_FORBIDDEN : EXCHANGE_SYSTEM;
}

static enum exchange_outcome connect_to(const struct endpoint *endpoint,
                                        struct connection *connection, struct wait *wait,
                                        int64_t until_ns, struct reply *reply)
{
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return fail_with(reply, errno);
    pool_opened(connection, fd);
    for (;;) {
        if (connect(fd, (const struct sockaddr *)&endpoint->address, endpoint->address_bytes) == 0)
            return EXCHANGE_REPLY;
        if (errno == ECONNREFUSED || errno == ENOENT || errno == ENOTDIR)
            return EXCHANGE_AWAY;
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN)
            return fail_with(reply, errno);
        const int64_t again = now_ns() + ms_to_ns(BACKLOG_RETRY_MS);
        if (again >= until_ns)
            return EXCHANGE_TIMEOUT;
        if (wait_until(wait, -1, 0, again) == WAIT_FAILED)
            return fail_with(reply, errno);
    }
}

static enum exchange_outcome send_all(const struct connection *connection, size_t bytes,
                                      struct wait *wait, int64_t until_ns, struct reply *reply)
{
    size_t sent = 0;
    while (sent < bytes) {
        const ssize_t count =
            send(connection->fd, connection->out + sent, bytes - sent, MSG_NOSIGNAL);
        if (count >= 0) {
            sent += (size_t)count;
        } else if (errno == EAGAIN) {
            const enum wait_outcome outcome = wait_until(wait, connection->fd, POLLOUT, until_ns);
            if (outcome != WAIT_READY)
                return outcome == WAIT_TIMEOUT ? EXCHANGE_TIMEOUT : fail_with(reply, errno);
        } else if (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN) {
            return EXCHANGE_LOST;
        } else if (errno != EINTR) {
            return fail_with(reply, errno);
        }
    }
    return EXCHANGE_REPLY;
}

/* Drops the frame of `bytes` at the head of what was received. */
static void consume(struct connection *connection, size_t bytes)
{
    connection->in_used -= bytes;
    memmove(connection->in, connection->in + bytes, connection->in_used);
}

/* The next frame, whole; it stays in `in` until `consume`. */
static enum exchange_outcome receive_frame(struct connection *connection, struct wait *wait,
                                           int64_t until_ns, struct reply *reply)
{
    if (!ensure_capacity(&connection->in, &connection->in_capacity, IN_BYTES))
        return fail_with(reply, ENOMEM);
    for (;;) {
        if (connection->in_used >= FRAME_HEAD_BYTES) {
            if (!frame_decode_head(connection->in, &reply->head))
                return EXCHANGE_PROTOCOL;
            const size_t bytes = FRAME_HEAD_BYTES + reply->head.body_bytes;
            if (!ensure_capacity(&connection->in, &connection->in_capacity, bytes))
                return fail_with(reply, ENOMEM);
            reply->body = connection->in + FRAME_HEAD_BYTES;
            if (connection->in_used >= bytes)
                return frame_check_body(&reply->head, reply->body) ? EXCHANGE_REPLY
                                                                   : EXCHANGE_PROTOCOL;
        }
        const ssize_t count = recv(connection->fd, connection->in + connection->in_used,
                                   connection->in_capacity - connection->in_used, 0);
        if (count > 0) {
            connection->in_used += (size_t)count;
        } else if (count == 0 || errno == ECONNRESET) {
            return EXCHANGE_LOST;
        } else if (errno == EAGAIN) {
            const enum wait_outcome outcome = wait_until(wait, connection->fd, POLLIN, until_ns);
            if (outcome != WAIT_READY)
                return outcome == WAIT_TIMEOUT ? EXCHANGE_TIMEOUT : fail_with(reply, errno);
        } else if (errno != EINTR) {
            return fail_with(reply, errno);
        }
    }
}

static bool remember_token(struct connection *connection, const uint8_t *token)
{
    if (connection->token_count == connection->token_capacity) {
        const size_t capacity =
            connection->token_capacity == 0 ? TOKENS_FIRST : connection->token_capacity * 2;
        uint8_t(*larger)[TOKEN_BYTES] = malloc(capacity * TOKEN_BYTES);
        if (larger == NULL)
            return false;
        if (connection->tokens != NULL) {
            memcpy(larger, connection->tokens, connection->token_count * TOKEN_BYTES);
            OPENSSL_cleanse(connection->tokens, connection->token_count * TOKEN_BYTES);
            free(connection->tokens);
        }
        connection->tokens = larger;
        connection->token_capacity = capacity;
    }
    memcpy(connection->tokens[connection->token_count++], token, TOKEN_BYTES);
    return true;
}

static enum exchange_outcome greet(const struct provider *provider, struct connection *connection,
                                   const uint8_t *token, struct wait *wait, int64_t until_ns,
                                   struct reply *reply)
{
    const struct frame_hello hello = {
        .app = provider->settings.app,
        .pid = (uint32_t)getpid(),
        .provider_version = PROVIDER_VERSION,
        .token = token,
    };
    if (!ensure_capacity(&connection->out, &connection->out_capacity, HELLO_BYTES) ||
        (token != NULL && !remember_token(connection, token)))
        return fail_with(reply, ENOMEM);
    const size_t bytes = frame_encode_hello(connection->out, connection->out_capacity, &hello);
    enum exchange_outcome outcome =
        bytes == 0 ? EXCHANGE_PROTOCOL : send_all(connection, bytes, wait, until_ns, reply);
    if (outcome == EXCHANGE_REPLY)
        outcome = receive_frame(connection, wait, until_ns, reply);
    if (outcome == EXCHANGE_LOST)
        return EXCHANGE_AWAY;
    if (outcome != EXCHANGE_REPLY)
        return outcome;
    switch (reply->head.type) {
    case FRAME_WELCOME:
        (void)frame_decode_welcome(reply->body, reply->head.body_bytes, &connection->limits);
        consume(connection, FRAME_HEAD_BYTES + reply->head.body_bytes);
        return EXCHANGE_REPLY;
    case FRAME_ERROR:
        (void)frame_decode_error(reply->body, reply->head.body_bytes, &reply->error);
        return reply->error.code == GATEWAY_SHUTTING_DOWN ? EXCHANGE_AWAY : EXCHANGE_REPLY;
    case FRAME_GOAWAY:
        return EXCHANGE_AWAY;
    default:
        return EXCHANGE_PROTOCOL;
    }
}

enum exchange_outcome connection_open(const struct provider *provider,
                                      struct connection *connection, const uint8_t *token,
                                      struct wait *wait, int64_t until_ns, struct reply *reply)
{
    const struct endpoint *endpoint = &provider->settings.endpoints[connection->endpoint];
    const enum exchange_outcome outcome = connect_to(endpoint, connection, wait, until_ns, reply);
    return outcome == EXCHANGE_REPLY ? greet(provider, connection, token, wait, until_ns, reply)
                                     : outcome;
}

bool connection_is_quiet(const struct connection *connection)
{
    uint8_t byte;
    return connection->in_used == 0 &&
           recv(connection->fd, &byte, sizeof byte, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

bool connection_number(struct connection *connection, const uint8_t *token,
                       struct frame_request *request)
{
    request->request_id = ++connection->last_request_id;
    request->token_index = TOKEN_INDEX_NONE;
    request->new_token = NULL;
    if (token == NULL)
        return true;
    for (size_t i = 0; i < connection->token_count; i++)
        if (memcmp(connection->tokens[i], token, TOKEN_BYTES) == 0) {
            request->token_index = (uint16_t)i;
            return true;
        }
    if (connection->token_count >= connection->limits.max_tokens ||
        connection->token_count >= CONNECTION_TOKENS_MAX || !remember_token(connection, token))
        return false;
    request->token_index = (uint16_t)(connection->token_count - 1);
    request->new_token = token;
    return true;
}

enum exchange_outcome connection_exchange(struct connection *connection,
                                          const struct frame_request *request, struct wait *wait,
                                          int64_t until_ns, struct reply *reply)
{
    if (!ensure_capacity(&connection->out, &connection->out_capacity,
                         FRAME_HEAD_BYTES + FRAME_REQUEST_OVERHEAD_BYTES + request->input_bytes))
        return fail_with(reply, ENOMEM);
    const size_t bytes = frame_encode_request(connection->out, connection->out_capacity, request);
    if (bytes == 0)
        return EXCHANGE_PROTOCOL;
    enum exchange_outcome outcome = send_all(connection, bytes, wait, until_ns, reply);
    while (outcome == EXCHANGE_REPLY) {
        outcome = receive_frame(connection, wait, until_ns, reply);
        if (outcome != EXCHANGE_REPLY)
            break;
        const bool is_answer = reply->head.type == FRAME_RESULT || reply->head.type == FRAME_ERROR;
        if (reply->head.type == FRAME_GOAWAY)
            connection->leaving = true;
        else if (!is_answer)
            return EXCHANGE_PROTOCOL;
        if (is_answer && reply->head.request_id == request->request_id) {
            if (reply->head.type == FRAME_ERROR)
                (void)frame_decode_error(reply->body, reply->head.body_bytes, &reply->error);
            return EXCHANGE_REPLY;
        }
        /* A GOAWAY, or an answer to a request that nobody waits for any more. */
        consume(connection, FRAME_HEAD_BYTES + reply->head.body_bytes);
    }
    return outcome;
}
