// What the files that bind C++ to Python share.
#pragma once

#include <nanobind/nanobind.h>

namespace throughtime {

void bind_network(nanobind::module_& m);

}  // namespace throughtime
