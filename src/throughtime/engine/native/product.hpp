// Matrix products: one tile of accumulators in registers, for every product the engine has.
//
// C[m][n] += sum over k of A[m][k] B[k][n]. B has been packed into panels of C vectors: [k][vector][lane]. A is read
// where it lies, by strides: one broadcast element serves C multiplications, so its order in memory matters little.
#pragma once

#include "vector.hpp"

namespace throughtime::LEVEL {

struct Range {
    long begin, end;
    long size() const { return end - begin; }
    // The i-th, upwards at one step and downwards at the next: weights used last are still in the cache, if not all
    // fit.
    long back_and_forth(long i, long t) const { return t & 1 ? end - 1 - i : begin + i; }
};

INLINE Range share(long count, int part, int parts) { return {count * part / parts, count * (part + 1) / parts}; }

// Where A's elements lie: k runs through `segments` stretches of `length` elements each.
struct Strides {
    long row, k, segment;
    int segments, length;
    const float* scales = nullptr;  // of A's rows, for policies that are NARROW; null: 1

    Strides from(long row) const {
        Strides rest = *this;
        if (scales) rest.scales += row;
        return rest;
    }
};

// What products have in common whose sums are numbers as they are.
struct FloatSums {
    typedef Vec Sum;
    static constexpr int TAIL = 0;         // vectors behind a panel, for each of its own
    static constexpr bool SCALED = false;  // whether a row of A is a row of whole numbers, with a scale behind it
    static constexpr float LARGEST = 1;    // of these numbers
    static constexpr bool NARROW = false;  // whether they reach less far than floats, so that rows need a scale
    static constexpr int DRAINED = 0;      // steps after which sums are added to floats; 0: they are floats

    static INLINE Vec total(const Sum& sum, const void*, int, const void*) { return sum; }
};

// float32: one k at a time.
struct Float32 : FloatSums {
    typedef float Operand;  // what a state or a gradient is stored as, to be multiplied
    typedef float Left;
    typedef float Right;
    typedef Float32 Gradient;           // the policy of the weights' gradients, where neither side is a weight
    static constexpr int DEPTH = 1;     // k's in one step: packed side by side in B
    static constexpr int ADVANCE = 1;   // elements of A that a step moves on by
    static constexpr int PER_LEFT = 1;  // operands in one element of A

    static INLINE void put(Operand* to, Vec v) { store(to, v); }

    template <int R, int C>
    static INLINE void step(Vec (&sum)[R][C], const Left* a, long row, long, const Right* b) {
        Vec w[C];
        for (int j = 0; j < C; j++) w[j] = load(b + j * LANES);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            Vec x = broadcast(a[r * row]);
#pragma GCC unroll 4
            for (int j = 0; j < C; j++) sum[r][j] += x * w[j];
        }
    }
};

// bf16 weights, made float32 on the way into the registers. A is float32, rounded to bf16 when it was stored.
// On processors whose bf16 instruction is slower than two multiplications (or missing), this is the faster way.
struct Unpacked16 : FloatSums {
    typedef float Operand;
    typedef float Left;
    typedef uint32_t Right;  // two k's of a column
    typedef Float32 Gradient;
    static constexpr int DEPTH = 2, ADVANCE = 2, PER_LEFT = 1;

    static INLINE void put(Operand* to, Vec v) { store(to, round_to_bf16(v)); }

    template <int R, int C>
    static INLINE void step(Vec (&sum)[R][C], const Left* a, long row, long k, const Right* b) {
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            Vec w[C];
            for (int j = 0; j < C; j++) {
                Bits pair;
                memcpy(&pair, b + j * LANES, sizeof pair);
                w[j] = (Vec)(half ? pair & (int32_t)0xffff0000 : pair << 16);
            }
#pragma GCC unroll 16
            for (int r = 0; r < R; r++) {
                Vec x = broadcast(a[r * row + half * k]);
#pragma GCC unroll 4
                for (int j = 0; j < C; j++) sum[r][j] += x * w[j];
            }
        }
    }
};

#if defined(__AVX512F__)
// A step of those who multiply all that 32 bits hold of a row with what they hold of a column, by one instruction.
template <class Sum, int R, int C, class Multiply>
INLINE void step_of_groups(Sum (&sum)[R][C], const uint32_t* a, long row, const uint32_t* b, Multiply multiply) {
    __m512i w[C];
    for (int j = 0; j < C; j++) memcpy(&w[j], b + j * LANES, sizeof w[j]);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
        const __m512i x = _mm512_set1_epi32((int)a[r * row]);
#pragma GCC unroll 4
        for (int j = 0; j < C; j++) sum[r][j] = multiply(sum[r][j], x, w[j]);
    }
}
#endif

#if defined(__AVX512BF16__)
// bf16 on both sides, multiplied in pairs by the processor's own instruction, summed in float32.
struct Paired16 : FloatSums {
    typedef uint16_t Operand;
    typedef uint32_t Left;  // two k's of a row
    typedef uint32_t Right;
    typedef Paired16 Gradient;
    static constexpr int DEPTH = 2, ADVANCE = 1, PER_LEFT = 2;

    static INLINE void put(Operand* to, Vec v) { store_bf16(to, v); }

    template <int R, int C>
    static INLINE void step(Vec (&sum)[R][C], const Left* a, long row, long, const Right* b) {
        step_of_groups(sum, a, row, b, [](Vec sum, __m512i x, __m512i w) __attribute__((always_inline)) {
            return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)w);
        });
    }
};
#endif

#if defined(__AVX512FP16__)
// In the place of bf16, which is coarser: half floats on both sides, multiplied in pairs. Rows that could lie where a half
// float does not reach have a scale, a power of 2. The sums of a stretch are half floats, theirs are floats.
struct Half16 : FloatSums {
    typedef __m512h Sum;
    typedef uint16_t Operand;
    typedef uint32_t Left;
    typedef uint32_t Right;
    typedef Half16 Gradient;
    static constexpr int DEPTH = 2, ADVANCE = 1, PER_LEFT = 2, DRAINED = 128;
    static constexpr bool NARROW = true;

    static INLINE void put(Operand* to, Vec v) {
        const Half half = as_half(v);
        memcpy(to, &half, sizeof half);
    }

    static INLINE void put_pair(Right* to, Vec first, Vec second) {
        const __m512i low = _mm512_cvtepu16_epi32((__m256i)as_half(first)),
                      high = _mm512_cvtepu16_epi32((__m256i)as_half(second)),
                      pair = _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
        memcpy(to, &pair, sizeof pair);
    }

    template <int R, int C>
    static INLINE void step(Sum (&sum)[R][C], const Left* a, long row, long, const Right* b) {
        step_of_groups(sum, a, row, b, [](Sum sum, __m512i x, __m512i w) __attribute__((always_inline)) {
            return _mm512_fmadd_ph((__m512h)x, (__m512h)w, sum);
        });
    }

    // Of both halves of the pairs.
    static INLINE Vec drain(Sum& sum) {
        const Sum both = _mm512_add_ph(sum, (Sum)_mm512_rol_epi32((__m512i)sum, 16));
        sum = Sum{};
        return from_half((Half)_mm512_cvtepi32_epi16((__m512i)both));
    }
};
#endif

// int8 on both sides, for networks that only run forwards: weights with a scale for each column, rows of A with one each,
// by which the largest number is 127. Sums are whole numbers, the same on every processor.
struct Int8 {
    static constexpr float LARGEST = 127;
    typedef uint32_t Right;  // four k's of a column; behind a panel the scales, and 128 times the sums of its columns
    static constexpr int DEPTH = 4, TAIL = 2, DRAINED = 0;
    static constexpr bool SCALED = true, NARROW = false;

#if defined(__AVX512VNNI__)
    // Four bytes of A, shifted so that none is negative, are multiplied with four of B at once.
    typedef Bits Sum;
    typedef uint8_t Operand;
    typedef uint32_t Left;
    static constexpr int ADVANCE = 1, PER_LEFT = 4;

    // Of numbers from -1 to 1.
    static INLINE void put(Operand* to, Vec v) {
        const __m512i whole = _mm512_cvtps_epi32((__m512)(clamp(v, -1.0f, 1.0f) * LARGEST));
        const __m128i bytes = _mm512_cvtepi32_epi8(_mm512_add_epi32(whole, _mm512_set1_epi32(128)));
        memcpy(to, &bytes, sizeof bytes);
    }

    template <int R, int C>
    static INLINE void step(Sum (&sum)[R][C], const Left* a, long row, long, const Right* b) {
        step_of_groups(sum, a, row, b, [](Sum sum, __m512i x, __m512i w) __attribute__((always_inline)) {
            return (Bits)_mm512_dpbusd_epi32((__m512i)sum, x, w);
        });
    }

    static INLINE Vec whole(const Sum& sum, const Right* tail, int vectors) {
        Bits shift;
        memcpy(&shift, tail + vectors * LANES, sizeof shift);
        return __builtin_convertvector(sum - shift, Vec);
    }
#else
    // Whole numbers as floats: B is made float32 on the way into the registers.
    typedef Vec Sum;
    typedef float Operand;
    typedef float Left;
    static constexpr int ADVANCE = 4, PER_LEFT = 1;

    static INLINE void put(Operand* to, Vec v) {
        const Vec beyond = broadcast(0x1.8p23f);  // where a float has no digits behind the point
        store(to, (clamp(v, -1.0f, 1.0f) * LARGEST + beyond) - beyond);
    }

    template <int R, int C>
    static INLINE void step(Sum (&sum)[R][C], const Left* a, long row, long k, const Right* b) {
#pragma GCC unroll 4
        for (int quarter = 0; quarter < 4; quarter++) {
            Vec w[C];
            for (int j = 0; j < C; j++) {
                Bits four;
                memcpy(&four, b + j * LANES, sizeof four);
                w[j] = __builtin_convertvector(four << (24 - 8 * quarter) >> 24, Vec);
            }
#pragma GCC unroll 16
            for (int r = 0; r < R; r++) {
                Vec x = broadcast(a[r * row + quarter * k]);
#pragma GCC unroll 4
                for (int j = 0; j < C; j++) sum[r][j] += x * w[j];
            }
        }
    }

    static INLINE Vec whole(const Sum& sum, const Right*, int) { return sum; }
#endif

    // `tail` and `end`: what stands behind the panel's column and behind the row of A.
    static INLINE Vec total(const Sum& sum, const Right* tail, int vectors, const Left* end) {
        Vec column;
        float scale;
        memcpy(&column, tail, sizeof column);
        memcpy(&scale, end, sizeof scale);
        return whole(sum, tail, vectors) * (column * scale);
    }
};

// WideBf16 is for states that can be of any size.
#if defined(__AVX512FP16__)
typedef Half16 Bf16;
typedef Unpacked16 WideBf16;
#elif defined(__AVX512BF16__)
typedef Paired16 Bf16, WideBf16;
#else
typedef Unpacked16 Bf16, WideBf16;
#endif

// How many rows of A a tile of C vectors can have before its sums no longer fit the registers.
template <int C>
constexpr int MAX_ROWS = C == 1 ? (REGISTERS == 32 ? 16 : 12) : (REGISTERS - C - 1) / C + (REGISTERS == 16 && C == 4);

constexpr int TALLEST = 16;

// A multiplication waits for the one before it in its chain of sums, so a tile with few entries needs company. Products
// forward have it from other panels: each entry is one chain then, in the order of k, and comes out the same whatever
// rows and panels it is made beside. Where panels are few, or long, an entry is the sum of several chains.
constexpr int ENOUGH = 6;
constexpr int chains(int entries) { return entries >= ENOUGH ? 1 : entries >= 3 ? 2 : 4; }
constexpr int panels_at_once(int entries) { return entries >= ENOUGH ? 1 : entries > 3 ? 2 : entries > 1 ? 4 : 8; }

// Where C's vectors lie.
struct Sums {
    float* at;
    long row, vector = LANES, panel = 0;
};

// What a product is added to: C itself, a bias (whose rows are all the same: row = 0), or nothing (null).
struct Start {
    const float* at;
    long row, vector = LANES, panel = 0;
};

// How far ahead of a product B is fetched, in elements. The processor's own prefetcher stops at the end of every page,
// and a panel goes through many.
constexpr long AHEAD = 3072 / sizeof(float);

// One tile: R rows by C vectors of each of Q panels, which lie `apart`; U chains.
template <class P, int R, int C, int Q, int U>
__attribute__((noinline)) void tile(const typename P::Left* a, const Strides& s, const typename P::Right* b, long apart,
                                    const Sums& c, const Start& start) {
    typename P::Sum sum[U][Q][R][C];
    for (int q = 0; q < Q; q++)
        for (int r = 0; r < R; r++)
            for (int j = 0; j < C; j++) {
                // It is needed at the end, and may come from far.
                __builtin_prefetch(c.at + q * c.panel + r * c.row + j * c.vector, 1);
                for (int u = 0; u < U; u++) sum[u][q][r][j] = typename P::Sum{};
            }
    Vec total[Q][R][C] = {};
    const auto drain = [&] {
        if constexpr (P::DRAINED > 0)
#pragma GCC unroll 8
            for (int i = 0; i < U * Q; i++)
#pragma GCC unroll 16
                for (int r = 0; r < R; r++)
#pragma GCC unroll 4
                    for (int j = 0; j < C; j++) total[i % Q][r][j] += P::drain(sum[i / Q][i % Q][r][j]);
    };
    const long row = s.row, k = s.k;
    int until = P::DRAINED;  // so many steps go into the sums as they are
    for (int segment = 0; segment < s.segments; segment++) {
        const typename P::Left* p = a + segment * s.segment;
        if (s.segments > 1)
#pragma GCC unroll 16
            for (int r = 0; r < R; r++) __builtin_prefetch(p + 2 * s.segment + r * row);
        for (int left = s.length / P::ADVANCE, some; left > 0; left -= some) {
            some = P::DRAINED && until < left ? until : left;
            int steps = some;
            for (; steps >= U; steps -= U) {
#pragma GCC unroll 8
                for (int i = 0; i < U * Q; i++) {
                    const int u = i / Q, q = i % Q;
                    const typename P::Right* at = b + u * C * LANES + q * apart;
                    if (U * Q == 1)  // else B is the bottleneck, and every load counts
                        for (int j = 0; j < C; j++) __builtin_prefetch(at + j * LANES + AHEAD);
                    P::step(sum[u][q], p + u * P::ADVANCE * k, row, k, at);
                }
                p += U * P::ADVANCE * k;
                b += U * C * LANES;
            }
            for (; steps > 0; steps--) {
#pragma GCC unroll 8
                for (int q = 0; q < Q; q++) P::step(sum[0][q], p, row, k, b + q * apart);
                p += P::ADVANCE * k;
                b += C * LANES;
            }
            if (P::DRAINED && (until -= some) == 0) drain(), until = P::DRAINED;
        }
    }
    drain();
    for (int q = 0; q < Q; q++)
        for (int r = 0; r < R; r++)
            for (int j = 0; j < C; j++) {
                Vec v;
                if constexpr (P::DRAINED > 0) {
                    v = total[q][r][j];
                } else {
                    for (int u = 1; u < U; u++) sum[0][q][r][j] += sum[u][q][r][j];
                    v = P::total(sum[0][q][r][j], b + q * apart + j * LANES, C, a + s.length * k + r * row);
                }
                if (P::NARROW && s.scales) v *= s.scales[r];
                if (start.at) v += load(start.at + q * start.panel + r * start.row + j * start.vector);
                store(c.at + q * c.panel + r * c.row + j * c.vector, v);
            }
}

template <class P>
using Tile = void (*)(const typename P::Left*, const Strides&, const typename P::Right*, long, const Sums&,
                      const Start&);

// Of one panel, as several chains, or of Q panels at once, as far as these are not too many for the rows.
template <class P, int Q, bool CHAINS, int C, int R = MAX_ROWS<C>>
Tile<P> tile_of(int rows) {
    if constexpr (R == 0) {
        return nullptr;
    } else {
        constexpr int panels = Q > panels_at_once(R * C) ? 1 : Q, links = CHAINS ? chains(R * C) : 1;
        return rows == R ? tile<P, R, C, panels, links> : tile_of<P, Q, CHAINS, C, R - 1>(rows);
    }
}

template <class P, int Q, bool CHAINS = false>
Tile<P> tile_of(int vectors, int rows) {
    switch (vectors) {
        case 1: return tile_of<P, Q, CHAINS, 1>(rows);
        case 2: return tile_of<P, Q, CHAINS, 2>(rows);
        case 3: return tile_of<P, Q, CHAINS, 3>(rows);
        default: return tile_of<P, Q, CHAINS, 4>(rows);
    }
}

template <class P>
Tile<P> tile_of(int vectors, int rows, long panels) {
    switch (panels) {
        case 1: return tile_of<P, 1>(vectors, rows);
        case 2: return tile_of<P, 2>(vectors, rows);
        case 4: return tile_of<P, 4>(vectors, rows);
        default: return tile_of<P, 8>(vectors, rows);
    }
}

constexpr int max_rows(int vectors) {
    return vectors == 1 ? MAX_ROWS<1> : vectors == 2 ? MAX_ROWS<2> : vectors == 3 ? MAX_ROWS<3> : MAX_ROWS<4>;
}

// Rows cut into tiles that differ by at most one row.
struct Rows {
    int tiles, base, longer;
    Rows(long rows, int most)
        : tiles((int)((rows + most - 1) / most)),
          base(tiles ? (int)(rows / tiles) : 0),
          longer(tiles ? (int)(rows % tiles) : 0) {}
    int first(int tile) const { return tile * base + (tile < longer ? tile : longer); }
    int count(int tile) const { return base + (tile < longer); }
};

// C = start + A B for `rows` rows of A and one panel of `vectors` vectors, of which `columns` columns are to be kept.
template <class P>
void multiply_panel(const typename P::Left* a, const Strides& s, const typename P::Right* b, int vectors, long columns,
                    Sums c, long rows, Start start) {
    const Rows cut(rows, max_rows(vectors));
    for (int i = 0; i < cut.tiles; i++) {
        const int first = cut.first(i), count = cut.count(i);
        const Tile<P> run = tile_of<P, 1, true>(vectors, count);
        const Sums to{c.at + first * c.row, c.row, c.vector};
        const Start from{start.at ? start.at + first * start.row : nullptr, start.row, start.vector};
        if (columns >= vectors * LANES) {
            run(a + first * s.row, s.from(first), b, 0, to, from);
            continue;
        }
        alignas(64) float part[TALLEST * 4 * LANES];  // the last panel: what lies beyond the columns is not C's
        run(a + first * s.row, s.from(first), b, 0, {part, vectors * LANES}, {nullptr, 0});
        for (int r = 0; r < count; r++)
            for (long j = 0; j < columns; j++)
                to.at[r * c.row + j] = (from.at ? from.at[r * from.row + j] : 0.0f) + part[r * vectors * LANES + j];
    }
}

// How many panels are multiplied at once, if there are enough; else half as many, or a quarter.
inline long company(int vectors, long rows) {
    return rows > max_rows(vectors) ? 1 : panels_at_once((int)rows * vectors);
}

// C = start + A B for `rows` rows of A and `panels` panels that lie `apart`, all their columns. An entry does not depend
// on the numbers of rows and panels.
template <class P>
void multiply_panels(const typename P::Left* a, const Strides& s, const typename P::Right* b, long apart, int vectors,
                     long panels, Sums c, long rows, Start start) {
    const Rows cut(rows, max_rows(vectors));
    long at_once = company(vectors, rows);
    for (long panel = 0; panel < panels; panel += at_once) {
        while (at_once > panels - panel) at_once /= 2;
        for (int i = 0; i < cut.tiles; i++) {
            const int first = cut.first(i), count = cut.count(i);
            const float* from = start.at ? start.at + panel * start.panel + first * start.row : nullptr;
            tile_of<P>(vectors, count, at_once)(a + first * s.row, s.from(first), b + panel * apart, apart,
                                                {c.at + panel * c.panel + first * c.row, c.row, c.vector, c.panel},
                                                {from, start.row, start.vector, start.panel});
        }
    }
}

// ---- Packing B: [k][vector][lane], and for pairs [k / 2][vector][lane][k % 2].

INLINE Vec as_floats(const float* from, int count) { return load_part(from, count); }

INLINE Vec as_floats(const uint16_t* from, int count) {
    Half half{};
    memcpy(&half, from, count < LANES ? count * 2 : LANES * 2);
#if defined(__AVX512FP16__)
    return from_half(half);
#else
    return (Vec)(__builtin_convertvector(half, Bits) << 16);
#endif
}

INLINE void put_step(Float32, float* to, Vec first, Vec) { store(to, first); }

template <class P>
INLINE void put_step(P, uint32_t* to, Vec first, Vec second) {
    const Bits pair = paired_bf16(first, second);
    memcpy(to, &pair, sizeof pair);
}

#if defined(__AVX512FP16__)
INLINE void put_step(Half16, uint32_t* to, Vec first, Vec second) { Half16::put_pair(to, first, second); }
#endif

template <class P>
constexpr long panel_size(long depth, int vectors) {
    return ((depth + P::DEPTH - 1) / P::DEPTH + P::TAIL) * vectors * LANES;
}

// Some of the panels of a matrix whose row k is at row_of(k): for B that lies as [k][n]. A null row is zero. Every panel
// has `vectors` vectors of the columns; the last one has zeros behind them, or, if it is `narrow`, is no wider than it must
// be. `scale_of(k)`, where it is not null, is multiplied in, and so is times[k]. A stretch of rows goes to all panels
// before the next one: memory is read row by row, and written a stretch at a time.
template <class P, class RowOf, class ScaleOf>
void pack_rows(RowOf row_of, ScaleOf scale_of, long depth, int vectors, Range panels, long columns, bool narrow,
               typename P::Right* to, const float* times = nullptr) {
    constexpr int AT_ONCE = 16;
    const long apart = panel_size<P>(depth, vectors), wide = vectors * LANES;
    decltype(row_of(0)) rows[AT_ONCE];
    const float* scales[AT_ONCE];
    const auto part = [&](long k, long column) {
        const int i = (int)(k % AT_ONCE);
        const long left = columns - column;
        if (k >= depth || !rows[i] || left <= 0) return Vec{};
        const int count = left > LANES ? LANES : (int)left;
        Vec v = as_floats(rows[i] + column, count);
        if (times) v *= times[k];
        return scales[i] ? v * load_part(scales[i] + column, count) : v;
    };
    for (long first = 0; first < depth; first += AT_ONCE) {
        const long last = first + AT_ONCE < depth ? first + AT_ONCE : depth;
        for (long k = first; k < last; k++) {
            rows[k % AT_ONCE] = row_of(k);
            scales[k % AT_ONCE] = scale_of(k);
        }
        for (long panel = panels.begin; panel < panels.end; panel++) {
            const long begin = panel * wide, end = narrow && begin + wide > columns ? columns : begin + wide;
            typename P::Right* at = to + panel * apart + panel_size<P>(first, (int)((end - begin + LANES - 1) / LANES));
            for (long k = first; k < last; k += P::DEPTH)
                for (long column = begin; column < end; column += LANES, at += LANES)
                    put_step(P(), at, part(k, column), P::DEPTH == 2 ? part(k + 1, column) : Vec{});
        }
    }
}

INLINE const float* unscaled(long) { return nullptr; }

// A panel whose column n is the row at row_of(n): for B that lies as [n][k], as weights do. A null row is zero, and so is
// what lies behind `depth`, up to `filled`. `scale_of(n)`, where it is not null, is multiplied in. Sixteen rows at a time,
// and a panel's vectors apart, are more than the processor fetches ahead by itself.
template <class P, class RowOf, class ScaleOf>
void pack_columns(RowOf row_of, ScaleOf scale_of, long depth, long filled, int vectors, typename P::Right* panel) {
    const long apart = vectors * LANES, ahead = 4 * LANES;
    for (int j = 0; j < vectors; j++) {
        const float *rows[LANES], *scales[LANES];
        for (int lane = 0; lane < LANES; lane++) {
            rows[lane] = row_of(j * LANES + lane);
            scales[lane] = scale_of(j * LANES + lane);
        }
        for (long k0 = 0; k0 < depth; k0 += LANES) {
            const int count = depth - k0 < LANES ? (int)(depth - k0) : LANES;
            typename P::Right* to = panel + k0 / P::DEPTH * apart + j * LANES;
            Vec square[LANES];
#pragma GCC unroll 16
            for (int lane = 0; lane < LANES; lane++) {
                square[lane] = rows[lane] ? load_part(rows[lane] + k0, count) : Vec{};
                if (scales[lane]) square[lane] *= load_part(scales[lane] + k0, count);
                if (rows[lane]) __builtin_prefetch(rows[lane] + k0 + ahead);
            }
            for (int k = 0; k < LANES / P::DEPTH; k++) __builtin_prefetch(to + (ahead / P::DEPTH + k) * apart, 1);
            transpose(square);
            for (int k = 0; k < count; k += P::DEPTH, to += apart)
                put_step(P(), to, square[k], P::DEPTH == 2 ? square[k + 1] : Vec{});
        }
    }
    const long packed = panel_size<P>(depth, vectors);
    memset(panel + packed, 0, (panel_size<P>(filled, vectors) - packed) * sizeof(typename P::Right));
}

// The same in whole numbers, by the largest weight of each column.
template <class RowOf, class ScaleOf>
void pack_whole(RowOf row_of, ScaleOf, long depth, long filled, int vectors, uint32_t* panel) {
    const long size = panel_size<Int8>(filled, vectors), ends = size - Int8::TAIL * vectors * LANES;
    memset(panel, 0, size * sizeof(uint32_t));
    for (int n = 0; n < vectors * LANES; n++) {
        const float* row = row_of(n);
        float largest = 0;
        for (long k = 0; row && k < depth; k++) largest = __builtin_fmaxf(largest, __builtin_fabsf(row[k]));
        const float scale = largest / Int8::LARGEST;
        int32_t sum = 0;
        for (long k = 0; k < depth && largest > 0; k++) {
            const int8_t whole = (int8_t)__builtin_lrintf(row[k] / scale);
            memcpy(reinterpret_cast<char*>(panel + k / 4 * vectors * LANES + n) + k % 4, &whole, 1);
            sum += whole;
        }
        const int32_t shift = 128 * sum;
        memcpy(panel + ends + n, &scale, sizeof scale);
        memcpy(panel + ends + vectors * LANES + n, &shift, sizeof shift);
    }
}

template <class P, class RowOf, class ScaleOf>
void pack_weights_of(RowOf row_of, ScaleOf scale_of, long depth, long filled, int vectors, typename P::Right* panel) {
    if constexpr (P::TAIL > 0)
        pack_whole(row_of, scale_of, depth, filled, vectors, panel);
    else
        pack_columns<P>(row_of, scale_of, depth, filled, vectors, panel);
}

}  // namespace throughtime::LEVEL
