// One instruction-set level: everything below is compiled once for each, in a namespace of its name.
#include "affine.hpp"
#include "elman.hpp"
#include "gru.hpp"
#include "layernorm.hpp"
#include "likelihood.hpp"
#include "lstm.hpp"
#include "minimal.hpp"

#define STRING(x) #x
#define NAME(x) STRING(x)

namespace throughtime::LEVEL {

template <class Cell, class P>
constexpr auto backward_of() -> void (*)(const Layer&) {
    if constexpr (Cell::GRADIENTS == 0)
        return nullptr;
    else
        return Backward<Cell, P>::call;
}

template <class Cell, class P>
constexpr Recurrence recurrence(const char* name, bool bf16) {
    return {name,
            bf16,
            Cell::GATES,
            Cell::VECTORS,
            Cell::PRODUCT,
            Cell::CARRIES_HIDDEN,
            Window<Cell, P>::sizes,
            Forward<Cell, P>::packed_size,
            Forward<Cell, P>::pack_for_later,
            Forward<Cell, P>::call,
            backward_of<Cell, P>()};
}

#define BOTH(Cell, name) recurrence<Cell, Float32>(name, false), recurrence<Cell, Bf16>(name, true)

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

extern const Level level{NAME(LEVEL), LANES, recurrences, sizeof recurrences / sizeof *recurrences,
                         target_nats};

}  // namespace throughtime::LEVEL
