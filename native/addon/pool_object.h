/*
 * `NativePool` of src/hsm/worker/addon.ts, and what binds a core pool to an event loop: one
 * uv_async handle that session threads ring when the completion list stops being empty; each ring
 * is answered by one call of `onCompletions`.
 *
 * Everything here runs on the JavaScript thread, except `open` and `close` of the core, which block
 * and get a thread of their own. The handle keeps the loop alive only while something is
 * outstanding.
 */
#pragma once

#include "core/pipe.h"
#include "core/pool.h"
#include "exit.h"
#include "module_object.h"

#include <atomic>
#include <memory>
#include <napi.h>
#include <optional>
#include <thread>
#include <uv.h>
#include <vector>

namespace hsmgate
{

class PoolBinding
{
public:
    /* Starts opening; returns the promise of a NativePool. `options` as in addon.ts; its PIN is
     * wiped at once. */
    static Napi::Value open(Napi::Env env, const std::shared_ptr<Module> &module,
                            ModuleObject &owner, Napi::Value options);

    void submit(const Napi::CallbackInfo &args);
    Napi::Value depth(Napi::Env env) const;
    Napi::Value close(Napi::Env env);
    /* Answers plans of the pipe until it closes. */
    void serve(std::shared_ptr<Pipe> pipe);

private:
    enum class Phase : uint8_t { opening, failed, open, closing, closed };

    PoolBinding(Napi::Env env, const std::shared_ptr<Module> &module, ModuleObject &owner,
                CK_SLOT_ID slot, unsigned sessions, Napi::Function onCompletions);

    void start(std::optional<SecretBytes> pin);
    void wake() { (void)uv_async_send(&async_); }
    void onWake();
    void reportOpened();
    void deliver();
    void callBack(napi_env env);
    bool toBatch(napi_env env, napi_value &batch);
    void beginClose();
    void end();
    /* The loop lives while something is outstanding. */
    void updateReference();
    static void onTeardown(napi_async_cleanup_hook_handle handle, void *binding);

    Napi::Env env_;
    ModuleObject &owner_;
    Napi::ObjectReference ownerReference_;
    Napi::FunctionReference onCompletions_;
    std::optional<Napi::AsyncContext> context_;
    Pool pool_;
    Departure departure_;
    uv_async_t async_{};
    napi_async_cleanup_hook_handle teardownHook_ = nullptr;
    bool tearingDown_ = false;

    std::atomic<Phase> phase_{Phase::opening};
    std::thread blocking_;
    Failure failure_;
    napi_deferred opening_ = nullptr;
    std::vector<napi_deferred> closing_;
    bool closeAsked_ = false;
    std::shared_ptr<Pipe> pipe_;

    std::vector<std::unique_ptr<Job>> finished_;
    size_t outstanding_ = 0;
    /* Keeps the binding until the loop has let go of the handle. */
    std::shared_ptr<PoolBinding> self_;
};

class PoolObject : public Napi::ObjectWrap<PoolObject>
{
public:
    static Napi::Function define(Napi::Env env);
    explicit PoolObject(const Napi::CallbackInfo &args);
    void serve(std::shared_ptr<Pipe> pipe) { binding_->serve(std::move(pipe)); }

private:
    void submit(const Napi::CallbackInfo &args) { binding_->submit(args); }
    Napi::Value depth(const Napi::CallbackInfo &args) { return binding_->depth(args.Env()); }
    Napi::Value close(const Napi::CallbackInfo &args) { return binding_->close(args.Env()); }

    std::shared_ptr<PoolBinding> binding_;
};

/* Constructors of one JavaScript environment. */
struct Classes {
    Napi::FunctionReference module;
    Napi::FunctionReference pool;
    Napi::FunctionReference pipe;
};

} // namespace hsmgate
