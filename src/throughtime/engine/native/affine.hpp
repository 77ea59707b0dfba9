// y = W x + b: no recurrence at all, for what stands on the last layer.
#pragma once

#include "unitwise.hpp"

namespace throughtime::LEVEL {

struct Affine {
    enum Slot { Y, SLOTS };
    typedef Unitwise Steps;
    static constexpr int GATES = 1, GRADIENTS = 0, VECTORS = 1, STARTS = 1, STATISTICS = 0, RECURRENT = Y, CARRIED = Y;
    static constexpr bool PRODUCT = false, CARRIES_HIDDEN = true;
    static constexpr int W_GATE[] = {0}, U_GATE[] = {0}, VECTOR[] = {0};

    static INLINE Vec forward(Vec* s, Vec) { return s[Y]; }
};

}  // namespace throughtime::LEVEL
