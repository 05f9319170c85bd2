#include "pem.h"
#include "error.h"
#include "reference.h"

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <string.h>

enum pem_outcome pem_read(const struct provider *provider, BIO *in, uint8_t **der, long *bytes)
{
    char *label = NULL, *header = NULL;
    *der = NULL;
    *bytes = 0;
    ERR_set_mark();
    const bool found = PEM_read_bio(in, &label, &header, der, bytes) > 0;
    ERR_pop_to_mark();
    enum pem_outcome outcome = PEM_NONE;
    if (found && strcmp(label, REFERENCE_LABEL) != 0) {
        outcome = PEM_OTHER_BLOCK;
    } else if (found && header[0] != '\0') {
        RAISE(provider, REASON_REFERENCE, "its PEM has headers");
        outcome = PEM_BROKEN_REFERENCE;
    } else if (found) {
        outcome = PEM_REFERENCE;
    }
    if (found && outcome != PEM_REFERENCE) {
        pem_release(*der, *bytes);
        *der = NULL;
    }
    OPENSSL_free(label);
    OPENSSL_free(header);
    return outcome;
}

void pem_release(uint8_t *der, long bytes)
{
    OPENSSL_clear_free(der, (size_t)bytes);
}
