/*
 * `NativePipe` of src/hsm/worker/addon.ts: binds a core pipe to an event loop. One uv_async handle,
 * rung by the pipe's threads, holds the loop until the other end has closed. Everything here runs
 * on the JavaScript thread.
 */
#pragma once

#include "core/pipe.h"

#include <memory>
#include <napi.h>
#include <uv.h>
#include <vector>

namespace hsmgate
{

class PipeObject : public Napi::ObjectWrap<PipeObject>
{
public:
    static Napi::Function define(Napi::Env env);
    /* Descriptor, and an object with `onFrames`, `onFailed` and `onEnd`. */
    explicit PipeObject(const Napi::CallbackInfo &args);

private:
    void write(const Napi::CallbackInfo &args);
    void attach(const Napi::CallbackInfo &args);
    void remember(const Napi::CallbackInfo &args);
    void forget(const Napi::CallbackInfo &args);
    void onWake();

    std::shared_ptr<Pipe> pipe_;
    uv_async_t async_{};
    Napi::FunctionReference onFrames_;
    Napi::FunctionReference onFailed_;
    Napi::FunctionReference onEnd_;
    SecretBytes frames_;
    std::vector<Failed> failed_;
    bool ended_ = false;
};

} // namespace hsmgate
