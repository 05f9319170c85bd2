/*
 * Verification of signatures with the OpenSSL that Node itself is made of: what node:crypto has no
 * interface for (digests that were made elsewhere, Ed25519ph, ML-DSA with an external mu), and, so
 * that there is one road, everything else too. Public values only. Runs on libuv's thread pool;
 * nothing is linked, the symbols are those that the Node binary exports.
 */
#pragma once

#include <napi.h>

namespace hsmgate
{

/* verifySignature of src/hsm/worker/addon.ts. */
Napi::Value verifySignature(const Napi::CallbackInfo &args);

} // namespace hsmgate
