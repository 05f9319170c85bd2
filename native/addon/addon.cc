/*
 * The exports of hsmgate.node: `Addon` of src/hsm/worker/addon.ts. A thin skin over core/;
 * context-aware, so that a worker thread may load it too. C++ exceptions become JavaScript ones at
 * the boundary (NODE_ADDON_API_CPP_EXCEPTIONS_ALL).
 */
#include "core/process.h"
#include "core/secret.h"
#include "module_object.h"
#include "pipe_object.h"
#include "pool_object.h"
#include "values.h"
#include "verification.h"

#include <climits>
#include <napi.h>

namespace hsmgate
{

namespace
{

Napi::Value openModule(const Napi::CallbackInfo &args)
{
    return args.Env().GetInstanceData<Classes>()->module.New({args[0], args[1]});
}

Napi::Value openPipe(const Napi::CallbackInfo &args)
{
    return args.Env().GetInstanceData<Classes>()->pipe.New({args[0], args[1]});
}

Napi::Value peerCredentials(const Napi::CallbackInfo &args)
{
    const Napi::Env env = args.Env();
    PeerCredentials peer{};
    const int error =
        findPeerCredentials(static_cast<int>(integerOf(env, args[0], "fd", INT_MAX)), peer);
    if (error != 0)
        throw toSystemError(env, error, "getsockopt");
    Napi::Object object = Napi::Object::New(env);
    object.Set("pid", static_cast<double>(peer.pid));
    object.Set("uid", static_cast<double>(peer.uid));
    object.Set("gid", static_cast<double>(peer.gid));
    return object;
}

Napi::Value lock(const Napi::CallbackInfo &args)
{
    const Napi::Env env = args.Env();
    if (!args[0].IsString())
        throw Napi::TypeError::New(env, "path must be a string");
    const std::string path = args[0].As<Napi::String>();
    int fd = -1;
    const int error = lockFile(path.c_str(), fd);
    if (error != 0)
        throw toSystemError(env, error, "flock");
    return Napi::Number::New(env, fd);
}

void harden(const Napi::CallbackInfo &args)
{
    const Napi::Env env = args.Env();
    if (!args[0].IsObject())
        throw Napi::TypeError::New(env, "options must be an object");
    const Napi::Value dieWithParent = args[0].As<Napi::Object>().Get("dieWithParent");
    if (!dieWithParent.IsBoolean())
        throw Napi::TypeError::New(env, "dieWithParent must be a boolean");
    const int error = hardenProcess(dieWithParent.As<Napi::Boolean>());
    if (error != 0)
        throw toSystemError(env, error, "prctl");
}

void notify(const Napi::CallbackInfo &args)
{
    const Napi::Env env = args.Env();
    if (!args[0].IsString() || !args[1].IsString())
        throw Napi::TypeError::New(env, "socket and state must be strings");
    const std::string socketPath = args[0].As<Napi::String>();
    const std::string state = args[1].As<Napi::String>();
    const int error = notifyServiceManager(socketPath, state);
    if (error != 0)
        throw toSystemError(env, error, "sendto");
}

void wipeBytes(const Napi::CallbackInfo &args)
{
    const std::span<uint8_t> bytes = bytesOf(args.Env(), args[0], "bytes");
    wipe(bytes.data(), bytes.size());
}

Napi::Object start(Napi::Env env, Napi::Object exports)
{
    auto *classes = new Classes;
    classes->module = Napi::Persistent(ModuleObject::define(env));
    classes->pool = Napi::Persistent(PoolObject::define(env));
    classes->pipe = Napi::Persistent(PipeObject::define(env));
    env.SetInstanceData(classes);
    exports.Set("openModule", Napi::Function::New<openModule>(env, "openModule"));
    exports.Set("openPipe", Napi::Function::New<openPipe>(env, "openPipe"));
    exports.Set("peerCredentials", Napi::Function::New<peerCredentials>(env, "peerCredentials"));
    exports.Set("lockFile", Napi::Function::New<lock>(env, "lockFile"));
    exports.Set("hardenProcess", Napi::Function::New<harden>(env, "hardenProcess"));
    exports.Set("notifyServiceManager", Napi::Function::New<notify>(env, "notifyServiceManager"));
    exports.Set("verifySignature", Napi::Function::New<verifySignature>(env, "verifySignature"));
    exports.Set("wipe", Napi::Function::New<wipeBytes>(env, "wipe"));
    return exports;
}

} // namespace

NODE_API_MODULE(hsmgate, start)

} // namespace hsmgate
