#include "module_object.h"

#include "exit.h"
#include "pool_object.h"
#include "values.h"

namespace hsmgate
{

namespace
{

std::string version(const CK_VERSION &version)
{
    return std::to_string(version.major) + "." + std::to_string(version.minor);
}

} // namespace

Napi::Function ModuleObject::define(Napi::Env env)
{
    return DefineClass(env, "NativeModule",
                       {
                           InstanceMethod<&ModuleObject::slots>("slots"),
                           InstanceMethod<&ModuleObject::mechanisms>("mechanisms"),
                           InstanceMethod<&ModuleObject::initToken>("initToken"),
                           InstanceMethod<&ModuleObject::openPool>("openPool"),
                           InstanceMethod<&ModuleObject::finalize>("finalize"),
                       });
}

ModuleObject::ModuleObject(const Napi::CallbackInfo &args) : Napi::ObjectWrap<ModuleObject>(args)
{
    const Napi::Env env = args.Env();
    if (!args[0].IsString() || !(args[1].IsString() || args[1].IsUndefined()))
        throw Napi::TypeError::New(env, "path and initArgs must be strings");
    const std::string path = args[0].As<Napi::String>();
    const std::string initArgs = args[1].IsString() ? args[1].As<Napi::String>().Utf8Value() : "";
    throwIfFailed(
        env, Module::open(path.c_str(), args[1].IsString() ? initArgs.c_str() : nullptr, module_));
    installExitHandler();
    CK_INFO description{};
    const Failure failure = module_->describe(description);
    if (failure.failed()) {
        (void)Module::release(module_);
        module_ = nullptr;
        throw toError(env, failure);
    }
    Napi::Object self = args.This().As<Napi::Object>();
    const auto set = [&](const char *name, const std::string &value) {
        self.DefineProperty(
            Napi::PropertyDescriptor::Value(name, Napi::String::New(env, value), napi_enumerable));
    };
    set("cryptokiVersion", version(description.cryptokiVersion));
    set("manufacturer", trimmed(description.manufacturerID));
    set("description", trimmed(description.libraryDescription));
    set("libraryVersion", version(description.libraryVersion));
}

ModuleObject::~ModuleObject()
{
    if (module_ != nullptr)
        (void)Module::release(module_);
}

const std::shared_ptr<Module> &ModuleObject::opened(Napi::Env env) const
{
    if (module_ == nullptr)
        throw Napi::Error::New(env, "the module is finalized");
    return module_;
}

Napi::Value ModuleObject::slots(const Napi::CallbackInfo &args)
{
    const Napi::Env env = args.Env();
    std::vector<SlotDescription> found;
    throwIfFailed(env, opened(env)->slots(found));
    Napi::Array list = Napi::Array::New(env, found.size());
    for (uint32_t i = 0; i < found.size(); i++) {
        const CK_TOKEN_INFO &token = found[i].token;
        Napi::Object entry = Napi::Object::New(env);
        entry.Set("slot", bigint(env, found[i].slot));
        entry.Set("tokenPresent", Napi::Boolean::New(env, found[i].tokenPresent));
        entry.Set("label", trimmed(token.label));
        entry.Set("serial", trimmed(token.serialNumber));
        entry.Set("manufacturer", trimmed(token.manufacturerID));
        entry.Set("model", trimmed(token.model));
        entry.Set("flags", bigint(env, token.flags));
        entry.Set("maxSessions", bigint(env, token.ulMaxSessionCount));
        entry.Set("maxRwSessions", bigint(env, token.ulMaxRwSessionCount));
        entry.Set("freePrivateMemory", bigint(env, token.ulFreePrivateMemory));
        entry.Set("firmware", found[i].tokenPresent ? version(token.firmwareVersion) : "");
        list.Set(i, entry);
    }
    return list;
}

Napi::Value ModuleObject::mechanisms(const Napi::CallbackInfo &args)
{
    const Napi::Env env = args.Env();
    std::vector<MechanismDescription> found;
    throwIfFailed(env, opened(env)->mechanisms(uint64Of(env, args[0], "slot"), found));
    Napi::Array list = Napi::Array::New(env, found.size());
    for (uint32_t i = 0; i < found.size(); i++) {
        Napi::Object entry = Napi::Object::New(env);
        entry.Set("type", static_cast<double>(found[i].type));
        entry.Set("minKeySize", static_cast<double>(found[i].bounds.ulMinKeySize));
        entry.Set("maxKeySize", static_cast<double>(found[i].bounds.ulMaxKeySize));
        entry.Set("flags", static_cast<double>(found[i].bounds.flags));
        list.Set(i, entry);
    }
    return list;
}

void ModuleObject::initToken(const Napi::CallbackInfo &args)
{
    const Napi::Env env = args.Env();
    const std::span<uint8_t> soBytes = bytesOf(env, args[2], "soPin");
    const std::span<uint8_t> userBytes = bytesOf(env, args[3], "userPin");
    SecretBytes soPin(soBytes);
    SecretBytes userPin(userBytes);
    wipe(soBytes.data(), soBytes.size());
    wipe(userBytes.data(), userBytes.size());
    if (!args[1].IsString())
        throw Napi::TypeError::New(env, "label must be a string");
    const std::string label = args[1].As<Napi::String>();
    if (label.empty() || label.size() > sizeof(CK_TOKEN_INFO::label))
        throw Napi::RangeError::New(env, "label must have 1 to 32 bytes");
    throwIfFailed(env,
                  opened(env)->initToken(uint64Of(env, args[0], "slot"), label, soPin, userPin));
}

Napi::Value ModuleObject::openPool(const Napi::CallbackInfo &args)
{
    return PoolBinding::open(args.Env(), opened(args.Env()), *this, args[0]);
}

void ModuleObject::finalize(const Napi::CallbackInfo &args)
{
    const Napi::Env env = args.Env();
    if (pools_ > 0)
        throw Napi::Error::New(env, "pools are still open");
    const std::shared_ptr<Module> module = opened(env);
    module_ = nullptr;
    throwIfFailed(env, Module::release(module));
}

} // namespace hsmgate
