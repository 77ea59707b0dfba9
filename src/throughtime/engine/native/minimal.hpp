// The minimal cells: gates and candidate see the input alone, so a step is arithmetic on what is projected already.
#pragma once

#include "unitwise.hpp"

namespace throughtime::LEVEL {

// The function g of the candidate, and its slope by its value.
struct Linear {
    static INLINE Vec value(Vec a) { return a; }
    static INLINE Vec slope(Vec) { return broadcast(1.0f); }
};

struct Positive {
    static INLINE Vec value(Vec a) { return a >= 0.0f ? a + 0.5f : sigmoid(a); }
    static INLINE Vec slope(Vec n) { return n >= 0.5f ? broadcast(1.0f) : n * (1.0f - n); }
};

// z = sigmoid(W_z x + b_z), n = g(W_n x + b_n), h' = (1 - z) h + z n
template <class G>
struct MinGru {
    enum Slot { Z, N, H, SLOTS };
    typedef Unitwise Steps;
    static constexpr int GATES = 2, GRADIENTS = 2, VECTORS = 2, STARTS = 2, STATISTICS = 0;
    static constexpr int RECURRENT = Z, CARRIED = H;
    static constexpr bool PRODUCT = false, CARRIES_HIDDEN = true;
    static constexpr int W_GATE[] = {0, 1}, U_GATE[] = {0, 1}, VECTOR[] = {0, 1};

    static INLINE Vec forward(Vec* s, Vec before) {
        s[Z] = sigmoid(s[Z]);
        s[N] = G::value(s[N]);
        return s[H] = before + s[Z] * (s[N] - before);
    }

    static INLINE void backward(const Vec* s, Vec before, Vec dy, Vec& carry, Vec* d) {
        const Vec dh = dy + carry;
        d[N] = dh * s[Z] * G::slope(s[N]);
        carry = dh * (1.0f - s[Z]);
        d[Z] = carry * s[Z] * (s[N] - before);
    }
};

// f, i = sigmoid(W x + b), n = g(W_n x + b_n), h' = f / (f + i) h + i / (f + i) n
template <class G>
struct MinLstm {
    // What is left of the gates for the way back: 1 - f, 1 - i, and their shares of the sum.
    enum Slot { F, I, N, KEPT, TAKEN, H, SLOTS };
    typedef Unitwise Steps;
    static constexpr int GATES = 3, GRADIENTS = 3, VECTORS = 3, STARTS = 3, STATISTICS = 0;
    static constexpr int RECURRENT = F, CARRIED = H;
    static constexpr bool PRODUCT = false, CARRIES_HIDDEN = true;
    static constexpr int W_GATE[] = {0, 1, 2}, U_GATE[] = {0, 1, 2}, VECTOR[] = {0, 1, 2};

    static INLINE Vec forward(Vec* s, Vec before) {
        // f / (f + i) = (1 + e^-i) / ((1 + e^-f) + (1 + e^-i)) in the gates' sums f and i, with everything multiplied
        // by e^least so that no power overflows and the denominator is at least 1.
        Vec least = s[F] < s[I] ? s[F] : s[I];
        least = least > 0.0f ? Vec{} : least;
        const Vec one = exp(least), for_f = one + exp(least - s[I]), for_i = one + exp(least - s[F]);
        const Vec whole = reciprocal(for_f + for_i);
        s[KEPT] = for_f * whole;
        s[TAKEN] = for_i * whole;
        s[F] = sigmoid(-s[F]);
        s[I] = sigmoid(-s[I]);
        s[N] = G::value(s[N]);
        return s[H] = before + s[TAKEN] * (s[N] - before);  // a closed gate keeps every bit
    }

    static INLINE void backward(const Vec* s, Vec before, Vec dy, Vec& carry, Vec* d) {
        const Vec dh = dy + carry;
        const Vec odds = dh * (before - s[N]) * s[KEPT] * s[TAKEN];
        d[F] = odds * s[F];
        d[I] = -odds * s[I];
        d[N] = dh * s[TAKEN] * G::slope(s[N]);
        carry = dh * s[KEPT];
    }
};

}  // namespace throughtime::LEVEL
