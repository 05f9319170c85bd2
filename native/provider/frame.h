/*
 * HKS/1 frames as a client writes and reads them (native/README.md, "HKS/1 frames"). Pure: bytes
 * in, fields out; no allocation, no OpenSSL. Decoded fields are views into the bytes given.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FRAME_VERSION = 1,
    FRAME_HEAD_BYTES = 16,
    FRAME_BODY_BYTES_MAX = 65536,
    FRAME_INPUT_BYTES_MAX = 16384,
    FRAME_RESULT_BYTES_MAX = 2048,
    FRAME_ERROR_TEXT_BYTES_MAX = 200,
    FRAME_APP_BYTES_MAX = 64,
    /* Everything in a REQUEST but the input, generously. */
    FRAME_REQUEST_OVERHEAD_BYTES = 256,
    KEY_ID_BYTES = 32,
    TOKEN_BYTES = 32,
    TRACE_ID_BYTES = 16,
    INSTANCE_ID_BYTES = 16
};

enum frame_type {
    FRAME_HELLO = 1,
    FRAME_WELCOME = 2,
    FRAME_REQUEST = 3,
    FRAME_RESULT = 4,
    FRAME_ERROR = 5,
    FRAME_PING = 6,
    FRAME_PONG = 7,
    FRAME_GOAWAY = 8
};

enum wire_algorithm {
    ALGORITHM_RSA_PKCS1 = 1,
    ALGORITHM_RSA_PSS = 2,
    ALGORITHM_ECDSA = 3,
    ALGORITHM_EDDSA = 4
};

enum wire_hash { HASH_NONE = 0, HASH_SHA256 = 1, HASH_SHA384 = 2, HASH_SHA512 = 3 };

enum wire_input { INPUT_MESSAGE = 1, INPUT_DIGEST = 2 };

/* What a gateway answers in an ERROR. */
enum wire_error {
    GATEWAY_BAD_REQUEST = 1,
    GATEWAY_UNAUTHENTICATED = 2,
    GATEWAY_POLICY_DENIED = 3,
    GATEWAY_KEY_NOT_FOUND = 4,
    GATEWAY_UNSUPPORTED = 5,
    GATEWAY_BUSY = 6,
    GATEWAY_HSM = 7,
    GATEWAY_DEADLINE = 8,
    GATEWAY_SHUTTING_DOWN = 9,
    GATEWAY_INTERNAL = 10
};

/* The index that names no token: the gateway decides on the peer's uid alone. */
enum { TOKEN_INDEX_NONE = 0xffff };

struct frame_head {
    uint32_t body_bytes;
    enum frame_type type;
    uint32_t request_id;
    /* RESULT and ERROR: microseconds inside the gateway. */
    uint32_t aux;
};

struct frame_hello {
    const char *app;
    uint32_t pid;
    const char *provider_version;
    /* NULL: the connection starts without a token. */
    const uint8_t *token;
};

struct frame_welcome {
    uint32_t max_body_bytes;
    uint32_t max_input_bytes;
    uint16_t max_tokens;
    /* 0 = no limit. */
    uint32_t max_budget_ms;
};

struct frame_request {
    uint32_t request_id;
    uint32_t budget_ms;
    const uint8_t *key_id;
    uint16_t token_index;
    enum wire_algorithm algorithm;
    enum wire_hash hash;
    /* RSA-PSS alone. */
    enum wire_hash mgf_hash;
    uint16_t salt_bytes;
    enum wire_input input_kind;
    const uint8_t *input;
    size_t input_bytes;
    const uint8_t *trace_id;
    /* NULL, or the token that gets `token_index`, the next of this connection. */
    const uint8_t *new_token;
};

struct frame_error {
    uint16_t code;
    bool retryable;
    const char *text;
    size_t text_bytes;
};

/* Bytes written, or 0 when the frame does not fit into `capacity` or its fields not into a frame.
 */
size_t frame_encode_hello(uint8_t *out, size_t capacity, const struct frame_hello *hello);
size_t frame_encode_request(uint8_t *out, size_t capacity, const struct frame_request *request);

/* A head from a gateway: false when version, type, flags or length are none that it may send. */
bool frame_decode_head(const uint8_t bytes[FRAME_HEAD_BYTES], struct frame_head *head);
bool frame_decode_welcome(const uint8_t *body, size_t bytes, struct frame_welcome *welcome);
bool frame_decode_error(const uint8_t *body, size_t bytes, struct frame_error *error);
/* The body of any frame that `head` announced, as strictly as the decoders above. */
bool frame_check_body(const struct frame_head *head, const uint8_t *body);
