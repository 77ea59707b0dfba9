// Cells with int8 weights, forwards only, for one instruction-set level. A state is taken to be from -1 to 1, so the Elman
// network with relu is not among them.
#include "affine.hpp"
#include "elman.hpp"
#include "gru.hpp"
#include "layernorm.hpp"
#include "lstm.hpp"
#include "minimal.hpp"
#include "recurrence.hpp"

namespace throughtime::LEVEL {

#define WHOLE(Cell, name) forward_only<Cell, Int8>(name, "int8")

static const Recurrence recurrences[] = {
    WHOLE(Affine, "affine"),
    WHOLE(Elman<Phi::Tanh>, "elman-tanh"),
    WHOLE(Gru, "gru"),
    WHOLE(Lstm, "lstm"),
    WHOLE(LayerNormGru, "layernorm-gru"),
    WHOLE(LayerNormLstm, "layernorm-lstm"),
    WHOLE(MinGru<Linear>, "mingru-linear"),
    WHOLE(MinGru<Positive>, "mingru-positive"),
    WHOLE(MinLstm<Linear>, "minlstm-linear"),
    WHOLE(MinLstm<Positive>, "minlstm-positive"),
};

extern const Level level{NAME(LEVEL), LANES, recurrences, sizeof recurrences / sizeof *recurrences, nullptr, nullptr};

}  // namespace throughtime::LEVEL
