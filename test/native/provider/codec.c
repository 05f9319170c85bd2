/*
 * The provider's parsers on their own: frames and key references in hex on stdin, one a line, what
 * becomes of each on stdout; and both under mutations.
 *
 *   codec frames              toClient frames: `frame <type> <requestId> <aux> <fields>`, `close`
 * or `incomplete` codec hello APP PID VERSION [TOKEN] codec request ID BUDGET KEYID INDEX ALG HASH
 * MGF SALT KIND INPUT TRACE TOKEN    (- where there is none) codec references          `ok <key id>
 * <public key> <endpoint> <token> <comment>` or `refused <why>` codec fuzz ROUNDS SEED    mutations
 * of the lines on stdin through both; says nothing, must not crash
 */
#include "frame.h"
#include "reference.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_hex(const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        printf("%02x", bytes[i]);
}

/* Exactly as many bytes as the text has, on the heap, so that the sanitizer sees each byte too far.
 */
static uint8_t *parse_hex(const char *hex, size_t *count)
{
    *count = strspn(hex, "0123456789abcdef") / 2;
    uint8_t *bytes = malloc(*count);
    for (size_t i = 0; i < *count; i++) {
        unsigned value;
        (void)sscanf(hex + 2 * i, "%2x", &value);
        bytes[i] = (uint8_t)value;
    }
    return bytes;
}

static void print_frame(const struct frame_head *head, const uint8_t *body)
{
    struct frame_welcome welcome;
    struct frame_error error;
    printf("frame %d %" PRIu32 " %" PRIu32, head->type, head->request_id, head->aux);
    if (head->type == FRAME_WELCOME && frame_decode_welcome(body, head->body_bytes, &welcome)) {
        printf(" %" PRIu32 " %" PRIu32 " %u %" PRIu32, welcome.max_body_bytes,
               welcome.max_input_bytes, welcome.max_tokens, welcome.max_budget_ms);
    } else if (head->type == FRAME_ERROR && frame_decode_error(body, head->body_bytes, &error)) {
        printf(" %u %d %.*s", error.code, error.retryable, (int)error.text_bytes, error.text);
    } else if (head->type == FRAME_RESULT) {
        printf(" ");
        print_hex(body, head->body_bytes);
    }
}

/* As connection.c goes about it: the head first, the body when it is whole. */
static const char *try_frame(const uint8_t *bytes, size_t count, struct frame_head *head)
{
    if (count < FRAME_HEAD_BYTES)
        return "incomplete";
    if (!frame_decode_head(bytes, head))
        return "close";
    if (count - FRAME_HEAD_BYTES < head->body_bytes)
        return "incomplete";
    return frame_check_body(head, bytes + FRAME_HEAD_BYTES) ? NULL : "close";
}

static void show_frame(const uint8_t *bytes, size_t count)
{
    struct frame_head head;
    const char *trouble = try_frame(bytes, count, &head);
    if (trouble != NULL)
        printf("%s", trouble);
    else
        print_frame(&head, bytes + FRAME_HEAD_BYTES);
    printf("\n");
}

static void show_member(struct bytes member)
{
    printf(" ");
    if (member.data == NULL)
        printf("-");
    else
        print_hex(member.data, member.count);
}

static void show_reference(const uint8_t *bytes, size_t count)
{
    struct reference reference;
    const char *trouble = reference_decode(bytes, count, &reference);
    if (trouble != NULL) {
        printf("refused %s\n", trouble);
        return;
    }
    printf("ok");
    show_member(reference.key_id);
    show_member(reference.public_key);
    show_member(reference.endpoint);
    show_member(reference.token);
    show_member(reference.comment);
    printf("\n");
}

static char line[200000];

static int for_each_line(void (*show)(const uint8_t *bytes, size_t count))
{
    while (fgets(line, sizeof line, stdin) != NULL) {
        size_t count;
        uint8_t *bytes = parse_hex(line, &count);
        show(bytes, count);
        free(bytes);
    }
    return 0;
}

static int print_encoded(const uint8_t *out, size_t bytes)
{
    print_hex(out, bytes);
    printf("\n");
    return bytes == 0;
}

static int encode_hello(char **argv)
{
    uint8_t out[1024];
    size_t token_bytes;
    uint8_t *token = argv[3] == NULL ? NULL : parse_hex(argv[3], &token_bytes);
    const struct frame_hello hello = {argv[0], (uint32_t)atol(argv[1]), argv[2], token};
    const int status = print_encoded(out, frame_encode_hello(out, sizeof out, &hello));
    free(token);
    return status;
}

static int encode_request(char **argv)
{
    static uint8_t out[FRAME_HEAD_BYTES + FRAME_INPUT_BYTES_MAX + FRAME_REQUEST_OVERHEAD_BYTES];
    size_t bytes, input_bytes;
    uint8_t *key_id = parse_hex(argv[2], &bytes), *input = parse_hex(argv[9], &input_bytes);
    uint8_t *trace = argv[10][0] == '-' ? NULL : parse_hex(argv[10], &bytes);
    uint8_t *token = argv[11][0] == '-' ? NULL : parse_hex(argv[11], &bytes);
    const struct frame_request request = {
        .request_id = (uint32_t)strtoul(argv[0], NULL, 10),
        .budget_ms = (uint32_t)strtoul(argv[1], NULL, 10),
        .key_id = key_id,
        .token_index = (uint16_t)atoi(argv[3]),
        .algorithm = (enum wire_algorithm)atoi(argv[4]),
        .hash = (enum wire_hash)atoi(argv[5]),
        .mgf_hash = (enum wire_hash)atoi(argv[6]),
        .salt_bytes = (uint16_t)atoi(argv[7]),
        .input_kind = (enum wire_input)atoi(argv[8]),
        .input = input,
        .input_bytes = input_bytes,
        .trace_id = trace,
        .new_token = token,
    };
    const int status = print_encoded(out, frame_encode_request(out, sizeof out, &request));
    free(key_id), free(input), free(trace), free(token);
    return status;
}

static uint64_t random_state;

/* splitmix64: the same numbers on every machine. */
static uint64_t next_random(void)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* A few bytes changed, the end cut off or bytes repeated. */
static uint8_t *mutate(const uint8_t *seed, size_t count, size_t *mutated_count)
{
    const size_t keep = next_random() % 4 == 0 ? next_random() % (count + 1) : count;
    const size_t more = next_random() % 8 == 0 ? next_random() % 64 : 0;
    uint8_t *bytes = malloc(keep + more);
    memcpy(bytes, seed, keep);
    for (size_t i = 0; i < more; i++)
        bytes[keep + i] = (uint8_t)next_random();
    *mutated_count = keep + more;
    for (uint64_t edits = next_random() % 6; edits > 0 && *mutated_count > 0; edits--) {
        static const uint8_t telling[] = {0x00, 0x01, 0x7f, 0x80, 0x81, 0x82, 0xff};
        const size_t at =
            next_random() % (next_random() % 2 == 0 ? *mutated_count : 1 + *mutated_count / 8);
        bytes[at] = next_random() % 2 == 0 ? telling[next_random() % sizeof telling]
                                           : (uint8_t)next_random();
    }
    return bytes;
}

static unsigned long rounds;

static void fuzz_line(const uint8_t *seed, size_t count)
{
    for (unsigned long round = 0; round < rounds; round++) {
        size_t mutated_count;
        uint8_t *bytes = mutate(seed, count, &mutated_count);
        struct frame_head head;
        struct reference reference;
        (void)try_frame(bytes, mutated_count, &head);
        /* Every member has to lie inside what was given. */
        if (reference_decode(bytes, mutated_count, &reference) == NULL &&
            (reference.public_key.data < bytes ||
             reference.public_key.data + reference.public_key.count > bytes + mutated_count))
            abort();
        free(bytes);
    }
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "frames") == 0)
        return for_each_line(show_frame);
    if (argc == 2 && strcmp(argv[1], "references") == 0)
        return for_each_line(show_reference);
    if (argc >= 5 && strcmp(argv[1], "hello") == 0)
        return encode_hello(argv + 2);
    if (argc == 14 && strcmp(argv[1], "request") == 0)
        return encode_request(argv + 2);
    if (argc == 4 && strcmp(argv[1], "fuzz") == 0) {
        rounds = strtoul(argv[2], NULL, 10);
        random_state = strtoull(argv[3], NULL, 10);
        return for_each_line(fuzz_line);
    }
    return 2;
}
