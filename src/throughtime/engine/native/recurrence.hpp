// The entry of a cell in the table of a level.
#pragma once

#include "forward.hpp"

#define STRING(x) #x
#define NAME(x) STRING(x)

namespace throughtime::LEVEL {

template <class Cell, class P>
constexpr Recurrence forward_only(const char* name, const char* weights) {
    return {name,
            weights,
            Cell::GATES,
            Cell::VECTORS,
            Cell::PRODUCT,
            Cell::CARRIES_HIDDEN,
            Window<Cell, P>::sizes,
            Forward<Cell, P>::packed_size,
            Forward<Cell, P>::pack_for_later,
            Forward<Cell, P>::call,
            nullptr};
}

}  // namespace throughtime::LEVEL
