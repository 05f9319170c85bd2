/* `NativeModule` of src/hsm/worker/addon.ts: one opened module. */
#pragma once

#include "core/module.h"

#include <memory>
#include <napi.h>

namespace hsmgate
{

class ModuleObject : public Napi::ObjectWrap<ModuleObject>
{
public:
    static Napi::Function define(Napi::Env env);
    explicit ModuleObject(const Napi::CallbackInfo &args);
    ~ModuleObject() override;

    /* A pool counts from `openPool` until its last session is closed. */
    void poolOpened() { pools_++; }
    void poolClosed() { pools_--; }

private:
    Napi::Value slots(const Napi::CallbackInfo &args);
    Napi::Value mechanisms(const Napi::CallbackInfo &args);
    void initToken(const Napi::CallbackInfo &args);
    Napi::Value openPool(const Napi::CallbackInfo &args);
    void finalize(const Napi::CallbackInfo &args);
    const std::shared_ptr<Module> &opened(Napi::Env env) const;

    std::shared_ptr<Module> module_;
    unsigned pools_ = 0;
};

} // namespace hsmgate
