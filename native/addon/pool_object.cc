#include "pool_object.h"

#include "values.h"

#include <system_error>
#include <utility>

namespace hsmgate
{

namespace
{

/* Of one job in a batch: five columns of 8 bytes and one of 4. */
constexpr size_t columnBytes = 5 * 8 + 4;

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
    case Op::decapsulate:
    case Op::wrap:
    case Op::oaepDecrypt:
        return true;
    default:
        return false;
    }
}

/*
 * Runs what waits for promises when it ends. Of Node-API only plain C is used on the way from the
 * event loop to JavaScript: a worker thread may be terminated at any moment, every call may then
 * fail, and there is nobody left to tell.
 */
class Scope
{
public:
    Scope(napi_env env, napi_async_context context) : env_(env)
    {
        napi_value resource = nullptr;
        if (napi_create_object(env, &resource) != napi_ok ||
            napi_open_callback_scope(env, resource, context, &scope_) != napi_ok)
            scope_ = nullptr;
    }
    ~Scope()
    {
        if (scope_ != nullptr)
            (void)napi_close_callback_scope(env_, scope_);
    }
    Scope(const Scope &) = delete;
    Scope &operator=(const Scope &) = delete;

private:
    napi_env env_;
    napi_callback_scope scope_ = nullptr;
};

void resolveUndefined(napi_env env, napi_deferred deferred)
{
    napi_value undefined = nullptr;
    if (napi_get_undefined(env, &undefined) == napi_ok)
        (void)napi_resolve_deferred(env, deferred, undefined);
}

/* An exception of a callback becomes an uncaught one. A termination shows as null and is none. */
void reportException(napi_env env)
{
    napi_value thrown = nullptr;
    napi_valuetype type = napi_null;
    if (napi_get_and_clear_last_exception(env, &thrown) == napi_ok && thrown != nullptr &&
        napi_typeof(env, thrown, &type) == napi_ok && type != napi_null)
        (void)napi_fatal_exception(env, thrown);
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
    napi_value promise = nullptr;
    napi_deferred opening = nullptr;
    if (napi_get_uv_event_loop(env, &loop) != napi_ok ||
        napi_create_promise(env, &opening, &promise) != napi_ok)
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
    binding->opening_ = opening;
    binding->self_ = binding;
    (void)napi_add_async_cleanup_hook(env, onTeardown, binding.get(), &binding->teardownHook_);
    owner.poolOpened();
    registerDeparture(&binding->departure_);
    binding->start(std::move(pin));
    return Napi::Value(env, promise);
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
    if (opening_ != nullptr && phase == Phase::open)
        reportOpened();
    deliver();
    if (phase == Phase::failed || phase == Phase::closed)
        end();
    else
        updateReference();
}

void PoolBinding::reportOpened()
{
    if (blocking_.joinable())
        blocking_.join();
    const napi_deferred deferred = std::exchange(opening_, nullptr);
    if (tearingDown_) {
        beginClose();
        return;
    }
    const Scope scope(env_, *context_);
    const napi_ref constructor = env_.GetInstanceData<Classes>()->pool;
    napi_value pool = nullptr;
    napi_value function = nullptr;
    napi_value binding = nullptr;
    if (napi_get_reference_value(env_, constructor, &function) == napi_ok &&
        napi_create_external(env_, &self_, nullptr, nullptr, &binding) == napi_ok &&
        napi_new_instance(env_, function, 1, &binding, &pool) == napi_ok)
        (void)napi_resolve_deferred(env_, deferred, pool);
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
    const uint64_t budgetMs = integerOf(env, args[9], "budgetMs", UINT32_MAX);
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
    job->endsAt = std::chrono::steady_clock::now() + std::chrono::milliseconds(budgetMs);
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

void PoolBinding::callBack(napi_env env)
{
    napi_value batch = nullptr;
    napi_value callback = nullptr;
    napi_value global = nullptr;
    if (!toBatch(env, batch) ||
        napi_get_reference_value(env, onCompletions_, &callback) != napi_ok ||
        napi_get_global(env, &global) != napi_ok)
        return;
    /* The outputs are JavaScript's now; the copies go before anyone else runs. */
    for (const std::unique_ptr<Job> &job : finished_)
        job->output.clear();
    if (napi_make_callback(env, *context_, global, callback, 1, &batch, nullptr) ==
        napi_pending_exception)
        reportException(env);
}

/* Fills `batch` with a `Completions`; false when the environment can't any more. */
bool PoolBinding::toBatch(napi_env env, napi_value &batch)
{
    /* One allocation for the six columns, 8-byte ones first. */
    const size_t n = finished_.size();
    void *memory = nullptr;
    napi_value buffer = nullptr;
    napi_value outputs = nullptr;
    napi_value null = nullptr;
    if (napi_create_object(env, &batch) != napi_ok ||
        napi_create_array_with_length(env, n, &outputs) != napi_ok ||
        napi_get_null(env, &null) != napi_ok ||
        napi_create_arraybuffer(env, n * columnBytes, &memory, &buffer) != napi_ok)
        return false;
    auto *rvs = static_cast<double *>(memory);
    auto *handles = reinterpret_cast<uint64_t *>(rvs + n);
    uint64_t *handles2 = handles + n;
    auto *hsmMicros = reinterpret_cast<double *>(handles2 + n);
    double *queueMicros = hsmMicros + n;
    auto *ids = reinterpret_cast<uint32_t *>(queueMicros + n);
    for (uint32_t i = 0; i < n; i++) {
        const Job &job = *finished_[i];
        ids[i] = job.id;
        rvs[i] = job.isLate ? -1 : static_cast<double>(job.rv);
        handles[i] = job.handle;
        handles2[i] = job.handle2;
        hsmMicros[i] = job.hsmMicros;
        queueMicros[i] = job.queueMicros;
        napi_value output = null;
        if (job.rv == CKR_OK && !job.isLate && givesOutput(job.op) &&
            napi_create_buffer_copy(env, job.outputLength, job.output.data(), nullptr, &output) !=
                napi_ok)
            return false;
        if (napi_set_element(env, outputs, i, output) != napi_ok)
            return false;
    }
    const struct {
        const char *name;
        napi_typedarray_type type;
        size_t at;
    } columns[] = {
        {"rvs", napi_float64_array, 0},          {"handles", napi_biguint64_array, 8},
        {"handles2", napi_biguint64_array, 16},  {"hsmMicros", napi_float64_array, 24},
        {"queueMicros", napi_float64_array, 32}, {"ids", napi_uint32_array, 40},
    };
    for (const auto &column : columns) {
        napi_value array = nullptr;
        if (napi_create_typedarray(env, column.type, n, buffer, n * column.at, &array) != napi_ok ||
            napi_set_named_property(env, batch, column.name, array) != napi_ok)
            return false;
    }
    return napi_set_named_property(env, batch, "outputs", outputs) == napi_ok;
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
    napi_value promise = nullptr;
    napi_deferred deferred = nullptr;
    if (napi_create_promise(env, &deferred, &promise) != napi_ok)
        throw Napi::Error::New(env, "no promise");
    if (self_ == nullptr) {
        resolveUndefined(env, deferred);
    } else {
        closing_.push_back(deferred);
        beginClose();
    }
    return Napi::Value(env, promise);
}

void PoolBinding::serve(std::shared_ptr<Pipe> pipe)
{
    if (closeAsked_ || phase_.load(std::memory_order_relaxed) != Phase::open)
        throw Napi::Error::New(env_, "the pool is closed");
    pipe_ = std::move(pipe);
    pipe_->attach(&pool_);
}

void PoolBinding::beginClose()
{
    if (closeAsked_)
        return;
    closeAsked_ = true;
    if (pipe_ != nullptr)
        pipe_->attach(nullptr);
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

void PoolBinding::end()
{
    if (self_ == nullptr)
        return;
    if (blocking_.joinable())
        blocking_.join();
    unregisterDeparture(&departure_);
    owner_.poolClosed();
    auto *last = new std::shared_ptr<PoolBinding>(std::move(self_));
    self_ = nullptr;
    const std::vector<napi_deferred> waiting = std::exchange(closing_, {});
    const napi_deferred opening = std::exchange(opening_, nullptr);
    if (!tearingDown_) {
        /* Whoever waited runs at the end of this scope, and may use the module and this object
         * again. */
        const Scope scope(env_, *context_);
        napi_value refusal = nullptr;
        if (opening != nullptr && createError(env_, failure_, refusal))
            (void)napi_reject_deferred(env_, opening, refusal);
        for (const napi_deferred deferred : waiting)
            resolveUndefined(env_, deferred);
    }
    onCompletions_.Reset();
    ownerReference_.Reset();
    context_.reset();
    async_.data = last;
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
    /* Ended already: the loop is about to let go of the handle, and then of this hook. */
    if (binding->self_ == nullptr)
        return;
    binding->tearingDown_ = true;
    binding->updateReference();
    if (binding->opening_ == nullptr)
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
