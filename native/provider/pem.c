#include "pem.h"
#include "error.h"
#include "reference.h"

#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    LINE_BYTES = 256,
    BASE64_BYTES_MAX = (REFERENCE_DER_BYTES_MAX + 2) / 3 * 4,
};

/* Without the end of line and blanks before it; false at the end of the file. A longer line comes
 * in pieces. */
static bool read_line(BIO *in, char line[LINE_BYTES])
{
    int bytes = BIO_gets(in, line, LINE_BYTES);
    if (bytes <= 0)
        return false;
    while (bytes > 0 && (line[bytes - 1] == '\n' || line[bytes - 1] == '\r' ||
                         line[bytes - 1] == ' ' || line[bytes - 1] == '\t'))
        bytes--;
    line[bytes] = '\0';
    return true;
}

/* Whether `line` is `-----BEGIN label-----` (or END); the label begins at `*label`. */
static bool is_boundary(const char *line, const char *prefix, const char **label,
                        size_t *label_bytes)
{
    const size_t prefix_bytes = strlen(prefix), bytes = strlen(line);
    if (strncmp(line, prefix, prefix_bytes) != 0 || bytes < prefix_bytes + 5 ||
        strcmp(line + bytes - 5, "-----") != 0)
        return false;
    *label = line + prefix_bytes;
    *label_bytes = bytes - 5 - prefix_bytes;
    return true;
}

static bool is_reference_label(const char *label, size_t bytes)
{
    return bytes == sizeof REFERENCE_LABEL - 1 && memcmp(label, REFERENCE_LABEL, bytes) == 0;
}

static int base64_value(char character)
{
    if (character >= 'A' && character <= 'Z')
        return character - 'A';
    if (character >= 'a' && character <= 'z')
        return character - 'a' + 26;
    if (character >= '0' && character <= '9')
        return character - '0' + 52;
    return character == '+' ? 62 : character == '/' ? 63 : -1;
}

/* In place, strictly: groups of four, padding only in the last one, no bits beyond the last byte.
 */
static bool decode_base64(uint8_t *text, size_t count, size_t *bytes)
{
    size_t out = 0;
    if (count % 4 != 0)
        return false;
    for (size_t at = 0; at < count; at += 4) {
        const bool last = at + 4 == count;
        const unsigned padding = !last || text[at + 3] != '=' ? 0 : text[at + 2] == '=' ? 2 : 1;
        uint32_t group = 0;
        for (unsigned i = 0; i < 4; i++) {
            const int value = i >= 4 - padding ? 0 : base64_value((char)text[at + i]);
            if (value < 0)
                return false;
            group = group << 6 | (uint32_t)value;
        }
        if ((padding == 1 && (group & 0xff) != 0) || (padding == 2 && (group & 0xffff) != 0))
            return false;
        for (unsigned i = 0; i < 3 - padding; i++)
            text[out++] = (uint8_t)(group >> (16 - 8 * i));
    }
    *bytes = out;
    return true;
}

/* What stands between the boundaries of a reference; NULL when read, else why not. */
static const char *read_body(BIO *in, char line[LINE_BYTES], uint8_t *text, size_t *bytes)
{
    size_t count = 0;
    const char *trouble = NULL, *label;
    size_t label_bytes;
    while (read_line(in, line)) {
        if (is_boundary(line, "-----END ", &label, &label_bytes)) {
            if (trouble == NULL && !is_reference_label(label, label_bytes))
                trouble = "its last line has another label";
            if (trouble == NULL && !decode_base64(text, count, bytes))
                trouble = "it is not base64";
            return trouble;
        }
        const size_t line_bytes = strlen(line);
        if (strchr(line, ':') != NULL)
            trouble = "its PEM has headers";
        if (trouble == NULL && line_bytes > BASE64_BYTES_MAX - count)
            trouble = "it is longer than 16 KiB";
        if (trouble != NULL)
            continue;
        memcpy(text + count, line, line_bytes);
        count += line_bytes;
    }
    return trouble != NULL ? trouble : "it is cut off: its last line is missing";
}

static enum pem_outcome read_reference(const struct provider *provider, BIO *in,
                                       char line[LINE_BYTES], uint8_t **der, size_t *bytes)
{
    uint8_t *text = malloc(BASE64_BYTES_MAX);
    const char *trouble = text == NULL ? "no memory" : read_body(in, line, text, bytes);
    if (trouble == NULL) {
        *der = text;
        return PEM_REFERENCE;
    }
    RAISE(provider, REASON_REFERENCE, "%s", trouble);
    pem_release(text, BASE64_BYTES_MAX);
    return PEM_BROKEN_REFERENCE;
}

enum pem_outcome pem_read(const struct provider *provider, BIO *in, uint8_t **der, size_t *bytes)
{
    char line[LINE_BYTES];
    const char *label;
    size_t label_bytes;
    enum pem_outcome outcome = PEM_NONE;
    *der = NULL;
    *bytes = 0;
    while (outcome == PEM_NONE && read_line(in, line)) {
        if (!is_boundary(line, "-----BEGIN ", &label, &label_bytes))
            continue;
        if (is_reference_label(label, label_bytes)) {
            outcome = read_reference(provider, in, line, der, bytes);
            break;
        }
        outcome = PEM_OTHER_BLOCK;
        while (read_line(in, line) && !is_boundary(line, "-----END ", &label, &label_bytes))
            continue;
    }
    OPENSSL_cleanse(line, sizeof line);
    return outcome;
}

void pem_release(uint8_t *der, size_t bytes)
{
    if (der == NULL)
        return;
    OPENSSL_cleanse(der, bytes);
    free(der);
}
