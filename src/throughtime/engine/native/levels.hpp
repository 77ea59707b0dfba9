// The levels that were built and that this processor runs.
#pragma once

#include <string>
#include <vector>

#include "kernels.hpp"

namespace throughtime {

// The fastest last.
std::vector<const Level*> levels();

// Null where there is none of that name.
const Level* level_of(const std::string& name);
const Recurrence* recurrence_of(const Level& level, const std::string& cell, const std::string& weights);

}  // namespace throughtime
