// Memory in large pages, used again: the system takes longer to hand out a new page than a kernel to fill it. Its
// content is undefined. All functions throw std::bad_alloc. Compiled once, for every processor.
#pragma once

#include <cstddef>

namespace throughtime {

// To be freed by `free`.
void* aligned(size_t bytes);

// The largest buffer of one kind that a thread keeps from one call to its next.
constexpr size_t KEPT_BYTES = 4u << 20;

// A block that lasts until it is given back, by any thread, and is then kept for the next borrower. All blocks together
// are at most twice what was lent at once in the last thousand or so calls.
void* borrow(size_t bytes);
void give_back(void* memory);

// The scratch memory of one call of a kernel. A thread has one at a time. A small one stays with the thread; a larger
// one is borrowed for the call.
class Workspace {
    void* lent = nullptr;

 public:
    Workspace() = default;
    Workspace(const Workspace&) = delete;
    ~Workspace() { release(); }
    void* take(size_t bytes);  // ends what was taken before
    void release();
};

}  // namespace throughtime
