#include "pool_object.h"

#include "values.h"

#include <system_error>
#include <utility>

namespace hsmgate
{

namespace
{

bool givesOutput(Op op)
{
    switch (op) {
    case Op::sign:
    case Op::encrypt:
    case Op::decrypt:
    case Op::encryptVerify:
    case Op::random:
    case Op::find:
    case Op::getAttributes:
    case Op::deriveValue:
    case Op::wrap:
    case Op::oaepDecrypt:
        return true;
    default:
        return false;
    }
}

void letGo(napi_env env, Job &job)
{
    if (job.hold != nullptr)
        (void)napi_delete_reference(env, static_cast<napi_ref>(job.hold));
    job.hold = nullptr;
}

} // namespace

PoolBinding::PoolBinding(Napi::Env env, const std::shared_ptr<Module> &module, ModuleObject &owner,
                         CK_SLOT_ID slot, unsigned sessions, Napi::Function onCompletions)
    : env_(env), owner_(owner), ownerReference_(Napi::Persistent(owner.Value())),
      onCompletions_(Napi::Persistent(onCompletions)), context_(std::in_place, env, "hsmgate.pool"),
      pool_(module, slot, sessions, [this] { wake(); }), departure_{&pool_, 0}
{
}

Napi::Value PoolBinding::open(Napi::Env env, const std::shared_ptr<Module> &module,
                              ModuleObject &owner, Napi::Value optionsValue)
{
    if (!optionsValue.IsObject())
        throw Napi::TypeError::New(env, "options must be an object");
    const Napi::Object options = optionsValue.As<Napi::Object>();
    std::optional<SecretBytes> pin;
    const Napi::Value pinValue = options.Get("pin");
    if (!pinValue.IsNull()) {
        const std::span<uint8_t> bytes = bytesOf(env, pinValue, "pin");
        pin.emplace(bytes);
        wipe(bytes.data(), bytes.size());
    }
    const uint64_t slot = uint64Of(env, options.Get("slot"), "slot");
    const uint64_t sessions = integerOf(env, options.Get("sessions"), "sessions", sessionsMax);
    const Napi::Value onCompletions = options.Get("onCompletions");
    if (sessions == 0)
        throw Napi::RangeError::New(env, "sessions is out of range");
    if (!onCompletions.IsFunction())
        throw Napi::TypeError::New(env, "onCompletions must be a function");

    uv_loop_t *loop = nullptr;
    if (napi_get_uv_event_loop(env, &loop) != napi_ok)
        throw Napi::Error::New(env, "no event loop");
    std::shared_ptr<PoolBinding> binding(new PoolBinding(env, module, owner, slot,
                                                         static_cast<unsigned>(sessions),
                                                         onCompletions.As<Napi::Function>()));
    const int error = uv_async_init(loop, &binding->async_, [](uv_async_t *async) {
        static_cast<PoolBinding *>(async->data)->onWake();
    });
    if (error != 0)
        throw toSystemError(env, -error, "uv_async_init");
    binding->async_.data = binding.get();
    binding->self_ = binding;
    (void)napi_add_async_cleanup_hook(env, onTeardown, binding.get(), &binding->teardownHook_);
    owner.poolOpened();
    registerDeparture(&binding->departure_);
    binding->opening_.emplace(Napi::Promise::Deferred::New(env));
    binding->start(std::move(pin));
    return binding->opening_->Promise();
}

void PoolBinding::start(std::optional<SecretBytes> pin)
{
    departure_.blocked++;
    try {
        blocking_ = std::thread([this, pin = std::move(pin)]() mutable {
            failure_ = pool_.open(pin ? &*pin : nullptr);
            phase_.store(failure_.failed() ? Phase::failed : Phase::open);
            departure_.blocked--;
            wake();
        });
    } catch (const std::system_error &) {
        departure_.blocked--;
        failure_ = {CKR_HOST_MEMORY, "pthread_create", ""};
        phase_.store(Phase::failed);
        wake();
    }
}

void PoolBinding::onWake()
{
    const Napi::HandleScope scope(env_);
    /* Read before draining: what was complete before the phase changed is on the list. */
    const Phase phase = phase_.load();
    if (opening_ && phase != Phase::opening)
        reportOpened();
    deliver();
    if (phase == Phase::closed)
        endClose();
    else
        updateReference();
}

void PoolBinding::reportOpened()
{
    if (blocking_.joinable())
        blocking_.join();
    const Napi::Promise::Deferred deferred = *opening_;
    opening_.reset();
    const bool opened = phase_.load() == Phase::open;
    if (!tearingDown_) {
        const Napi::CallbackScope callback(env_, *context_);
        try {
            if (opened) {
                const auto external =
                    Napi::External<std::shared_ptr<PoolBinding>>::New(env_, &self_);
                deferred.Resolve(env_.GetInstanceData<Classes>()->pool.New({external}));
            } else {
                deferred.Reject(toError(env_, failure_).Value());
            }
        } catch (const Napi::Error &) {
            /* Only at the end of the environment, when nobody waits any more. */
        }
    }
    if (!opened)
        phase_.store(Phase::closed), wake();
    else if (tearingDown_)
        beginClose();
}

void PoolBinding::submit(const Napi::CallbackInfo &args)
{
    const Napi::Env env = args.Env();
    if (closeAsked_ || phase_.load(std::memory_order_relaxed) != Phase::open)
        throw Napi::Error::New(env, "the pool is closed");
    const uint64_t id = integerOf(env, args[0], "id", UINT32_MAX);
    const uint64_t op = integerOf(env, args[1], "op", opLast);
    const uint64_t mechanism = integerOf(env, args[2], "mechanism", (uint64_t{1} << 53) - 1);
    const uint64_t key = uint64Of(env, args[3], "key");
    const uint64_t key2 = uint64Of(env, args[4], "key2");
    const std::span<uint8_t> params = bytesOrNull(env, args[5], "params");
    const std::span<uint8_t> input = bytesOrNull(env, args[6], "input");
    const std::span<uint8_t> aux = bytesOrNull(env, args[7], "aux");
    const uint64_t outMax = integerOf(env, args[8], "outMax", outputBytesMax);
    const bool inputIsTemplate = op == static_cast<uint64_t>(Op::generateKeyPair);
    if (op == 0)
        throw Napi::RangeError::New(env, "op is out of range");
    if (params.size() > packedBytesMax || aux.size() > packedBytesMax ||
        input.size() > (inputIsTemplate ? packedBytesMax : inputBytesMax))
        throw Napi::RangeError::New(env, "params, input or aux is too long");

    std::unique_ptr<Job> job = pool_.borrowJob();
    const bool keepInput = input.size() > copiedInputBytesMax && !inputIsTemplate;
    job->load(params, input, aux, keepInput);
    job->id = static_cast<uint32_t>(id);
    job->op = static_cast<Op>(op);
    job->mechanism = mechanism;
    job->key = key;
    job->key2 = key2;
    job->outMax = outMax;
    if (keepInput) {
        napi_ref reference = nullptr;
        if (napi_create_reference(env, args[6], 1, &reference) != napi_ok)
            throw Napi::Error::New(env, "input cannot be held");
        job->hold = reference;
    }
    const Offer offer = pool_.submit(job);
    if (offer != Offer::accepted) {
        letGo(env, *job);
        pool_.putBack(std::move(job));
        throw Napi::Error::New(env, offer == Offer::full ? "the pool's queue is full"
                                                         : "the pool is closed");
    }
    if (outstanding_++ == 0)
        updateReference();
}

void PoolBinding::deliver()
{
    pool_.drain(finished_);
    if (finished_.empty())
        return;
    outstanding_ -= finished_.size();
    if (!tearingDown_)
        callBack(env_);
    for (std::unique_ptr<Job> &job : finished_) {
        letGo(env_, *job);
        pool_.putBack(std::move(job));
    }
    finished_.clear();
}

void PoolBinding::callBack(Napi::Env env)
{
    napi_value thrown = nullptr;
    try {
        const Napi::Object batch = toBatch(env);
        /* The outputs are JavaScript's now; the copies go before anyone else runs. */
        for (const std::unique_ptr<Job> &job : finished_)
            job->output.clear();
        onCompletions_.Value().MakeCallback(env.Global(), {batch}, *context_);
    } catch (const Napi::Error &error) {
        thrown = error.Value();
    }
    if (thrown != nullptr)
        (void)napi_fatal_exception(env, thrown);
}

Napi::Object PoolBinding::toBatch(Napi::Env env)
{
    /* One allocation for the six columns, 8-byte ones first. */
    const size_t n = finished_.size();
    Napi::ArrayBuffer memory = Napi::ArrayBuffer::New(env, n * (5 * 8 + 4));
    auto rvs = Napi::Float64Array::New(env, n, memory, 0);
    auto handles = Napi::BigUint64Array::New(env, n, memory, n * 8);
    auto handles2 = Napi::BigUint64Array::New(env, n, memory, n * 16);
    auto hsmMicros = Napi::Float64Array::New(env, n, memory, n * 24);
    auto queueMicros = Napi::Float64Array::New(env, n, memory, n * 32);
    auto ids = Napi::Uint32Array::New(env, n, memory, n * 40);
    Napi::Array outputs = Napi::Array::New(env, n);
    for (uint32_t i = 0; i < n; i++) {
        const Job &job = *finished_[i];
        ids[i] = job.id;
        rvs[i] = static_cast<double>(job.rv);
        handles[i] = job.handle;
        handles2[i] = job.handle2;
        hsmMicros[i] = job.hsmMicros;
        queueMicros[i] = job.queueMicros;
        if (job.rv == CKR_OK && givesOutput(job.op))
            outputs[i] = Napi::Buffer<uint8_t>::Copy(env, job.output.data(), job.outputLength);
        else
            outputs[i] = env.Null();
    }
    Napi::Object batch = Napi::Object::New(env);
    batch.Set("ids", ids);
    batch.Set("rvs", rvs);
    batch.Set("outputs", outputs);
    batch.Set("handles", handles);
    batch.Set("handles2", handles2);
    batch.Set("hsmMicros", hsmMicros);
    batch.Set("queueMicros", queueMicros);
    return batch;
}

Napi::Value PoolBinding::depth(Napi::Env env) const
{
    const Depth depth = pool_.depth();
    Napi::Object object = Napi::Object::New(env);
    object.Set("queued", static_cast<double>(depth.queued));
    object.Set("busy", static_cast<double>(depth.busy));
    object.Set("sessions", static_cast<double>(closeAsked_ ? 0 : depth.sessions));
    return object;
}

Napi::Value PoolBinding::close(Napi::Env env)
{
    Napi::Promise::Deferred deferred = Napi::Promise::Deferred::New(env);
    if (phase_.load() == Phase::closed && self_ == nullptr)
        deferred.Resolve(env.Undefined());
    else {
        closing_.push_back(deferred);
        beginClose();
    }
    return deferred.Promise();
}

void PoolBinding::beginClose()
{
    if (closeAsked_)
        return;
    closeAsked_ = true;
    phase_.store(Phase::closing);
    updateReference();
    departure_.blocked++;
    const auto closeAndTell = [this] {
        pool_.close();
        phase_.store(Phase::closed);
        departure_.blocked--;
        wake();
    };
    try {
        blocking_ = std::thread(closeAndTell);
    } catch (const std::system_error &) {
        /* Without a thread to spare the loop has to wait. */
        closeAndTell();
    }
}

void PoolBinding::endClose()
{
    if (self_ == nullptr)
        return;
    if (blocking_.joinable())
        blocking_.join();
    unregisterDeparture(&departure_);
    owner_.poolClosed();
    auto *last = new std::shared_ptr<PoolBinding>(std::move(self_));
    self_ = nullptr;
    async_.data = last;
    const std::vector<Napi::Promise::Deferred> waiting = std::exchange(closing_, {});
    if (!tearingDown_) {
        /* Whoever waited runs at the end of this scope, and may call this object again. */
        const Napi::CallbackScope callback(env_, *context_);
        for (const Napi::Promise::Deferred &deferred : waiting)
            deferred.Resolve(env_.Undefined());
    }
    onCompletions_.Reset();
    ownerReference_.Reset();
    context_.reset();
    uv_close(reinterpret_cast<uv_handle_t *>(&async_), [](uv_handle_t *handle) {
        auto *held = static_cast<std::shared_ptr<PoolBinding> *>(handle->data);
        const napi_async_cleanup_hook_handle hook = (*held)->teardownHook_;
        delete held;
        if (hook != nullptr)
            (void)napi_remove_async_cleanup_hook(hook);
    });
}

void PoolBinding::updateReference()
{
    auto *handle = reinterpret_cast<uv_handle_t *>(&async_);
    const Phase phase = phase_.load();
    if (outstanding_ > 0 || tearingDown_ || phase != Phase::open)
        uv_ref(handle);
    else
        uv_unref(handle);
}

void PoolBinding::onTeardown(napi_async_cleanup_hook_handle, void *data)
{
    auto *binding = static_cast<PoolBinding *>(data);
    binding->tearingDown_ = true;
    binding->updateReference();
    if (!binding->opening_)
        binding->beginClose();
}

Napi::Function PoolObject::define(Napi::Env env)
{
    return DefineClass(env, "NativePool",
                       {
                           InstanceMethod<&PoolObject::submit>("submit"),
                           InstanceMethod<&PoolObject::depth>("depth"),
                           InstanceMethod<&PoolObject::close>("close"),
                       });
}

PoolObject::PoolObject(const Napi::CallbackInfo &args) : Napi::ObjectWrap<PoolObject>(args)
{
    if (!args[0].IsExternal())
        throw Napi::TypeError::New(args.Env(), "a pool comes from openPool");
    binding_ = *args[0].As<Napi::External<std::shared_ptr<PoolBinding>>>().Data();
}

} // namespace hsmgate
