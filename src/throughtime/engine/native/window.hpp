// A whole window of a recurrent layer, forwards and backwards, for any cell.
//
// Units are dealt with in blocks of LANES. What is saved of a step lies as [block][t][b][slot][lane], so that a tile of
// rows of a block is one stretch: the products add into it, and the cell turns the sums into gates where they lie.
//
// A cell says which slots it has and which of them the products reach:
//     SLOTS                  vectors saved for a step of a unit block
//     GATES                  blocks of rows in W, and in U if it has one
//     RECURRENT              the first of the GATES slots that U h is added to; W x is added to the first GATES of all
//     W_GATE, U_GATE         which block of rows of the matrix each of those slots is
//     CARRIED                the slot that the next step takes over; CARRIES_HIDDEN: it is the output too
//     PRODUCT                whether there is a product with the state, U h
//     GRADIENTS              vectors of gradient for a step, in the order of the slots
//     VECTORS                the parameters that are vectors of H; VECTOR: which of them is the first, the second, ...
//     STARTS                 slots that start as the vectors of the same place, before products are added: biases
//     STATISTICS             numbers saved for a row of a step
//     Steps                  how a step is taken: unit by unit (unitwise.hpp) or with sums over the row (rowwise.hpp)
#pragma once

#include "kernels.hpp"
#include "memory.hpp"
#include "product.hpp"
#include "team.hpp"

namespace throughtime::LEVEL {

constexpr long LINE = 64, PAGE = 4096;
// Of a thread's inputs to the gates that are made ahead (they stay in its cache); of its cache that weights may fill.
constexpr long CHUNK_BYTES = 512 << 10, CACHE_BYTES = 1 << 20;
constexpr int MOST_THREADS = 64;

// Memory handed out in a row. The first pass only counts.
class Arena {
    uintptr_t base;
    size_t used = 0;

 public:
    explicit Arena(void* memory) : base(reinterpret_cast<uintptr_t>(memory)) {}
    size_t size() const { return used; }
    template <class T>
    T* take(long count) {
        T* at = reinterpret_cast<T*>(base + used);
        used += (count * sizeof(T) + LINE - 1) / LINE * LINE;
        return at;
    }
};

// Rows that there is room for: those of all steps, or of so few steps, a power of 2, that later ones take the place of
// those before them. (What is left of a division by another number would take as long as a gate.)
struct Ring {
    long rows = 0, mask = 0, lanes = 0;
    const int64_t* places = nullptr;  // [T], of each step's first row; null: steps have `lanes` rows each
    static Ring of(long steps, long lanes) { return {steps * lanes, steps - 1, lanes}; }
    long first(long t) const { return places ? places[t] : (t & mask) * lanes; }
};

// The place of each step's first row where lanes are unequal and at most `most` rows are kept: steps form chunks of at
// most that many rows, or of one step, and each chunk takes the place of the one before it.
INLINE void put_places(const Layer& l, long most, int64_t* places) {
    for (long t = 0, begin = 0; l.starts && t < l.steps; t++) {
        if (l.starts[t + 1] - l.starts[begin] > most) begin = t;
        places[t] = l.starts[t] - l.starts[begin];
    }
}

// Threads stand in a grid: groups that share the rows of the batch, and in each those that share the units. Groups
// never wait for one another. Sharing units costs a barrier a step, but each thread has only its part of the weights
// to read.
struct Grid {
    int row_groups, unit_groups;

    static Grid of(int threads, long rows, long blocks, long weight_bytes) {
        int units = 1;
        while (units < threads &&
               (threads % units || blocks < units || weight_bytes / units > CACHE_BYTES || rows * units < 8L * threads))
            units++;
        return {threads / units, units};
    }
};

template <class Cell, class P>
struct Window {
    typedef typename P::Operand Operand;
    typedef typename P::Left Left;
    typedef typename P::Right Right;

    static constexpr int SLOTS = Cell::SLOTS, GATES = Cell::GATES, GRADIENTS = Cell::GRADIENTS;
    static constexpr int VECTORS = Cell::VECTORS;

    const Layer& l;
    const long T = l.steps, B = l.lanes, D = l.inputs, H = l.units;
    const long blocks = (H + LANES - 1) / LANES;
    const long padded = blocks * LANES;
    const long read_row = padded + LINE / sizeof(Operand);  // an odd number of lines: rows fall into different sets
    // x is multiplied as it lies, unless it has to be rounded or its rows are a multiple of a page apart: then a tile's
    // rows would fall into the same cache set, which holds fewer.
    const bool copies_x = P::DEPTH > 1 || D % (PAGE / (long)sizeof(float)) == 0;
    const long x_depth = (D + P::DEPTH - 1) / P::DEPTH * P::DEPTH;
    const long x_row = x_depth + (copies_x ? LINE / (long)sizeof(Operand) : 0);
    float* saved = nullptr;
    Ring saved_rows;
    Operand* read = nullptr;
    Ring read_rows;

    explicit Window(const Layer& layer) : l(layer) {}

    static Sizes sizes(const Layer& layer) {
        const Window w(layer);
        return {(w.blocks * SLOTS * LANES + Cell::STATISTICS) * w.rows() * sizeof(float),
                Cell::PRODUCT ? w.rows() * w.read_row * sizeof(Operand) : 0};
    }

    // ---- Rows: a step of a lane.

    long rows_before(long t) const { return l.starts ? l.starts[t] : t * B; }
    long rows() const { return rows_before(T); }
    long row(long t, long b) const { return rows_before(t) + b; }

    // How many lanes have a step t: the first ones.
    long alive(long t) const { return t >= T ? 0 : l.starts ? l.starts[t + 1] - l.starts[t] : B; }

    Ring all_rows() const { return {rows(), -1, B, l.starts}; }

    // The lanes of step t that one of `groups` groups of threads computes. As lanes end, the others move between groups,
    // so that no group is left with the long ones.
    Range lanes_of(long t, int group, int groups) const { return share(alive(t), group, groups); }

    // Waits for the threads of a group, which share lanes; for all threads, where lanes move between groups.
    void meet(Barrier& group, int members, Barrier& all, int threads) const {
        if (l.starts)
            wait(all, threads);
        else
            wait(group, members);
    }

    // Without a product with the state units have no barrier to share, so they are shared where panels are many enough
    // that nobody waits long for the last one.
    Grid grid(int threads, long panels, long panel_size) const {
        const bool freely = !Cell::PRODUCT && panels >= 4 * threads;
        return Grid::of(threads, freely ? 0 : (rows() + T - 1) / T, panels, panels * panel_size * (long)sizeof(Right));
    }

    // The blocks of panels of PANEL blocks each: the last one can have fewer.
    template <int PANEL>
    Range blocks_of(Range panels) const {
        return {panels.begin * PANEL, panels.end * PANEL < blocks ? panels.end * PANEL : blocks};
    }

    int valid(long block) const { return block * LANES + LANES <= H ? LANES : (int)(H - block * LANES); }

    float* saved_at(long block, long t, long b) const {
        return saved + (block * saved_rows.rows + saved_rows.first(t) + b) * SLOTS * LANES;
    }

    // What is saved of a row beside its units.
    float* statistics_at(long t, long b) const {
        return saved + blocks * saved_rows.rows * SLOTS * LANES + (saved_rows.first(t) + b) * Cell::STATISTICS;
    }

    Operand* read_at(long t, long b) const { return read + (read_rows.first(t) + b) * read_row; }

    bool fresh(long t, long b) const { return l.fresh && l.fresh[row(t, b)]; }

    // The carried vector that step t takes over.
    Vec before(long block, long t, long b) const {
        if (fresh(t, b)) return Vec{};
        if (t == 0) return l.carried0 ? load_part(l.carried0 + b * H + block * LANES, valid(block)) : Vec{};
        return load(saved_at(block, t - 1, b) + Cell::CARRIED * LANES);
    }

    // What the product of step t reads of unit block `block`, given the output of the step before.
    void put_read(long block, long t, long b, Vec y) const {
        if (fresh(t, b)) y = Vec{};
        if (l.state_mask) y *= load_part(l.state_mask + b * H + block * LANES, valid(block));
        P::put(read_at(t, b) + block * LANES, y);
    }

    // The parameters that are vectors, in the order of the slots.
    void pack_vectors(float* to, Range mine) const {
        for (long block = mine.begin; block < mine.end; block++)
            for (int j = 0; j < VECTORS; j++)
                store(to + (block * VECTORS + j) * LANES,
                      load_part(l.vectors + Cell::VECTOR[j] * H + block * LANES, valid(block)));
    }

    // `scales`: what the numbers of each row are to be multiplied by; only where they are NARROW.
    void copy_x(Operand* room, float* scales, Range rows) const {
        for (long row = rows.begin; row < rows.end; row++) {
            const float most = P::SCALED || P::NARROW ? largest_of(l.x + row * D, D) : 1.0f;
            const float scale = P::NARROW ? power_below(most) : most > 0 ? most : 1.0f, inverse = 1 / scale;
            if (P::NARROW) scales[row] = scale;
            long d = 0;
            for (; d + LANES <= D; d += LANES) P::put(room + row * x_row + d, load(l.x + row * D + d) * inverse);
            if (d < x_depth) {
                alignas(64) Operand part[LANES];
                P::put(part, load_part(l.x + row * D + d, (int)(D - d)) * inverse);
                memcpy(room + row * x_row + d, part, (x_depth - d) * sizeof(Operand));
            }
            if (P::SCALED) end_row(room + row * x_row + x_depth, x_row - x_depth, scale);
        }
    }

    // The size of the largest of so many numbers.
    static float largest_of(const float* row, long count) {
        Vec even{}, odd{};
        long i = 0;
        for (; i + 2 * LANES <= count; i += 2 * LANES) {
            even = larger(magnitude(load(row + i)), even);
            odd = larger(magnitude(load(row + i + LANES)), odd);
        }
        for (; i < count; i += LANES)
            even = larger(magnitude(load_part(row + i, (int)(count - i < LANES ? count - i : LANES))), even);
        return largest(larger(even, odd));
    }

    // What stands behind a row: where it is one of whole numbers, what 1 of them counts.
    static void end_row(Operand* end, long room, float scale) {
        memset(end, 0, room * sizeof(Operand));
        scale /= P::LARGEST;
        if (P::SCALED) memcpy(end, &scale, sizeof scale);
    }
};

}  // namespace throughtime::LEVEL
