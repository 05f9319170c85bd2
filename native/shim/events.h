/*
 * The event log: one JSON object a line, each written by one append, so that lines of several
 * processes never mix. No PIN, no data and no handle is ever in it.
 */
#pragma once

#include "functions.h"

#include <string>
#include <string_view>

namespace hsmgate::shim
{

class Events
{
public:
    /* Nothing is logged without a path. */
    void open(const char *path);
    /* A call has ended. */
    void ended(Function function, CK_RV rv) const;
    /* A rule acts; `rv` where it answers. */
    void acted(Function function, const std::string &rule, std::string_view action,
               const CK_RV *rv) const;
    /* Also to stderr: the operator of the test is to see it. */
    void trouble(const std::string &text) const;

private:
    int descriptor_ = -1;
};

} // namespace hsmgate::shim
