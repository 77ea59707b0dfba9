// Vectors of floats as wide as the processor's, and the functions that gates are made of.
//
// Written with the vector extensions of GCC and Clang, so that one text serves every instruction set; each is compiled
// in a namespace of its own, LEVEL. Nothing here may come from the standard library's templates: the linker would keep
// one copy of them for all levels, perhaps that of a level the processor lacks.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))

namespace throughtime::LEVEL {

#if defined(__AVX512F__)
constexpr int LANES = 16, REGISTERS = 32;
#elif defined(__AVX2__)
constexpr int LANES = 8, REGISTERS = 16;
#elif defined(__aarch64__)
constexpr int LANES = 4, REGISTERS = 32;
#else
constexpr int LANES = 4, REGISTERS = 16;
#endif

typedef float Vec __attribute__((vector_size(LANES * 4)));
typedef int32_t Bits __attribute__((vector_size(LANES * 4)));
typedef uint16_t Half __attribute__((vector_size(LANES * 2)));

INLINE Vec load(const float* from) {
    Vec v;
    memcpy(&v, from, sizeof v);
    return v;
}

INLINE void store(float* to, Vec v) { memcpy(to, &v, sizeof v); }

INLINE Vec broadcast(float x) { return x - Vec{}; }

INLINE Vec load_part(const float* from, int count) {
    if (count >= LANES) return load(from);
    Vec v{};
    memcpy(&v, from, count * sizeof(float));
    return v;
}

INLINE void store_part(float* to, Vec v, int count) {
    if (count >= LANES)
        store(to, v);
    else
        memcpy(to, &v, count * sizeof(float));
}

// Rows become columns. Each round deals the cards anew: those of the upper half between those of the lower.
INLINE void transpose(Vec (&square)[LANES]) {
    Bits low, high;
    for (int lane = 0; lane < LANES; lane++) {
        low[lane] = lane / 2 + (lane & 1) * LANES;
        high[lane] = low[lane] + LANES / 2;
    }
    for (int round = 1; round < LANES; round *= 2) {
        Vec dealt[LANES];
#pragma GCC unroll 8
        for (int i = 0; i < LANES / 2; i++) {
            dealt[2 * i] = __builtin_shuffle(square[i], square[i + LANES / 2], low);
            dealt[2 * i + 1] = __builtin_shuffle(square[i], square[i + LANES / 2], high);
        }
        memcpy(square, dealt, sizeof dealt);
    }
}

// bfloat16: the upper half of a float, rounded to the nearest, ties to even; a NaN stays one.
INLINE Bits rounded_bits(Vec v) {
    Bits bits = (Bits)v;
    Bits rounded = bits + 0x7fff + ((bits >> 16) & 1);
    Bits is_nan = (Bits)(v != v);
    return (is_nan & (bits | 0x400000)) | (~is_nan & rounded);
}

INLINE Vec round_to_bf16(Vec v) { return (Vec)(rounded_bits(v) & (int32_t)0xffff0000); }

INLINE void store_bf16(uint16_t* to, Vec v) {
#if defined(__AVX512BF16__)
    const __m256bh half = _mm512_cvtneps_pbh((__m512)v);
#else
    const Half half = __builtin_convertvector((Bits)((rounded_bits(v) >> 16) & 0xffff), Half);
#endif
    memcpy(to, &half, sizeof half);
}

// Those of two vectors in pairs, lane by lane, the first in the lower half.
INLINE Bits paired_bf16(Vec first, Vec second) {
#if defined(__AVX512BF16__)
    typedef int16_t Halves __attribute__((vector_size(LANES * 4)));
    Halves order;
    for (int i = 0; i < 2 * LANES; i++) order[i] = i / 2 + (i & 1) * LANES;
    return (Bits)__builtin_shuffle((Halves)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first), order);
#else
    return ((rounded_bits(first) >> 16) & 0xffff) | (rounded_bits(second) & (int32_t)0xffff0000);
#endif
}

// Where either is a NaN, the second operand: one instruction, which compilers do not find by themselves.
INLINE Vec larger(Vec a, Vec b) {
#if defined(__AVX512F__)
    return (Vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (Vec)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return a > b ? a : b;
#endif
}

INLINE Vec smaller(Vec a, Vec b) {
#if defined(__AVX512F__)
    return (Vec)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (Vec)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return a < b ? a : b;
#endif
}

// A NaN passes through: a broken network must show, not be clamped.
INLINE Vec clamp(Vec x, float low, float high) { return smaller(broadcast(high), larger(broadcast(low), x)); }

#if defined(__AVX512FP16__)
// Half floats: 11 bits, between 2^-14 and 2^16 (and fewer bits down to 2^-24).
INLINE Half as_half(Vec v) { return (Half)_mm512_cvtxps_ph((__m512)v); }

INLINE Vec from_half(Half half) { return (Vec)_mm512_cvtxph_ps((__m256h)half); }
#endif

INLINE Vec reciprocal(Vec x) {
#if defined(__AVX512F__)
    // 14 bits and one Newton step: within 2 units of the last place, at a fifth of the cost of a division. x is finite.
    Vec r = (Vec)_mm512_maskz_rcp14_ps((__mmask16)-1, (__m512)x);
    return r + r * (1.0f - x * r);
#else
    return 1.0f / x;
#endif
}

// 2^n exp-style parts of x in [-88, 88]: n = round(x / log 2), and m = expm1(x - n log 2).
struct Exponential {
    Vec power, minus_one;
    INLINE Vec whole() const { return power + power * minus_one; }
};

INLINE Exponential exponential(Vec x) {
    const float magic = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest whole number in the low bits
    Vec shifted = x * 1.44269504089f + magic;
    Vec n = shifted - magic;
    Vec f = x - n * 0.693359375f;  // log 2 in two parts: the first has few bits, so that the product is exact
    f = f + n * 2.12194440e-4f;
    // expm1(f) = f + f^2 r(f) on |f| <= log(2) / 2: a least-maximum fit of degree 4, relative error 1.4e-8
    Vec r = 0.00139464858865f * f + 0.00836661116047f;
    r = r * f + 0.0416662815438f;
    r = r * f + 0.16666542788f;
    r = r * f + 0.500000006206f;
    Vec power = (Vec)(((Bits)shifted << 23) + 0x3f800000);
    return {power, f + f * f * r};
}

// The bounds are such that e^x is a number, 0 at the lower one, as is 1 / e^x at the upper: a gate can close.
INLINE Vec exp(Vec x) { return exponential(clamp(x, -88.0f, 88.0f)).whole(); }

INLINE Vec sigmoid(Vec x) { return reciprocal(1.0f + exponential(-clamp(x, -88.0f, 88.0f)).whole()); }

// tanh x = E / (E + 2) with E = expm1(2 x): no cancellation near 0.
INLINE Vec tanh(Vec x) {
    Exponential e = exponential(clamp(x + x, -30.0f, 30.0f));
    Vec expm1 = e.power * e.minus_one + (e.power - 1.0f);
    return expm1 * reciprocal(expm1 + 2.0f);
}

INLINE Vec magnitude(Vec v) { return (Vec)((Bits)v & 0x7fffffff); }

INLINE float largest(Vec v) {
    float found = v[0];
    for (int lane = 1; lane < LANES; lane++) found = v[lane] > found ? v[lane] : found;
    return found;
}

// The power of 2 that a number is at least, and less than twice of; but none beyond 2^-62 and 2^62, whose products and
// inverses are numbers too. 1 for 0.
INLINE float power_below(float x) {
    if (!(x > 0.0f)) return 1.0f;
    x = x > 0x1p62f ? 0x1p62f : x < 0x1p-62f ? 0x1p-62f : x;
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits &= 0x7f800000;
    memcpy(&x, &bits, sizeof bits);
    return x;
}

// The first `count` lanes, and 0 behind them.
INLINE Vec first_lanes(Vec v, int count) {
    if (count >= LANES) return v;
    alignas(64) float lanes[LANES];
    store(lanes, v);
    return load_part(lanes, count);
}

// Half to half: as many additions one after another as it takes, not as there are lanes.
template <int COUNT>
struct Sum {
    typedef float Whole __attribute__((vector_size(COUNT * 4)));
    static INLINE float of(Whole v) {
        typename Sum<COUNT / 2>::Whole low, high;
        memcpy(&low, &v, sizeof low);
        memcpy(&high, (const char*)&v + sizeof low, sizeof high);
        return Sum<COUNT / 2>::of(low + high);
    }
};

template <>
struct Sum<2> {
    typedef float Whole __attribute__((vector_size(8)));
    static INLINE float of(Whole v) { return v[0] + v[1]; }
};

INLINE float sum(Vec v) { return Sum<LANES>::of(v); }

INLINE Vec relu(Vec x) { return larger(Vec{}, x); }

}  // namespace throughtime::LEVEL
