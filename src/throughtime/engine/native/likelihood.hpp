// -log softmax(logits)[target].
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

}  // namespace throughtime::LEVEL
