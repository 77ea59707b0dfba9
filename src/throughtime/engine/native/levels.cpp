#include "levels.hpp"

namespace throughtime {

#define DECLARE(name)         \
    namespace name {          \
    extern const Level level; \
    }
DECLARE(portable)
#if defined(HAS_LEVEL_AVX2)
DECLARE(avx2)
#endif
#if defined(HAS_LEVEL_AVX512)
DECLARE(avx512)
#endif
#if defined(HAS_LEVEL_AVX512BF16)
DECLARE(avx512bf16)
#endif

// AMD's cores multiply bf16 at twice the
// rate of float32; Intel's, as far as they lack tiles, at half of it, so that there bf16 is better unpacked.
std::vector<const Level*> levels() {
    std::vector<const Level*> found{&portable::level};
#if defined(HAS_LEVEL_AVX2)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(&avx2::level);
#endif
#if defined(HAS_LEVEL_AVX512) || defined(HAS_LEVEL_AVX512BF16)
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
#if defined(HAS_LEVEL_AVX512)
    if (avx512) found.push_back(&avx512::level);
#endif
#if defined(HAS_LEVEL_AVX512BF16)
    if (avx512 && __builtin_cpu_supports("avx512bf16"))
        found.insert(found.end() - !__builtin_cpu_is("amd"), &avx512bf16::level);
#endif
    return found;
}

const Level* level_of(const std::string& name) {
    for (const Level* level : levels())
        if (name == level->name) return level;
    return nullptr;
}

const Recurrence* recurrence_of(const Level& level, const std::string& cell, bool bf16) {
    for (int i = 0; i < level.count; i++)
        if (cell == level.recurrences[i].cell && bf16 == level.recurrences[i].bf16) return level.recurrences + i;
    return nullptr;
}

}  // namespace throughtime
