// r = sigmoid(W_r x + U_r h + b_r), z likewise, n = tanh(W_n x + b_n + r (U_n h + c_n)), h' = (1 - z) n + z h
#pragma once

#include "unitwise.hpp"

namespace throughtime::LEVEL {

struct Gru {
    // The candidate has two parts: W's are slots N, R, Z, U's are R, Z, M. Each is one stretch.
    enum Slot { N, R, Z, M, H, SLOTS };
    typedef Unitwise Steps;
    static constexpr int GATES = 3, GRADIENTS = 4, VECTORS = 4, STARTS = 4, STATISTICS = 0, RECURRENT = R, CARRIED = H;
    static constexpr bool PRODUCT = true, CARRIES_HIDDEN = true;
    static constexpr int W_GATE[] = {2, 0, 1}, U_GATE[] = {0, 1, 2}, VECTOR[] = {2, 0, 1, 3};

    static INLINE Vec forward(Vec* s, Vec before) {
        s[R] = sigmoid(s[R]);
        s[Z] = sigmoid(s[Z]);
        s[N] = tanh(s[N] + s[R] * s[M]);
        return s[H] = s[N] + s[Z] * (before - s[N]);
    }

    static INLINE void backward(const Vec* s, Vec before, Vec dy, Vec& carry, Vec* d) {
        const Vec dh = dy + carry;
        carry = dh * s[Z];
        d[N] = (dh - carry) * (1.0f - s[N] * s[N]);
        d[R] = d[N] * s[M] * s[R] * (1.0f - s[R]);
        d[Z] = (before - s[N]) * carry * (1.0f - s[Z]);
        d[M] = d[N] * s[R];
    }
};

}  // namespace throughtime::LEVEL
