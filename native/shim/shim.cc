/*
 * The module that applications load: C_GetFunctionList and, behind it, one generated function for
 * every function of the standard. Each hands its call to the rules, and to the real module between
 * them. Everything else is in faults.h.
 */
#include "faults.h"

namespace hsmgate::shim
{

namespace
{

/* Never destroyed: threads may be inside while static destructors run. */
Faults &faults()
{
    static Faults *instance = new Faults;
    return *instance;
}

/* What an argument means: its C type, what the rules learn from it, and what changes on the way
 * back. */
template <typename Type> struct Argument {
    using Raw = Type;
    static void before(Call &, Type &) {}
    static void after(Call &, Type) {}
};

struct Pointer : Argument<CK_VOID_PTR> {
};
struct Number : Argument<CK_ULONG> {
};
struct Flag : Argument<CK_BBOOL> {
};

struct Slot : Argument<CK_SLOT_ID> {
    static void before(Call &call, CK_SLOT_ID &slot) { call.slot = slot; }
};

struct Session : Argument<CK_SESSION_HANDLE> {
    static void before(Call &call, CK_SESSION_HANDLE &session) { call.session = session; }
};

struct NewSession : Argument<CK_SESSION_HANDLE *> {
    static void before(Call &call, CK_SESSION_HANDLE *&session) { call.newSession = session; }
};

/* A handle goes to the module without its generation. */
template <CK_RV whenStale> struct Handle : Argument<CK_OBJECT_HANDLE> {
    static void before(Call &call, CK_OBJECT_HANDLE &handle)
    {
        if (handle == CK_INVALID_HANDLE)
            return;
        if (call.handleCount < Call::handlesMax)
            call.handles[call.handleCount++] = {static_cast<unsigned>(handle >> generationShift),
                                                whenStale};
        handle &= (CK_OBJECT_HANDLE{1} << generationShift) - 1;
        if (call.object == CK_INVALID_HANDLE)
            call.object = handle;
    }
};

struct Object : Handle<0x82 /* CKR_OBJECT_HANDLE_INVALID */> {
};
struct Key : Handle<0x60 /* CKR_KEY_HANDLE_INVALID */> {
};
struct WrappingKey : Handle<0x113 /* CKR_WRAPPING_KEY_HANDLE_INVALID */> {
};
struct UnwrappingKey : Handle<0xF0 /* CKR_UNWRAPPING_KEY_HANDLE_INVALID */> {
};

void stamp(CK_OBJECT_HANDLE &handle)
{
    if (handle != CK_INVALID_HANDLE)
        handle |= CK_OBJECT_HANDLE{faults().generation() & 0xffff} << generationShift;
}

struct NewHandle : Argument<CK_OBJECT_HANDLE *> {
    static void after(Call &, CK_OBJECT_HANDLE *handle)
    {
        if (handle != nullptr)
            stamp(*handle);
    }
};

struct FoundHandles : Argument<CK_OBJECT_HANDLE *> {
    static void before(Call &call, CK_OBJECT_HANDLE *&handles) { call.found = handles; }
};

struct FoundCount : Argument<CK_ULONG *> {
    static void after(Call &call, CK_ULONG *count)
    {
        for (CK_ULONG i = 0; call.found != nullptr && count != nullptr && i < *count; i++)
            stamp(call.found[i]);
    }
};

struct Input : Argument<CK_BYTE *> {
    static void before(Call &call, CK_BYTE *&input) { call.input = input; }
};

struct InputLength : Argument<CK_ULONG> {
    static void before(Call &call, CK_ULONG &length) { call.inputLength = length; }
};

struct Output : Argument<CK_BYTE *> {
    static void before(Call &call, CK_BYTE *&output) { call.output = output; }
};

struct OutputLength : Argument<CK_ULONG *> {
    static void before(Call &call, CK_ULONG *&length) { call.outputLength = length; }
};

template <Function function, typename... Arguments> struct Passage {
    static CK_RV call(typename Arguments::Raw... arguments) noexcept
    {
        using Signature = CK_RV(typename Arguments::Raw...);
        Call call{function};
        (Arguments::before(call, arguments), ...);
        faults().begin(call);
        const std::optional<CK_RV> answer = faults().before(call);
        CK_RV rv = CKR_FUNCTION_NOT_SUPPORTED;
        if (answer.has_value()) {
            rv = *answer;
        } else if (Signature *const real = faults().entry<Signature>(function); real != nullptr) {
            const auto inside = faults().enter();
            call.asked = true;
            rv = real(arguments...);
        }
        if (call.asked && rv == CKR_OK)
            (Arguments::after(call, arguments), ...);
        return faults().after(call, rv);
    }
};

FunctionList &functionList();

/* The application must get this list, not the module's. */
template <> struct Passage<Function::C_GetFunctionList, Pointer> {
    static CK_RV call(CK_VOID_PTR list) noexcept
    {
        if (list == nullptr)
            return CKR_ARGUMENTS_BAD;
        *static_cast<FunctionList **>(list) = &functionList();
        return CKR_OK;
    }
};

FunctionList &functionList()
{
    static FunctionList list = {
        faults().module().version,
        {
#define X(name, ...) reinterpret_cast<void (*)()>(&Passage<Function::name, __VA_ARGS__>::call),
            HSMGATE_SHIM_FUNCTIONS(X)
#undef X
        },
    };
    return list;
}

} // namespace

} // namespace hsmgate::shim

extern "C" __attribute__((visibility("default"))) CK_RV C_GetFunctionList(CK_FUNCTION_LIST **list)
{
    using namespace hsmgate::shim;
    static const CK_RV opened = faults().open();
    if (opened != CKR_OK)
        return opened;
    if (list == nullptr)
        return CKR_ARGUMENTS_BAD;
    *list = reinterpret_cast<CK_FUNCTION_LIST *>(&functionList());
    return CKR_OK;
}
