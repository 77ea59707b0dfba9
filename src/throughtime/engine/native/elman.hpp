// h_t = phi(W x_t + U h_(t-1) + b)
#pragma once

#include "unitwise.hpp"

namespace throughtime::LEVEL {

struct Phi {
    struct Tanh {
        static INLINE Vec value(Vec x) { return tanh(x); }
        static INLINE Vec slope(Vec y) { return 1.0f - y * y; }
    };
    struct Relu {
        static INLINE Vec value(Vec x) { return relu(x); }
        static INLINE Vec slope(Vec y) { return y > 0.0f ? broadcast(1.0f) : Vec{}; }
    };
};

template <class Function>
struct Elman {
    enum Slot { H, SLOTS };
    typedef Unitwise Steps;
    static constexpr int GATES = 1, GRADIENTS = 1, VECTORS = 1, STARTS = 1, STATISTICS = 0, RECURRENT = H, CARRIED = H;
    static constexpr bool PRODUCT = true, CARRIES_HIDDEN = true;
    static constexpr int W_GATE[] = {0}, U_GATE[] = {0}, VECTOR[] = {0};

    static INLINE Vec forward(Vec* s, Vec) { return s[H] = Function::value(s[H]); }

    static INLINE void backward(const Vec* s, Vec, Vec dy, Vec& carry, Vec* d) {
        d[H] = (dy + carry) * Function::slope(s[H]);
        carry = Vec{};
    }
};

}  // namespace throughtime::LEVEL
