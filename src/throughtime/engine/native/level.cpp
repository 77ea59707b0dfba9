// One instruction-set level: everything below is compiled once for each, in a namespace of its name.
#include "affine.hpp"
#include "elman.hpp"
#include "gru.hpp"
#include "layernorm.hpp"
#include "likelihood.hpp"
#include "lstm.hpp"
#include "minimal.hpp"
#include "recurrence.hpp"

namespace throughtime::LEVEL {

template <class Cell, class P>
constexpr auto backward_of() -> void (*)(const Layer&) {
    if constexpr (Cell::GRADIENTS == 0)
        return nullptr;
    else
        return Backward<Cell, P>::call;
}

template <class Cell, class P>
constexpr Recurrence recurrence(const char* name, const char* weights) {
    Recurrence found = forward_only<Cell, P>(name, weights);
    found.backward = backward_of<Cell, P>();
    return found;
}

#define BOTH(Cell, name) recurrence<Cell, Float32>(name, "float32"), recurrence<Cell, Bf16>(name, "bf16")

static const Recurrence recurrences[] = {
    BOTH(Elman<Phi::Tanh>, "elman-tanh"),
    BOTH(Elman<Phi::Relu>, "elman-relu"),
    BOTH(Gru, "gru"),
    BOTH(Lstm, "lstm"),
    BOTH(LayerNormGru, "layernorm-gru"),
    BOTH(LayerNormLstm, "layernorm-lstm"),
    BOTH(Affine, "affine"),
    BOTH(MinGru<Linear>, "mingru-linear"),
    BOTH(MinGru<Positive>, "mingru-positive"),
    BOTH(MinLstm<Linear>, "minlstm-linear"),
    BOTH(MinLstm<Positive>, "minlstm-positive"),
};

extern const Level level{NAME(LEVEL),        LANES, recurrences, sizeof recurrences / sizeof *recurrences, target_nats,
                         whole_probabilities};

}  // namespace throughtime::LEVEL
