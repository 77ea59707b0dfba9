// What the bindings of networks and of samplers share.
#pragma once

#include <nanobind/nanobind.h>

#include <string>
#include <vector>

#include "sampler.hpp"

namespace throughtime {

namespace nb = nanobind;

inline void check(bool holds, const char* otherwise) {
    if (!holds) throw nb::value_error(otherwise);
}

// `otherwise` makes the message, only where it is needed.
template <class Message>
void check(bool holds, Message otherwise) {
    if (!holds) throw nb::value_error(std::string(otherwise()).c_str());
}

// Marks what a call works on while other Python threads run. It is made and ends while this thread holds the GIL.
class Use {
    int& users;

 public:
    explicit Use(int& users) : users(users) { users++; }
    Use(const Use&) = delete;
    ~Use() { users--; }
};

// Ends a call with the exception that a signal's handler raised, such as KeyboardInterrupt.
inline void heed_signals() {
    if (PyErr_CheckSignals()) throw nb::python_error();
}

inline std::vector<std::string> strings(const std::vector<nb::bytes>& all) {
    std::vector<std::string> found;
    for (const nb::bytes& one : all) found.emplace_back(one.c_str(), one.size());
    return found;
}

// A sampler, and how many calls draw with it: one at most.
struct BoundSampler : Sampler {
    mutable int users = 0;
    using Sampler::Sampler;

    void check_free() const { check(users == 0, "a sampler draws for one lane of one call at a time"); }
};

void bind_sampling(nb::module_& m);

}  // namespace throughtime
