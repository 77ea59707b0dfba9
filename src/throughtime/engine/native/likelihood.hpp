// What becomes of logits: -log softmax(logits)[target], and probabilities for a coder.
#pragma once

#include "vector.hpp"

namespace throughtime::LEVEL {

// For `rows` rows of `columns` logits. The sum runs in float32 from a maximum of 1 down: its error is far below that of
// the logits.
inline void target_nats(const float* logits, long rows, long columns, const int64_t* targets, double* nats) {
    for (long row = 0; row < rows; row++, logits += columns) {
        float most = logits[0];
        for (long i = 1; i < columns; i++) most = logits[i] > most ? logits[i] : most;
        Vec total{};
        for (long i = 0; i < columns; i += LANES) {
            const int count = columns - i < LANES ? (int)(columns - i) : LANES;
            total += first_lanes(exp(load_part(logits + i, count) - most), count);
        }
        nats[row] = __builtin_log((double)sum(total)) - ((double)logits[targets[row]] - most);
    }
}

// softmax(logits + bias) of each row as whole multiples of 2^-24, none of them 0, that sum to 1. A row whose largest number
// is not finite, or that holds a NaN, gives all columns the same but one.
inline void whole_probabilities(const float* logits, long rows, long columns, const float* bias, double* out) {
    const double unit = 0x1p-24, units = 0x1p24;
    for (long row = 0; row < rows; row++, logits += columns, out += columns) {
        long best = 0;
        for (long i = 1; i < columns; i++) best = logits[i] + bias[i] > logits[best] + bias[best] ? i : best;
        const float most = logits[best] + bias[best];
        Vec total{};
        for (long i = 0; i < columns; i += LANES) {
            const int count = columns - i < LANES ? (int)(columns - i) : LANES;
            alignas(64) float part[LANES];
            const Vec e = first_lanes(exp(load_part(logits + i, count) + load_part(bias + i, count) - most), count);
            total += e;
            store(part, e);
            for (int j = 0; j < count; j++) out[i + j] = part[j];
        }
        const double whole = (double)sum(total);
        const bool known = whole < __builtin_inf();  // false for NaN, too
        const double scale = (units - columns) / whole;
        double left = units;
        for (long i = 0; i < columns; i++) {
            out[i] = known ? 1 + (double)(long)(out[i] * scale) : 1;
            left -= out[i];
        }
        // What the rounded sum has given out too much is taken back from the others before the best would have none.
        for (long i = 0; i < columns && out[best] + left < 1; i++)
            if (i != best) {
                const double taken = out[i] - 1 < -left ? out[i] - 1 : -left;
                out[i] -= taken, left += taken;
            }
        out[best] += left;
        for (long i = 0; i < columns; i++) out[i] *= unit;
    }
}

}  // namespace throughtime::LEVEL
