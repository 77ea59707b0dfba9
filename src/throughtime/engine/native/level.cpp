// One instruction-set level: everything below is compiled once for each, in a namespace of its name.
#include "cells.hpp"
#include "likelihood.hpp"
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
#define BOTH_WIDE(Cell, name) recurrence<Cell, Float32>(name, "float32"), recurrence<Cell, WideBf16>(name, "bf16")

static const Recurrence recurrences[] = {BOUNDED_CELLS(BOTH), UNBOUNDED_CELLS(BOTH_WIDE)};

extern const Level level{NAME(LEVEL),        LANES, recurrences, sizeof recurrences / sizeof *recurrences, target_nats,
                         whole_probabilities};

}  // namespace throughtime::LEVEL
