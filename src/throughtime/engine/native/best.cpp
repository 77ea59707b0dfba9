// For the build: prints the levels that the engine uses on this processor, of those offered to it, as a list of CMake's.
#include <cstdio>

#include "levels.cpp"

namespace throughtime {

#define NAMED(name, lanes)                                                \
    namespace name {                                                      \
    extern const Level level{#name, lanes, nullptr, 0, nullptr, nullptr}; \
    }
NAMED(portable, 4)
NAMED(portable_int8, 4)
NAMED(avx2, 8)
NAMED(avx2_int8, 8)
NAMED(avx512, 16)
NAMED(avx512bf16, 16)
NAMED(avx512fp16, 16)
NAMED(avx512_int8, 16)

}  // namespace throughtime

int main() {
    using namespace throughtime;
    if (levels().empty()) return 1;
    const Level& best = *levels().back();
    printf("%s;%s", best.name, whole_of(best)->name);
}
