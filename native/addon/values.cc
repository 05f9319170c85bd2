#include "values.h"

#include <cmath>
#include <cstdio>
#include <cstring>

namespace hsmgate
{

bool createError(napi_env env, const Failure &failure, napi_value &error)
{
    std::string text = failure.text;
    if (text.empty()) {
        char number[32];
        std::snprintf(number, sizeof number, "0x%lx", failure.rv);
        text = std::string(failure.call) + " failed: CKR " + number;
    }
    napi_value message = nullptr;
    if (napi_create_string_utf8(env, text.data(), text.size(), &message) != napi_ok ||
        napi_create_error(env, nullptr, message, &error) != napi_ok)
        return false;
    if (!failure.text.empty())
        return true;
    napi_value name = nullptr;
    napi_value rv = nullptr;
    napi_value call = nullptr;
    return napi_create_string_utf8(env, "Pkcs11Error", NAPI_AUTO_LENGTH, &name) == napi_ok &&
           napi_create_double(env, static_cast<double>(failure.rv), &rv) == napi_ok &&
           napi_create_string_utf8(env, failure.call, NAPI_AUTO_LENGTH, &call) == napi_ok &&
           napi_set_named_property(env, error, "name", name) == napi_ok &&
           napi_set_named_property(env, error, "rv", rv) == napi_ok &&
           napi_set_named_property(env, error, "call", call) == napi_ok;
}

Napi::Error toError(Napi::Env env, const Failure &failure)
{
    napi_value error = nullptr;
    if (!createError(env, failure, error))
        return Napi::Error::New(env, "the environment is ending");
    return Napi::Error(env, error);
}

void throwIfFailed(Napi::Env env, const Failure &failure)
{
    if (failure.failed())
        throw toError(env, failure);
}

Napi::Error toSystemError(Napi::Env env, int error, const char *call)
{
    Napi::Error made = Napi::Error::New(env, std::string(call) + ": " + std::strerror(error));
    made.Set("errno", Napi::Number::New(env, -error));
    const char *name = strerrorname_np(error);
    made.Set("code", Napi::String::New(env, name != nullptr ? name : "EUNKNOWN"));
    made.Set("syscall", Napi::String::New(env, call));
    return made;
}

std::span<uint8_t> bytesOf(Napi::Env env, napi_value value, const char *what)
{
    napi_typedarray_type type;
    size_t length = 0;
    void *data = nullptr;
    if (napi_get_typedarray_info(env, value, &type, &length, &data, nullptr, nullptr) != napi_ok ||
        type != napi_uint8_array)
        throw Napi::TypeError::New(env, std::string(what) + " must be a Uint8Array");
    return {static_cast<uint8_t *>(data), data == nullptr ? 0 : length};
}

std::span<uint8_t> bytesOrNull(Napi::Env env, napi_value value, const char *what)
{
    napi_valuetype type = napi_undefined;
    if (napi_typeof(env, value, &type) == napi_ok && type == napi_null)
        return {};
    return bytesOf(env, value, what);
}

uint64_t uint64Of(Napi::Env env, napi_value value, const char *what)
{
    uint64_t number = 0;
    bool lossless = false;
    if (napi_get_value_bigint_uint64(env, value, &number, &lossless) != napi_ok || !lossless)
        throw Napi::TypeError::New(env, std::string(what) + " must be a bigint of 64 bits");
    return number;
}

uint64_t integerOf(Napi::Env env, napi_value value, const char *what, uint64_t max)
{
    double number = 0;
    if (napi_get_value_double(env, value, &number) != napi_ok)
        throw Napi::TypeError::New(env, std::string(what) + " must be a number");
    if (!(number >= 0) || number > static_cast<double>(max) || number != std::floor(number))
        throw Napi::RangeError::New(env, std::string(what) + " is out of range");
    return static_cast<uint64_t>(number);
}

Napi::Value bigint(Napi::Env env, uint64_t value)
{
    return Napi::BigInt::New(env, value);
}

} // namespace hsmgate
