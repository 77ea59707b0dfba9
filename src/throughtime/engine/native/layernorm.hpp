// LSTM and GRU with layer normalisation of W x, of U h, and of the LSTM's cell before the output reads it.
#pragma once

#include "rowwise.hpp"

namespace throughtime::LEVEL {

struct LayerNormLstm {
    enum Gate { I, F, G, O };
    enum Slot { X, A = X + 4, C = A + 4, SLOTS };
    enum Vector { SHIFT, GAIN_X = SHIFT + 4, GAIN_A = GAIN_X + 4, GAIN_C = GAIN_A + 4, SHIFT_C, VECTORS };
    typedef Rowwise Steps;
    static constexpr int GATES = 4, GRADIENTS = 8, STARTS = 0, STATISTICS = 6, RECURRENT = A, CARRIED = C;
    static constexpr int SHIFTED_A = -1, SHIFT_A = 0;  // no gate has a shift of its own on U h
    static constexpr bool PRODUCT = true, CARRIES_HIDDEN = false, NORMALISES_CARRIED = true;
    static constexpr int W_GATE[] = {0, 1, 2, 3}, U_GATE[] = {0, 1, 2, 3};
    static constexpr int VECTOR[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13};

    static INLINE Vec add(Gate j, const Vec* x, const Vec* a, const Vec* v) {
        return v[GAIN_X + j] * x[j] + v[GAIN_A + j] * a[j] + v[SHIFT + j];
    }

    static INLINE Vec carried(const Vec* x, const Vec* a, const Vec* v, Vec before) {
        return sigmoid(add(F, x, a, v)) * before + sigmoid(add(I, x, a, v)) * tanh(add(G, x, a, v));
    }

    static INLINE Vec output(const Vec* x, const Vec* a, const Vec* v, Vec c) {
        return sigmoid(add(O, x, a, v)) * tanh(v[GAIN_C] * c + v[SHIFT_C]);
    }

    static INLINE void through_output(const Vec* x, const Vec* a, const Vec* v, Vec c, Vec dh, Vec& d_gate,
                                      Vec& d_shifted) {
        const Vec o = sigmoid(add(O, x, a, v)), squashed = tanh(v[GAIN_C] * c + v[SHIFT_C]);
        d_gate = dh * squashed * o * (1.0f - o);
        d_shifted = dh * o * (1.0f - squashed * squashed);
    }

    static INLINE void through_gates(const Vec* x, const Vec* a, const Vec* v, Vec before, Vec dc, const Vec* d_gate,
                                     Vec& carry, Vec* dx, Vec* da) {
        const Vec i = sigmoid(add(I, x, a, v)), f = sigmoid(add(F, x, a, v)), g = tanh(add(G, x, a, v));
        dx[I] = dc * g * i * (1.0f - i);
        dx[F] = dc * before * f * (1.0f - f);
        dx[G] = dc * i * (1.0f - g * g);
        dx[O] = *d_gate;
        for (int j = 0; j < GATES; j++) da[j] = dx[j];
        carry = dc * f;
    }
};

struct LayerNormGru {
    enum Gate { R, Z, N };
    enum Slot { X, A = X + 3, H = A + 3, SLOTS };
    enum Vector { SHIFT, SHIFT_A = SHIFT + 3, GAIN_X, GAIN_A = GAIN_X + 3, VECTORS = GAIN_A + 3 };
    typedef Rowwise Steps;
    static constexpr int GATES = 3, GRADIENTS = 6, STARTS = 0, STATISTICS = 4, RECURRENT = A, CARRIED = H;
    static constexpr int SHIFTED_A = N;
    static constexpr bool PRODUCT = true, CARRIES_HIDDEN = true, NORMALISES_CARRIED = false;
    static constexpr int W_GATE[] = {0, 1, 2}, U_GATE[] = {0, 1, 2}, VECTOR[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};

    struct Gates {
        Vec r, z, n, from_a;
        INLINE Gates(const Vec* x, const Vec* a, const Vec* v) {
            r = sigmoid(v[GAIN_X + R] * x[R] + v[GAIN_A + R] * a[R] + v[SHIFT + R]);
            z = sigmoid(v[GAIN_X + Z] * x[Z] + v[GAIN_A + Z] * a[Z] + v[SHIFT + Z]);
            from_a = v[GAIN_A + N] * a[N] + v[SHIFT_A];
            n = tanh(v[GAIN_X + N] * x[N] + v[SHIFT + N] + r * from_a);
        }
    };

    static INLINE Vec carried(const Vec* x, const Vec* a, const Vec* v, Vec before) {
        const Gates gates(x, a, v);
        return gates.n + gates.z * (before - gates.n);
    }

    static INLINE void through_gates(const Vec* x, const Vec* a, const Vec* v, Vec before, Vec dh, const Vec*,
                                     Vec& carry, Vec* dx, Vec* da) {
        const Gates gates(x, a, v);
        carry = dh * gates.z;
        dx[N] = (dh - carry) * (1.0f - gates.n * gates.n);
        dx[R] = dx[N] * gates.from_a * gates.r * (1.0f - gates.r);
        dx[Z] = (before - gates.n) * carry * (1.0f - gates.z);
        da[R] = dx[R];
        da[Z] = dx[Z];
        da[N] = dx[N] * gates.r;
    }
};

}  // namespace throughtime::LEVEL
