// i, f, o = sigmoid(W x + U h + b), g = tanh(W_g x + U_g h + b_g), c' = f c + i g, h' = o tanh(c')
#pragma once

#include "unitwise.hpp"

namespace throughtime::LEVEL {

struct Lstm {
    enum Slot { I, F, G, O, C, SLOTS };
    typedef Unitwise Steps;
    static constexpr int GATES = 4, GRADIENTS = 4, VECTORS = 4, STARTS = 4, STATISTICS = 0, RECURRENT = I, CARRIED = C;
    static constexpr bool PRODUCT = true, CARRIES_HIDDEN = false;
    static constexpr int W_GATE[] = {0, 1, 2, 3}, U_GATE[] = {0, 1, 2, 3}, VECTOR[] = {0, 1, 2, 3};

    static INLINE Vec forward(Vec* s, Vec before) {
        s[I] = sigmoid(s[I]);
        s[F] = sigmoid(s[F]);
        s[G] = tanh(s[G]);
        s[O] = sigmoid(s[O]);
        s[C] = s[F] * before + s[I] * s[G];
        return s[O] * tanh(s[C]);
    }

    static INLINE void backward(const Vec* s, Vec before, Vec dh, Vec& carry, Vec* d) {
        const Vec squashed = tanh(s[C]);
        const Vec dc = carry + dh * s[O] * (1.0f - squashed * squashed);
        d[I] = dc * s[G] * s[I] * (1.0f - s[I]);
        d[F] = dc * before * s[F] * (1.0f - s[F]);
        d[G] = dc * s[I] * (1.0f - s[G] * s[G]);
        d[O] = dh * squashed * s[O] * (1.0f - s[O]);
        carry = dc * s[F];
    }
};

}  // namespace throughtime::LEVEL
