// What the files that bind C++ to Python share.
#pragma once

#include <nanobind/nanobind.h>
#include <unistd.h>

namespace throughtime {

void bind_network(nanobind::module_& m);

// When Python ends, a daemon thread that asks for the interpreter's lock is ended by unwinding its stack, which C++ answers
// with std::terminate: such a thread stops here for good instead.
template <class Call>
auto or_stop(Call call) {
    try {
        return call();
    } catch (...) {
        for (;;) pause();
    }
}

// Lets other threads of Python run while it lives.
class Unlocked {
    PyThreadState* state = PyEval_SaveThread();

 public:
    Unlocked() = default;
    Unlocked(const Unlocked&) = delete;
    ~Unlocked() {
        or_stop([&] { PyEval_RestoreThread(state); });
    }
};

// Has the interpreter's lock while it lives, within the life of an Unlocked.
class Locked {
    PyGILState_STATE state = or_stop([] { return PyGILState_Ensure(); });

 public:
    Locked() = default;
    Locked(const Locked&) = delete;
    ~Locked() { PyGILState_Release(state); }
};

}  // namespace throughtime
