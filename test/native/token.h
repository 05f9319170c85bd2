/*
 * A SoftHSM2 token in a folder of its own, made at first use and removed at exit, and a wire into
 * the module: single functions can be replaced, so that a test sees what the core does when a real
 * module misbehaves. Replacements call the real function when they like.
 */
#pragma once

#include "module.h"
#include "pool.h"

#include <memory>
#include <string>
#include <vector>

namespace hsmgate::test
{

extern const std::string userPin;

/* The token's module as it is. */
std::shared_ptr<Module> softhsm();
CK_SLOT_ID tokenSlot();

/* The real functions, for replacements. */
const CK_FUNCTION_LIST &real();

/* A module of the same library, one token and one state, with its own function list to change. */
struct Wired {
    CK_FUNCTION_LIST functions = real();
    std::shared_ptr<Module> module;

    explicit Wired(const LaterFunctions &later = {})
        : module(std::make_shared<Module>(&functions, later))
    {
    }
};

/* A pool with an owner that waits: `run` submits one job and returns it finished. */
class Runner
{
public:
    Runner(const std::shared_ptr<Module> &module, unsigned sessions,
           size_t queueLimit = queuedJobsMax);

    Failure open();
    std::unique_ptr<Job> make(Op op, CK_MECHANISM_TYPE mechanism, CK_OBJECT_HANDLE key,
                              const std::string &params, const std::string &input,
                              const std::string &aux, size_t outMax);
    Offer submit(std::unique_ptr<Job> job);
    /* Waits for `count` finished jobs. */
    std::vector<std::unique_ptr<Job>> collect(size_t count);
    std::unique_ptr<Job> run(Op op, CK_MECHANISM_TYPE mechanism, CK_OBJECT_HANDLE key,
                             const std::string &params, const std::string &input,
                             const std::string &aux, size_t outMax);
    unsigned wakes();

    Pool &pool() { return pool_; }

private:
    void ring();

    std::mutex mutex_;
    std::condition_variable rung_;
    unsigned wakes_ = 0;
    bool pending_ = false;
    Pool pool_;
};

/* Packed, as bytes in a string. */
std::string packedUlong(CK_ULONG value);
std::string attribute(CK_ATTRIBUTE_TYPE type, const std::string &value);
std::string flag(CK_ATTRIBUTE_TYPE type, bool value);
std::string gcmParams(const std::string &iv, const std::string &aad, bool moduleIv = false);
/* Template of an AES-256 session key for `usage` flags. */
std::string aesTemplate(const std::string &usages);

} // namespace hsmgate::test
