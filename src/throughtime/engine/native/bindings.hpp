// What the files that bind C++ to Python share.
#pragma once

#include <nanobind/nanobind.h>
#include <unistd.h>

namespace throughtime {

void bind_network(nanobind::module_& m);

// Lets other threads of Python run while it lives. When Python ends, a daemon thread that asks for the interpreter's lock
// is ended by unwinding its stack, which C++ answers with std::terminate: such a thread stops here for good instead.
class Unlocked {
    PyThreadState* state = PyEval_SaveThread();

 public:
    Unlocked() = default;
    Unlocked(const Unlocked&) = delete;
    ~Unlocked() {
        try {
            PyEval_RestoreThread(state);
        } catch (...) {
            for (;;) pause();
        }
    }
};

}  // namespace throughtime
