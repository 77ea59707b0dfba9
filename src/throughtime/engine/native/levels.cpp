#include "levels.hpp"

namespace throughtime {

#define DECLARE(name)         \
    namespace name {          \
    extern const Level level; \
    }
#if defined(HAS_LEVEL_PORTABLE)
DECLARE(portable)
#endif
#if defined(HAS_LEVEL_PORTABLE_INT8)
DECLARE(portable_int8)
#endif
#if defined(HAS_LEVEL_AVX2)
DECLARE(avx2)
#endif
#if defined(HAS_LEVEL_AVX2_INT8)
DECLARE(avx2_int8)
#endif
#if defined(HAS_LEVEL_AVX512_INT8)
DECLARE(avx512_int8)
#endif
#if defined(HAS_LEVEL_AVX512)
DECLARE(avx512)
#endif
#if defined(HAS_LEVEL_AVX512BF16)
DECLARE(avx512bf16)
#endif
#if defined(HAS_LEVEL_AVX512FP16)
DECLARE(avx512fp16)
#endif

// AMD's cores multiply bf16 at twice the rate of float32; Intel's, as far as they lack tiles, at half of it, so that
// there bf16 is better unpacked, or multiplied as half floats, which they take at twice the rate.
std::vector<const Level*> levels() {
    std::vector<const Level*> found;
#if defined(HAS_LEVEL_PORTABLE)
    found.push_back(&portable::level);
#endif
#if defined(HAS_LEVEL_AVX2)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(&avx2::level);
#endif
#if defined(HAS_LEVEL_AVX512) || defined(HAS_LEVEL_AVX512BF16) || defined(HAS_LEVEL_AVX512FP16)
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
#if defined(HAS_LEVEL_AVX512FP16)
    if (avx512 && __builtin_cpu_supports("avx512fp16")) found.push_back(&avx512fp16::level);
#endif
    return found;
}

// What has int8 weights is in tables of its own: processors with AVX-512 are told apart there by another instruction.
static const Level* whole_of([[maybe_unused]] const Level& level) {
    const Level* found = nullptr;
#if defined(HAS_LEVEL_PORTABLE_INT8)
    found = &portable_int8::level;
#endif
#if defined(HAS_LEVEL_AVX2_INT8)
    if (level.lanes >= avx2_int8::level.lanes && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        found = &avx2_int8::level;
#endif
#if defined(HAS_LEVEL_AVX512_INT8)
    if (level.lanes >= avx512_int8::level.lanes && __builtin_cpu_supports("avx512vnni") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        found = &avx512_int8::level;
#endif
    return found;
}

const Level* level_of(const std::string& name) {
    for (const Level* level : levels())
        if (name == level->name) return level;
    return nullptr;
}

const Recurrence* recurrence_of(const Level& level, const std::string& cell, const std::string& weights) {
    const Level* table = weights == "int8" ? whole_of(level) : &level;
    for (int i = 0; table && i < table->count; i++)
        if (cell == table->recurrences[i].cell && weights == table->recurrences[i].weights)
            return table->recurrences + i;
    return nullptr;
}

}  // namespace throughtime
