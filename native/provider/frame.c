#include "frame.h"
#include "text.h"

#include <string.h>

/* Tags of items; from 0x80 on a receiver skips what it does not know. */
enum { FIRST_OPTIONAL_TAG = 0x80, ITEM_HEAD_BYTES = 3 };
enum { HELLO_VERSIONS = 1, HELLO_APP, HELLO_PID, HELLO_PROVIDER_VERSION, HELLO_TOKEN };
enum {
    WELCOME_VERSION = 1,
    WELCOME_MAX_BODY,
    WELCOME_MAX_INPUT,
    WELCOME_MAX_IN_FLIGHT,
    WELCOME_MAX_TOKENS,
    WELCOME_INSTANCE,
    WELCOME_FEATURES,
    WELCOME_MAX_BUDGET,
    WELCOME_IDLE,
    WELCOME_TAGS
};
enum {
    REQUEST_KEY_ID = 1,
    REQUEST_TOKEN_INDEX,
    REQUEST_ALGORITHM,
    REQUEST_HASH,
    REQUEST_MGF_HASH,
    REQUEST_SALT_BYTES,
    REQUEST_INPUT_KIND,
    REQUEST_INPUT,
    REQUEST_TRACE_ID,
    REQUEST_NEW_TOKEN
};

/* Once something does not fit nothing more is written. */
struct writer {
    uint8_t *out;
    size_t capacity;
    size_t used;
    bool full;
};

static void put_bytes(struct writer *writer, const void *bytes, size_t count)
{
    if (writer->full || count > writer->capacity - writer->used) {
        writer->full = true;
        return;
    }
    if (count > 0)
        memcpy(writer->out + writer->used, bytes, count);
    writer->used += count;
}

static void put_unsigned(struct writer *writer, uint32_t value, unsigned width)
{
    uint8_t bytes[4];
    for (unsigned i = 0; i < width; i++)
        bytes[i] = (uint8_t)(value >> (8 * (width - 1 - i)));
    put_bytes(writer, bytes, width);
}

static void put_item(struct writer *writer, uint8_t tag, const void *value, size_t bytes)
{
    if (bytes > UINT16_MAX) {
        writer->full = true;
        return;
    }
    put_unsigned(writer, tag, 1);
    put_unsigned(writer, (uint32_t)bytes, 2);
    put_bytes(writer, value, bytes);
}

static void put_number_item(struct writer *writer, uint8_t tag, uint32_t value, unsigned width)
{
    put_unsigned(writer, tag, 1);
    put_unsigned(writer, width, 2);
    put_unsigned(writer, value, width);
}

static struct writer begin(uint8_t *out, size_t capacity)
{
    struct writer writer = {out, capacity, 0, capacity < FRAME_HEAD_BYTES};
    if (!writer.full)
        writer.used = FRAME_HEAD_BYTES;
    return writer;
}

static size_t end(struct writer *writer, enum frame_type type, uint32_t request_id, uint32_t aux)
{
    if (writer->full || writer->used - FRAME_HEAD_BYTES > FRAME_BODY_BYTES_MAX)
        return 0;
    const size_t frame_bytes = writer->used;
    writer->used = 0;
    put_unsigned(writer, (uint32_t)(frame_bytes - FRAME_HEAD_BYTES), 4);
    put_unsigned(writer, FRAME_VERSION, 1);
    put_unsigned(writer, type, 1);
    put_unsigned(writer, 0, 2);
    put_unsigned(writer, request_id, 4);
    put_unsigned(writer, aux, 4);
    return frame_bytes;
}

size_t frame_encode_hello(uint8_t *out, size_t capacity, const struct frame_hello *hello)
{
    struct writer writer = begin(out, capacity);
    const uint8_t versions[] = {FRAME_VERSION, FRAME_VERSION};
    put_item(&writer, HELLO_VERSIONS, versions, sizeof versions);
    put_item(&writer, HELLO_APP, hello->app, strlen(hello->app));
    put_number_item(&writer, HELLO_PID, hello->pid, 4);
    put_item(&writer, HELLO_PROVIDER_VERSION, hello->provider_version,
             strlen(hello->provider_version));
    if (hello->token != NULL)
        put_item(&writer, HELLO_TOKEN, hello->token, TOKEN_BYTES);
    return end(&writer, FRAME_HELLO, 0, 0);
}

size_t frame_encode_request(uint8_t *out, size_t capacity, const struct frame_request *request)
{
    if (request->input_bytes > FRAME_INPUT_BYTES_MAX)
        return 0;
    struct writer writer = begin(out, capacity);
    put_item(&writer, REQUEST_KEY_ID, request->key_id, KEY_ID_BYTES);
    put_number_item(&writer, REQUEST_TOKEN_INDEX, request->token_index, 2);
    put_number_item(&writer, REQUEST_ALGORITHM, request->algorithm, 1);
    put_number_item(&writer, REQUEST_HASH, request->hash, 1);
    if (request->algorithm == ALGORITHM_RSA_PSS) {
        put_number_item(&writer, REQUEST_MGF_HASH, request->mgf_hash, 1);
        put_number_item(&writer, REQUEST_SALT_BYTES, request->salt_bytes, 2);
    }
    put_number_item(&writer, REQUEST_INPUT_KIND, request->input_kind, 1);
    put_item(&writer, REQUEST_INPUT, request->input, request->input_bytes);
    if (request->trace_id != NULL)
        put_item(&writer, REQUEST_TRACE_ID, request->trace_id, TRACE_ID_BYTES);
    if (request->new_token != NULL)
        put_item(&writer, REQUEST_NEW_TOKEN, request->new_token, TOKEN_BYTES);
    return end(&writer, FRAME_REQUEST, request->request_id, request->budget_ms);
}

static uint32_t read_unsigned(const uint8_t *bytes, size_t width)
{
    uint32_t value = 0;
    for (size_t i = 0; i < width; i++)
        value = value << 8 | bytes[i];
    return value;
}

static uint32_t longest_body(uint8_t type)
{
    switch (type) {
    case FRAME_WELCOME:
        return FRAME_BODY_BYTES_MAX;
    case FRAME_RESULT:
        return FRAME_RESULT_BYTES_MAX;
    case FRAME_ERROR:
        return 3 + FRAME_ERROR_TEXT_BYTES_MAX;
    default:
        return 0;
    }
}

bool frame_decode_head(const uint8_t bytes[FRAME_HEAD_BYTES], struct frame_head *head)
{
    const uint8_t type = bytes[5];
    if (bytes[4] != FRAME_VERSION || bytes[6] != 0 || bytes[7] != 0)
        return false;
    if (type != FRAME_WELCOME && type != FRAME_RESULT && type != FRAME_ERROR &&
        type != FRAME_PONG && type != FRAME_GOAWAY)
        return false;
    head->body_bytes = read_unsigned(bytes, 4);
    head->type = (enum frame_type)type;
    head->request_id = read_unsigned(bytes + 8, 4);
    head->aux = read_unsigned(bytes + 12, 4);
    return head->body_bytes <= longest_body(type);
}

bool frame_decode_welcome(const uint8_t *body, size_t bytes, struct frame_welcome *welcome)
{
    static const uint8_t widths[WELCOME_TAGS] = {
        [WELCOME_VERSION] = 1,    [WELCOME_MAX_BODY] = 4,
        [WELCOME_MAX_INPUT] = 4,  [WELCOME_MAX_IN_FLIGHT] = 2,
        [WELCOME_MAX_TOKENS] = 2, [WELCOME_INSTANCE] = INSTANCE_ID_BYTES,
        [WELCOME_FEATURES] = 4,   [WELCOME_MAX_BUDGET] = 4,
        [WELCOME_IDLE] = 4,
    };
    uint32_t values[WELCOME_TAGS] = {0};
    unsigned seen = 0;
    int last = -1;
    for (size_t at = 0; at < bytes;) {
        if (bytes - at < ITEM_HEAD_BYTES)
            return false;
        const uint8_t tag = body[at];
        const size_t length = read_unsigned(body + at + 1, 2);
        at += ITEM_HEAD_BYTES;
        if (length > bytes - at || tag <= last)
            return false;
        last = tag;
        if (tag >= 1 && tag < WELCOME_TAGS) {
            if (length != widths[tag])
                return false;
            values[tag] = length <= 4 ? read_unsigned(body + at, length) : 0;
            seen |= 1U << tag;
        } else if (tag < FIRST_OPTIONAL_TAG) {
            return false;
        }
        at += length;
    }
    if (seen != (1U << WELCOME_TAGS) - 2)
        return false;
    welcome->max_body_bytes = values[WELCOME_MAX_BODY];
    welcome->max_input_bytes = values[WELCOME_MAX_INPUT];
    welcome->max_tokens = (uint16_t)values[WELCOME_MAX_TOKENS];
    welcome->max_budget_ms = values[WELCOME_MAX_BUDGET];
    return values[WELCOME_VERSION] == FRAME_VERSION;
}

bool frame_decode_error(const uint8_t *body, size_t bytes, struct frame_error *error)
{
    if (bytes < 3 || bytes > 3 + FRAME_ERROR_TEXT_BYTES_MAX || body[2] > 1 ||
        !text_is_plain(body + 3, bytes - 3))
        return false;
    error->code = (uint16_t)read_unsigned(body, 2);
    error->retryable = body[2] == 1;
    error->text = (const char *)body + 3;
    error->text_bytes = bytes - 3;
    return true;
}

bool frame_check_body(const struct frame_head *head, const uint8_t *body)
{
    struct frame_welcome welcome;
    struct frame_error error;
    switch (head->type) {
    case FRAME_WELCOME:
        return frame_decode_welcome(body, head->body_bytes, &welcome);
    case FRAME_ERROR:
        return frame_decode_error(body, head->body_bytes, &error);
    case FRAME_RESULT:
        return head->body_bytes > 0;
    default:
        return head->body_bytes == 0;
    }
}
