/* Between JavaScript values and the core's: errors, 64-bit numbers, byte views. Only on the
 * JavaScript thread. */
#pragma once

#include "core/module.h"

#include <cstdint>
#include <napi.h>
#include <span>
#include <string>

namespace hsmgate
{

/* A Pkcs11Error (`rv`, `call`), or a plain Error with the loader's words. False when the
 * environment can't any more. */
bool createError(napi_env env, const Failure &failure, napi_value &error);
Napi::Error toError(Napi::Env env, const Failure &failure);
void throwIfFailed(Napi::Env env, const Failure &failure);
/* An Error with Node's fields of a failed system call. */
Napi::Error toSystemError(Napi::Env env, int error, const char *call);

/* The bytes of a Uint8Array (a Buffer is one); throws TypeError `what` must be a Uint8Array. */
std::span<uint8_t> bytesOf(Napi::Env env, napi_value value, const char *what);
/* The same, but `null` gives no bytes. */
std::span<uint8_t> bytesOrNull(Napi::Env env, napi_value value, const char *what);
uint64_t uint64Of(Napi::Env env, napi_value value, const char *what);
/* An integer of a JavaScript number in 0 ... `max`; throws otherwise. */
uint64_t integerOf(Napi::Env env, napi_value value, const char *what, uint64_t max);

Napi::Value bigint(Napi::Env env, uint64_t value);

} // namespace hsmgate
