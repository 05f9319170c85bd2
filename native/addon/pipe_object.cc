#include "pipe_object.h"

#include "pool_object.h"
#include "values.h"

#include <climits>
#include <system_error>
#include <utility>

namespace hsmgate
{

namespace
{

/* A backlog's memory is not kept beyond this. */
constexpr size_t keptBytesMax = 1024 * 1024;
constexpr uint64_t exactIntegerMax = (uint64_t{1} << 53) - 1;

std::vector<uint8_t> copyOf(std::span<const uint8_t> bytes)
{
    return {bytes.begin(), bytes.end()};
}

} // namespace

Napi::Function PipeObject::define(Napi::Env env)
{
    return DefineClass(env, "NativePipe",
                       {
                           InstanceMethod<&PipeObject::write>("write"),
                           InstanceMethod<&PipeObject::attach>("attach"),
                           InstanceMethod<&PipeObject::remember>("remember"),
                           InstanceMethod<&PipeObject::forget>("forget"),
                       });
}

PipeObject::PipeObject(const Napi::CallbackInfo &args) : Napi::ObjectWrap<PipeObject>(args)
{
    const Napi::Env env = args.Env();
    const int fd = static_cast<int>(integerOf(env, args[0], "fd", INT_MAX));
    if (!args[1].IsObject())
        throw Napi::TypeError::New(env, "handlers must be an object");
    const Napi::Object handlers = args[1].As<Napi::Object>();
    const auto handler = [&](const char *name) {
        const Napi::Value value = handlers.Get(name);
        if (!value.IsFunction())
            throw Napi::TypeError::New(env, std::string(name) + " must be a function");
        return Napi::Persistent(value.As<Napi::Function>());
    };
    onFrames_ = handler("onFrames");
    onFailed_ = handler("onFailed");
    onEnd_ = handler("onEnd");
    uv_loop_t *loop = nullptr;
    if (napi_get_uv_event_loop(env, &loop) != napi_ok)
        throw Napi::Error::New(env, "no event loop");
    const int error = uv_async_init(
        loop, &async_, [](uv_async_t *async) { static_cast<PipeObject *>(async->data)->onWake(); });
    if (error != 0)
        throw toSystemError(env, -error, "uv_async_init");
    async_.data = this;
    /* The handle lies in this object, which therefore stays. */
    Ref();
    pipe_ = std::make_shared<Pipe>(fd, [this] { (void)uv_async_send(&async_); });
    try {
        pipe_->start();
    } catch (const std::system_error &failure) {
        throw toSystemError(env, failure.code().value(), "pipe");
    }
}

void PipeObject::write(const Napi::CallbackInfo &args)
{
    pipe_->write(bytesOf(args.Env(), args[0], "frames"));
}

void PipeObject::attach(const Napi::CallbackInfo &args)
{
    const Napi::Env env = args.Env();
    const Napi::Function pool =
        Napi::Value(env, env.GetInstanceData<Classes>()->pool.Value()).As<Napi::Function>();
    if (!args[0].IsObject() || !args[0].As<Napi::Object>().InstanceOf(pool))
        throw Napi::TypeError::New(env, "pool must be a NativePool");
    PoolObject::Unwrap(args[0].As<Napi::Object>())->serve(pipe_);
}

void PipeObject::remember(const Napi::CallbackInfo &args)
{
    const Napi::Env env = args.Env();
    const std::span<uint8_t> question = bytesOf(env, args[0], "question");
    Plan plan;
    plan.op = static_cast<Op>(integerOf(env, args[1], "op", opLast));
    plan.mechanism = integerOf(env, args[2], "mechanism", exactIntegerMax);
    plan.key = uint64Of(env, args[3], "key");
    plan.params = copyOf(bytesOrNull(env, args[4], "params"));
    plan.prefix = copyOf(bytesOrNull(env, args[5], "prefix"));
    plan.inputMin = integerOf(env, args[6], "inputMin", packedBytesMax);
    plan.inputMax = integerOf(env, args[7], "inputMax", packedBytesMax);
    plan.outputMin = integerOf(env, args[8], "outputMin", packedBytesMax);
    plan.outputMax = integerOf(env, args[9], "outputMax", packedBytesMax);
    if (plan.params.size() > packedBytesMax || plan.prefix.size() > packedBytesMax)
        throw Napi::RangeError::New(env, "params or prefix is too long");
    pipe_->remember(question, std::move(plan));
}

void PipeObject::forget(const Napi::CallbackInfo &)
{
    pipe_->forget();
}

void PipeObject::onWake()
{
    const Napi::Env env = Env();
    const Napi::HandleScope scope(env);
    const Napi::AsyncContext context(env, "hsmgate.pipe");
    const PipeState state = pipe_->drain(frames_, failed_);
    try {
        if (!frames_.empty()) {
            const auto frames = Napi::Buffer<uint8_t>::Copy(env, frames_.data(), frames_.size());
            if (frames_.capacity() > keptBytesMax)
                frames_.release();
            else
                frames_.clear();
            onFrames_.MakeCallback(env.Global(), {frames}, context);
        }
        for (const Failed &failed : std::exchange(failed_, {})) {
            const auto frame =
                Napi::Buffer<uint8_t>::Copy(env, failed.frame.data(), failed.frame.size());
            onFailed_.MakeCallback(env.Global(),
                                   {frame, Napi::Number::New(env, static_cast<double>(failed.rv)),
                                    Napi::Number::New(env, failed.hsmMicros),
                                    Napi::Number::New(env, failed.waitedMicros),
                                    Napi::BigInt::New(env, uint64_t{failed.key})},
                                   context);
        }
        if (state != PipeState::open && !std::exchange(ended_, true)) {
            uv_unref(reinterpret_cast<uv_handle_t *>(&async_));
            onEnd_.MakeCallback(env.Global(), {Napi::Boolean::New(env, state == PipeState::broken)},
                                context);
        }
    } catch (const Napi::Error &error) {
        (void)napi_fatal_exception(env, error.Value());
    }
}

} // namespace hsmgate
