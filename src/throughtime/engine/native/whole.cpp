// Cells with int8 weights, forwards only, for one instruction-set level.
#include "cells.hpp"
#include "recurrence.hpp"

namespace throughtime::LEVEL {

#define WHOLE(Cell, name) forward_only<Cell, Int8>(name, "int8")

static const Recurrence recurrences[] = {BOUNDED_CELLS(WHOLE)};

extern const Level level{NAME(LEVEL), LANES, recurrences, sizeof recurrences / sizeof *recurrences, nullptr, nullptr};

}  // namespace throughtime::LEVEL
