// Memory in large pages, used again: the system takes longer to hand out a new page than a kernel to fill it. Its
// content is undefined. All of it throws std::bad_alloc. Compiled once, for every processor.
#pragma once

#include <cstddef>

namespace throughtime {

// To be freed by `free`.
void* aligned(size_t bytes);

// Lasts until this thread asks again.
void* workspace(size_t bytes);

// Lasts until it is given back, by any thread, and is then kept for who asks next. All blocks together are at most
// twice what was ever lent at once.
void* borrow(size_t bytes);
void give_back(void* memory);

}  // namespace throughtime
