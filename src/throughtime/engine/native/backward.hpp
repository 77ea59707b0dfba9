// Backwards through a window, some steps at a time: their gradients first, then the products that no step waits for, while
// the gradients are still in the cache.
#pragma once

#include "window.hpp"

namespace throughtime::LEVEL {

template <class Cell, class P>
struct Backward : Window<Cell, P> {
    typedef Window<Cell, P> Base;
    typedef typename P::Gradient G;
    typedef typename Base::Operand Operand;
    typedef typename Base::Left Left;
    typedef typename Base::Right Right;
    using Base::l, Base::T, Base::B, Base::D, Base::H, Base::blocks, Base::padded, Base::GATES, Base::GRADIENTS,
        Base::VECTORS;

    static constexpr int PANEL = 2;          // vectors of a panel whose rows are gradients
    static constexpr int WEIGHTS_PANEL = 3;  // vectors of a panel whose rows are units
    static constexpr int WEIGHTS_ROWS = LANES < 8 ? LANES : LANES / 2;
    static constexpr long DEPTH_BLOCK = 512;  // steps of a product for weights that are dealt with at once
    static constexpr int UNIT_BLOCKS = 8;     // likewise blocks of units

    const long U_panels = (blocks + PANEL - 1) / PANEL;
    const long columns = (D + LANES - 1) / LANES, W_panels = (columns + PANEL - 1) / PANEL;
    const long depth = GATES * padded;
    const long inputs = l.ids ? l.vocabulary : Base::rows();  // rows of x
    const long at_once = steps_at_once();  // a power of 2; where lanes end, more steps with no more rows
    const long most_rows = at_once * B < Base::rows() ? at_once * B : Base::rows();
    const long behind = most_rows;  // the place of the step behind those at once, which they still read
    const long kept = most_rows + (most_rows < Base::rows() ? B : 0);
    Ring d_rows{kept, at_once - 1, B};

    Right *W = nullptr, *U = nullptr;
    Operand* d = nullptr;       // [gradient slot][block][row, of those kept][lane]
    float* carry = nullptr;     // [block][b][lane]
    float* vectors = nullptr;   // [block][vector][lane]
    float* sums = nullptr;      // [row group][block][vector][lane]: gradients of the parameters that are vectors
    float* held = nullptr;      // [block][b][lane]: what one part of a step leaves for the next
    float* row_sums = nullptr;  // [unit group][b]: likewise, a row's sums over the units of a group
    float* table = nullptr;     // [gate][block][token][lane]: the gradients of steps with the same input, added
    Operand* din = nullptr;     // [gate][block][token][lane]: as products read the table
    typename G::Left *d_across = nullptr, *din_across = nullptr;  // as the products for weights read d and din
    typename G::Right *x = nullptr, *reads = nullptr;
    // Where numbers are NARROW, every row of d has a scale, a power of 2 that is near the largest gradient to be expected
    // there: that of y, or what the step after it had.
    float* d_scales = nullptr;    // [row]
    float* din_scales = nullptr;  // [row of x]
    float* inverses = nullptr;    // [unit group][b], of the scales of this step
    float* peaks = nullptr;       // [t % 2][unit group][b][lane]: the largest gradients of a step
    float* x_scales = nullptr;    // [row of x]
    float* x_inverses = nullptr;  // [row of x]
    Workspace room;
    Barrier all, groups[MOST_THREADS];

    explicit Backward(const Layer& layer) : Base(layer) {
        Base::saved = l.saved, Base::saved_rows = Base::all_rows();
        Base::read = static_cast<Operand*>(l.read), Base::read_rows = Base::all_rows();
        for (size_t size = 0;;) {
            Arena arena(size ? room.take(size) : nullptr);
            W = arena.template take<Right>(l.dx ? W_panels * panel_size<P>(depth, PANEL) : 0);
            U = arena.template take<Right>(Cell::PRODUCT ? U_panels * panel_size<P>(depth, PANEL) : 0);
            d = arena.template take<Operand>(GRADIENTS * padded * kept);
            carry = arena.template take<float>(blocks * B * LANES);
            vectors = arena.template take<float>(blocks * VECTORS * LANES);
            sums = arena.template take<float>(l.threads * blocks * VECTORS * LANES);
            held = arena.template take<float>(blocks * B * Cell::Steps::HELD * LANES);
            row_sums = arena.template take<float>(l.threads * B * Cell::Steps::ROW_SUMS);
            int64_t* places = arena.template take<int64_t>(l.starts ? T : 0);
            if (size) put_places(l, most_rows, places);
            if (l.starts) d_rows.places = places;
            if (P::NARROW) {
                d_scales = arena.template take<float>(Base::rows());
                din_scales = arena.template take<float>(l.ids ? inputs : 0);
                inverses = arena.template take<float>(l.threads * B);
                peaks = arena.template take<float>(2 * l.threads * B * LANES);
                x_scales = arena.template take<float>(inputs);
                x_inverses = arena.template take<float>(inputs);
            }
            if (l.ids) {
                table = arena.template take<float>(GATES * padded * inputs);
                din = arena.template take<Operand>(GATES * padded * inputs);
            }
            const long input_rows = l.ids ? inputs : most_rows;
            x = arena.template take<typename G::Right>(l.dW ? right_size(input_rows, columns) : 0);
            reads = arena.template take<typename G::Right>(l.dU ? right_size(most_rows, blocks) : 0);
            d_across = across(arena, d, most_rows, GRADIENTS);
            din_across = has_own_rows() ? across(arena, din, input_rows, GATES) : d_across;
            if (size) break;
            size = arena.size();
        }
    }

    // As many as a product for weights deals with at once.
    long steps_at_once() const {
        long steps = 1;
        while (steps < T && 2 * steps * B <= DEPTH_BLOCK * G::DEPTH) steps *= 2;
        return steps;
    }

    // The steps at once that end before step `end`.
    Range steps_until(long end) const {
        long begin = end - 1;
        while (d_rows.first(begin)) begin--;
        return {begin, end};
    }

    long rows_of(Range steps) const { return Base::rows_before(steps.end) - Base::rows_before(steps.begin); }

    // Whether the products for W read other rows than those for U.
    bool has_own_rows() const { return l.ids || P::NARROW; }

    typename G::Left* across(Arena& arena, Operand* from, long rows, int slots) const {
        if constexpr (G::DEPTH == 1)
            return from;
        else
            return arena.template take<typename G::Left>(slots * padded * ((rows + 1) / 2));
    }

    static long right_size(long rows, long vectors) { return panel_size<G>(rows, 1) * vectors; }

    // ---- Weights and activations in the order the products read them.

    // Row k of a weight matrix, in the order of d.
    const float* row_of(const float* weights, const int* gate, long columns, long k) const {
        const long unit = k % padded;
        return weights && unit < H ? weights + (gate[k / padded] * H + unit) * columns : nullptr;
    }

    void pack_weights(int thread, int threads) const {
        if (Cell::PRODUCT)
            pack_rows<P>([&](long k) { return row_of(l.U, Cell::U_GATE, H, k); },
                         [&](long k) { return row_of(l.U_mask, Cell::U_GATE, H, k); }, depth, PANEL,
                         share(U_panels, thread, threads), H, false, U);
        if (l.dx)
            pack_rows<P>([&](long k) { return row_of(l.W, Cell::W_GATE, D, k); }, unscaled, depth, PANEL,
                         share(W_panels, thread, threads), D, false, W);
    }

    static long panels_of(long columns) { return (columns + WEIGHTS_PANEL * LANES - 1) / (WEIGHTS_PANEL * LANES); }

    // The last panel is as wide as it must be.
    static int vectors_of(long panel, long columns) {
        const long left = (columns + LANES - 1) / LANES - panel * WEIGHTS_PANEL;
        return left < WEIGHTS_PANEL ? (int)left : WEIGHTS_PANEL;
    }

    template <class S>
    void pack_activations(const S* from, long row, long rows, long columns, typename G::Right* to, const float* times,
                          int thread, int threads) const {
        const Range mine = share(panels_of(columns), thread, threads);
        pack_rows<G>([&](long k) { return from + k * row; }, unscaled, rows, WEIGHTS_PANEL, mine, columns, true, to,
                     times);
        // Float32 products of bf16 numbers: x comes as it was given, and the forward pass has rounded it.
        if constexpr (G::DEPTH < P::DEPTH)
            for (long panel = mine.begin; panel < mine.end; panel++) {
                float* at = to + panel * panel_size<G>(rows, WEIGHTS_PANEL);
                for (long i = 0; i < panel_size<G>(rows, vectors_of(panel, columns)); i += LANES)
                    store(at + i, round_to_bf16(load(at + i)));
            }
    }

    // Rows of gradients by gates and blocks of units, which lie `apart` rows from one another.
    struct Gradients {
        Operand* at;
        const float* scales;
        long apart;
    };

    Gradients of_steps(long first) const {
        return {d, P::NARROW ? d_scales + Base::rows_before(first) : nullptr, kept};
    }

    Gradients of_tokens() const { return {din, din_scales, inputs}; }

    // Gradients of two rows side by side, for the products that run along the rows: `mine` of the blocks of all slots.
    // Where they are NARROW, rows come under one scale for all, which is returned: that of each is scales[row], and
    // times[row], if it is not null.
    float pair_rows(const Gradients& g, const float* times, long rows, typename G::Left* to, Range mine) const {
        const auto scale_of = [&](long row) { return g.scales[row] * (times ? times[row] : 1.0f); };
        float most = 0;
        for (long row = 0; P::NARROW && row < rows; row++) most = scale_of(row) > most ? scale_of(row) : most;
        const float inverse = 1 / most;
        if constexpr (G::DEPTH == 2)
            for (long i = mine.begin; i < mine.end; i++)
                for (long row = 0; row < rows; row += 2) {
                    const Operand* first = g.at + (i * g.apart + row) * LANES;
                    typename G::Left* at = to + (i * ((rows + 1) / 2) + row / 2) * LANES;
                    const bool two = row + 1 < rows;
                    if constexpr (P::NARROW)
                        put_step(P(), at, as_floats(first, LANES) * (scale_of(row) * inverse),
                                 two ? as_floats(first + LANES, LANES) * (scale_of(row + 1) * inverse) : Vec{});
                    else
                        for (int lane = 0; lane < LANES; lane++)
                            at[lane] = first[lane] | (two ? (uint32_t)first[LANES + lane] << 16 : 0);
                }
        return P::NARROW ? most : 1.0f;
    }

    // ---- Scales, where numbers are NARROW.

    float* peak_at(long t, int unit_group, long b) const {
        return peaks + (((t & 1) * l.threads + unit_group) * B + b) * LANES;
    }

    // Those of the rows of step t, the same for all who share them. A gradient may be 2^16 times its scale.
    void scale_rows(long t, Range rows, int unit_group, int unit_groups) const {
        if constexpr (P::NARROW)
            for (long b = rows.begin; b < rows.end; b++) {
                const bool last = b >= Base::alive(t + 1);
                float most = l.dy ? Base::largest_of(l.dy + Base::row(t, b) * H, H) : 0.0f;
                const auto meet = [&](float other) { most = other > most ? other : most; };
                for (int group = 0; group < unit_groups && !last; group++)
                    meet(largest(load(peak_at(t + 1, group, b))) * __builtin_fabsf(factor(t + 1, b)));
                if (last && l.dhidden) meet(Base::largest_of(l.dhidden + b * H, H));
                if (last && l.dcarried) meet(Base::largest_of(l.dcarried + b * H, H));
                const float scale = power_below(most);
                inverse_at(unit_group, b) = 1 / scale;
                if (unit_group == 0) d_scales[Base::row(t, b)] = scale;
                store(peak_at(t, unit_group, b), Vec{});
            }
    }

    float& inverse_at(int unit_group, long b) const { return inverses[unit_group * B + b]; }

    // What a row of step t has is put into d.
    void put_d(int slot, long block, long t, long b, int unit_group, Vec v) const {
        P::put(d_at(slot, block, t, b), P::NARROW ? v * inverse_at(unit_group, b) : v);
    }

    // What step t hands to the one before it, for the scale there.
    void note_peak(long t, int unit_group, long b, Vec size) const {
        if (P::NARROW) store(peak_at(t, unit_group, b), larger(size, load(peak_at(t, unit_group, b))));
    }

    void scale_inputs(long first, Range rows) const {
        for (long row = first + rows.begin; P::NARROW && l.dW && row < first + rows.end; row++) {
            x_scales[row] = power_below(Base::largest_of(l.x + row * D, D));
            x_inverses[row] = 1 / x_scales[row];
        }
    }

    // ---- Back through time.

    Range blocks_of(Range panels) const { return Base::template blocks_of<PANEL>(panels); }

    Operand* d_in(int slot, long block, long row) const { return d + ((slot * blocks + block) * kept + row) * LANES; }

    Operand* d_at(int slot, long block, long t, long b) const { return d_in(slot, block, d_rows.first(t) + b); }

    // What the step before the first of those at once reads of it, step t, lies behind them.
    void hand_on(long t, Range mine) const {
        for (long i = mine.begin; i < mine.end; i++) {
            const int slot = Cell::RECURRENT + (int)(i / blocks);
            memcpy(d_in(slot, i % blocks, behind), d_in(slot, i % blocks, 0), Base::alive(t) * LANES * sizeof(Operand));
        }
    }

    // A row of gradients: k runs through the blocks of one slot after another.
    static Strides along_gates(long apart, long segments, const float* scales) {
        return {LANES / P::PER_LEFT, 1, apart * LANES / P::PER_LEFT, (int)segments, LANES / P::PER_LEFT, scales};
    }

    // How much of the gradient passes from step t to the state before it.
    float factor(long t, long b) const { return Base::fresh(t, b) ? 0.0f : l.flow ? l.flow[Base::row(t, b)] : 1.0f; }

    // The gradient that reaches the state before step t, for rows and the panel's units: [row][PANEL * LANES].
    void through_step(long panel, long t, long first, int rows, float* to) const {
        const long place = d_rows.first(t), at = t > 0 && place == 0 ? behind : place;
        const Left* a = reinterpret_cast<const Left*>(d_in(Cell::RECURRENT, 0, at + first));
        const float* scales = P::NARROW ? d_scales + Base::row(t, first) : nullptr;
        multiply_panel<P>(a, along_gates(kept, GATES * blocks, scales), U + panel * panel_size<P>(depth, PANEL), PANEL,
                          PANEL * LANES, {to, PANEL * LANES}, rows, {nullptr, 0});
        if (!l.fresh && !l.flow && !l.state_mask) return;
        for (int r = 0; r < rows; r++)
            for (int j = 0; j < PANEL; j++) {
                const long block = panel * PANEL + j;
                Vec v = load(to + (r * PANEL + j) * LANES) * factor(t, first + r);
                if (l.state_mask && block < blocks)
                    v *= load_part(l.state_mask + (first + r) * H + block * LANES, Base::valid(block));
                store(to + (r * PANEL + j) * LANES, v);
            }
    }

    // What the state after step t + 1 hands down unit by unit, as far as it passes to step t. At a lane's last step it is
    // the gradient of the state that the window returns.
    Vec carried(long block, long t, long b) const {
        if (b < Base::alive(t + 1)) return load(carry + (block * B + b) * LANES) * factor(t + 1, b);
        return l.dcarried ? load_part(l.dcarried + b * H + block * LANES, Base::valid(block)) : Vec{};
    }

    // The gradient of y at step t, beside what comes back through the steps after it.
    Vec given(long block, long t, long b) const {
        return l.dy ? load_part(l.dy + Base::row(t, b) * H + block * LANES, Base::valid(block)) : Vec{};
    }

    // Calls use(block, first row, rows, gradients of the output) for tiles of a panel's units; the gradients come back
    // from step t + 1 and lie PANEL * LANES apart. At a lane's last step they are those of the state that the window returns.
    template <class Use>
    void arrivals(long panel, long t, Range rows, Use use) const {
        long middle = Base::alive(t + 1);
        middle = middle < rows.begin ? rows.begin : middle < rows.end ? middle : rows.end;
        arrive(panel, t, {rows.begin, middle}, false, use);
        arrive(panel, t, {middle, rows.end}, true, use);
    }

    template <class Use>
    void arrive(long panel, long t, Range rows, bool last, Use use) const {
        const Rows cut(rows.size(), max_rows(PANEL));
        for (int i = 0; i < cut.tiles; i++) {
            const long first = rows.begin + cut.first(i);
            const int count = cut.count(i);
            alignas(64) float arriving[TALLEST * PANEL * LANES];
            if (last)
                last_gradient(panel, first, count, arriving);
            else if (Cell::PRODUCT)
                through_step(panel, t + 1, first, count, arriving);
            else
                memset(arriving, 0, sizeof arriving);
            const Range its = blocks_of({panel, panel + 1});
            for (long block = its.begin; block < its.end; block++)
                use(block, first, count, arriving + (block - panel * PANEL) * LANES);
        }
    }

    void before_the_window(long panel, Range rows) const {
        arrivals(panel, -1, rows, [&](long block, long first, int count, const float* arriving) {
            for (int r = 0; r < count; r++) {
                const long b = first + r, at = b * H + block * LANES;
                const Vec c = carried(block, -1, b), dh = load(arriving + r * PANEL * LANES);
                if (l.dhidden0) store_part(l.dhidden0 + at, Cell::CARRIES_HIDDEN ? dh + c : dh, Base::valid(block));
                if (l.dcarried0 && !Cell::CARRIES_HIDDEN) store_part(l.dcarried0 + at, c, Base::valid(block));
            }
        });
    }

    void last_gradient(long panel, long first, int rows, float* to) const {
        for (int r = 0; r < rows; r++)
            for (int j = 0; j < PANEL; j++) {
                const long block = panel * PANEL + j;
                const bool there = l.dhidden && block < blocks;
                store(to + (r * PANEL + j) * LANES,
                      there ? load_part(l.dhidden + (first + r) * H + block * LANES, Base::valid(block)) : Vec{});
            }
    }

    // ---- The products without recurrence.

    // `mine`, here and below, are of the blocks of all slots.
    void clear_table(Range mine) const {
        memset(table + mine.begin * inputs * LANES, 0, mine.size() * inputs * LANES * sizeof(float));
    }

    void add_to_table(Range steps, Range mine) const {
        for (long i = mine.begin; i < mine.end; i++)
            for (long row = Base::rows_before(steps.begin); row < Base::rows_before(steps.end); row++) {
                float* sum = table + (i * inputs + l.ids[row]) * LANES;
                const Vec part = as_floats(d + (i * kept + row - Base::rows_before(steps.begin)) * LANES, LANES);
                store(sum, load(sum) + (P::NARROW ? part * d_scales[row] : part));
            }
    }

    void put_table(Range mine) const {
        // No sum is larger than all its parts at their largest; few are near that.
        const float scale =
            P::NARROW ? Base::largest_of(d_scales, Base::rows()) * power_below((float)Base::rows()) / 64 : 1.0f;
        const float inverse = 1 / scale;
        for (long token = 0; P::NARROW && mine.begin == 0 && token < inputs; token++) din_scales[token] = scale;
        for (long i = mine.begin * inputs; i < mine.end * inputs; i++)
            P::put(din + i * LANES, load(table + i * LANES) * inverse);
    }

    // For `rows` of x; the gradients' rows start with row `first` of it.
    void input_gradient(const Gradients& g, long first, Range rows) const {
        const long most_rows = 64, most_blocks = 1024 / LANES;  // whose gradients stay in the cache
        for (long i = 0; i < GATES * blocks; i += most_blocks)
            for (long row = rows.begin; row < rows.end; row += most_rows)
                for (long panel = 0; panel < W_panels; panel++) {
                    const long left = rows.end - row, column = panel * PANEL * LANES, behind = GATES * blocks - i;
                    const Strides s = along_gates(g.apart, behind < most_blocks ? behind : most_blocks,
                                                  P::NARROW ? g.scales + row : nullptr);
                    float* to = l.dx + (first + row) * D + column;
                    multiply_panel<P>(reinterpret_cast<const Left*>(g.at + (i * g.apart + row) * LANES), s,
                                      W + panel * panel_size<P>(depth, PANEL) + panel_size<P>(i * LANES, PANEL), PANEL,
                                      D - column, {to, D}, left < most_rows ? left : most_rows, {i ? to : nullptr, D});
                }
    }

    // Steps of a product for weights from one block of its gradients to the next.
    static long steps_apart(const Gradients& g, long rows) { return G::DEPTH == 1 ? g.apart : (rows + 1) / 2; }

    // The gradient of a weight matrix, from gradients and packed activations; `scale` is that of both. `more`: it is
    // added to what is there.
    void weight_gradient(const typename G::Left* across, long apart, const int* gates, long rows,
                         const typename G::Right* right, long columns, float* to, float scale, bool more,
                         Range mine) const {
        const long steps = (rows + G::DEPTH - 1) / G::DEPTH;
        float scales[WEIGHTS_ROWS];
        for (float& each : scales) each = scale;
        for (long k = 0; k < steps; k += DEPTH_BLOCK) {
            const long length = steps - k < DEPTH_BLOCK ? steps - k : DEPTH_BLOCK;
            const Strides s{1, LANES, 0, 1, (int)length, scales};
            for (long group = mine.begin; group < mine.end; group += UNIT_BLOCKS)
                for (long panel = 0; panel < panels_of(columns); panel++) {
                    const int vectors = vectors_of(panel, columns);
                    const long column = panel * WEIGHTS_PANEL * LANES;
                    const typename G::Right* b =
                        right + panel * panel_size<G>(rows, WEIGHTS_PANEL) + k * vectors * LANES;
                    for (long i = group; i < group + UNIT_BLOCKS && i < mine.end; i++)
                        for (int lane = 0; lane < Base::valid(i % blocks); lane += WEIGHTS_ROWS) {
                            const int left = Base::valid(i % blocks) - lane;
                            const long row = gates[i / blocks] * H + i % blocks * LANES + lane;
                            float* c = to + row * columns + column;
                            multiply_panel<G>(across + (i * apart + k) * LANES + lane, s, b, vectors, columns - column,
                                              {c, columns}, left < WEIGHTS_ROWS ? left : WEIGHTS_ROWS,
                                              {k || more ? c : nullptr, columns});
                        }
                }
        }
    }

    // What the products for W read beside the gradients; for rows of x from `first`. Returns the scale of both.
    float arrange_inputs(const Gradients& g, long first, long rows, int thread, int threads) const {
        if (!l.dW) return 1.0f;
        pack_activations(l.x + first * D, D, rows, D, x, P::NARROW ? x_inverses + first : nullptr, thread, threads);
        if (G::DEPTH == 1 || !has_own_rows()) return 1.0f;
        const float* scales = P::NARROW ? x_scales + first : nullptr;
        return pair_rows(g, scales, rows, din_across, share(GATES * blocks, thread, threads));
    }

    void multiply_inputs(const Gradients& g, long first, long rows, float scale, bool more, int thread,
                         int threads) const {
        if (l.dx) input_gradient(g, first, share(rows, thread, threads));
        if (l.dW)
            weight_gradient(din_across, steps_apart(g, rows), Cell::W_GATE, rows, x, D, l.dW, scale, more,
                            share(GATES * blocks, thread, threads));
    }

    // Likewise for U.
    float arrange_states(const Gradients& g, Range steps, int thread, int threads) const {
        const long rows = rows_of(steps);
        if (l.dU)
            pack_activations(Base::read_at(steps.begin, 0), Base::read_row, rows, H, reads, nullptr, thread, threads);
        if (G::DEPTH == 1 || (has_own_rows() && !l.dU)) return 1.0f;
        const Range slots = has_own_rows() ? Range{Cell::RECURRENT * blocks, (Cell::RECURRENT + GATES) * blocks}
                                           : Range{0, GRADIENTS * blocks};
        const Range some = share(slots.size(), thread, threads);
        return pair_rows(g, nullptr, rows, d_across, {slots.begin + some.begin, slots.begin + some.end});
    }

    void multiply_states(const Gradients& g, Range steps, float scale, int thread, int threads) const {
        if (!l.dU) return;
        const long rows = rows_of(steps), apart = steps_apart(g, rows);
        weight_gradient(d_across + Cell::RECURRENT * blocks * apart * LANES, apart, Cell::U_GATE, rows, reads, H, l.dU,
                        scale, steps.end < T, share(GATES * blocks, thread, threads));
    }

    void finish_U(Range mine) const {
        if (!l.dU || !l.U_mask) return;
        for (long i = mine.begin; i < mine.end; i++)
            for (int lane = 0; lane < Base::valid(i % blocks); lane++) {
                const long row = (Cell::U_GATE[i / blocks] * H + i % blocks * LANES + lane) * H;
                for (long k = 0; k < H; k++) l.dU[row + k] *= l.U_mask[row + k];
            }
    }

    void add_sums(int row_groups, Range mine) const {
        for (long block = mine.begin; block < mine.end; block++)
            for (int j = 0; j < VECTORS; j++) {
                Vec sum{};
                for (int group = 0; group < row_groups; group++)
                    sum += load(sums + ((group * blocks + block) * VECTORS + j) * LANES);
                store_part(l.dvectors + Cell::VECTOR[j] * H + block * LANES, sum, Base::valid(block));
            }
    }

    void run(int thread, int threads) {
        const Grid grid = Base::grid(threads, U_panels, panel_size<P>(depth, PANEL));
        const int row_group = thread / grid.unit_groups, unit_group = thread % grid.unit_groups;
        const Range mine = share(U_panels, unit_group, grid.unit_groups);
        const Range gate_rows = share(GATES * blocks, thread, threads), mine_blocks = blocks_of(mine);
        const bool tokens = l.ids && (l.dx || l.dW);
        float* my_sums = sums + row_group * blocks * VECTORS * LANES;

        pack_weights(thread, threads);
        Base::pack_vectors(vectors, share(blocks, thread, threads));
        for (long block = mine_blocks.begin; block < mine_blocks.end; block++)
            memset(my_sums + block * VECTORS * LANES, 0, VECTORS * LANES * sizeof(float));
        if (tokens) clear_table(gate_rows), scale_inputs(0, share(inputs, thread, threads));
        Range steps = steps_until(T);
        if (!l.ids) scale_inputs(Base::rows_before(steps.begin), share(rows_of(steps), thread, threads));
        wait(all, threads);
        const auto sync = [&] { Base::meet(groups[row_group], grid.unit_groups, all, threads); };
        const auto lanes = [&](long t) { return Base::lanes_of(t, row_group, grid.row_groups); };
        for (;; steps = steps_until(steps.begin)) {
            for (long t = steps.end - 1; t >= steps.begin; t--)
                Cell::Steps::backward(*this, t, lanes(t), mine, my_sums, unit_group, grid.unit_groups, sync);
            if (steps.begin == 0 && (l.dhidden0 || l.dcarried0))
                for (long panel = mine.begin; panel < mine.end; panel++) before_the_window(panel, lanes(0));
            wait(all, threads);
            const Gradients g = of_steps(steps.begin);
            const long first = Base::rows_before(steps.begin), count = rows_of(steps);
            const float U_scale = arrange_states(g, steps, thread, threads);
            const float W_scale = l.ids ? 1.0f : arrange_inputs(g, first, count, thread, threads);
            if (tokens) add_to_table(steps, gate_rows);
            wait(all, threads);
            multiply_states(g, steps, U_scale, thread, threads);
            if (!l.ids) multiply_inputs(g, first, count, W_scale, steps.end < T, thread, threads);
            if (steps.begin == 0) break;
            if (Cell::PRODUCT) hand_on(steps.begin, gate_rows);
            const Range before = steps_until(steps.begin);
            if (!l.ids) scale_inputs(Base::rows_before(before.begin), share(rows_of(before), thread, threads));
            wait(all, threads);
        }
        finish_U(gate_rows);
        if (tokens) {
            put_table(gate_rows);
            wait(all, threads);
            const float scale = arrange_inputs(of_tokens(), 0, inputs, thread, threads);
            wait(all, threads);
            multiply_inputs(of_tokens(), 0, inputs, scale, false, thread, threads);
        }
        if (l.dvectors) add_sums(grid.row_groups, share(blocks, thread, threads));
    }

    static void call(const Layer& layer) {
        Backward backward(layer);
        in_parallel(
            layer.threads < MOST_THREADS ? layer.threads : MOST_THREADS,
            [](void* self, int thread, int threads) { static_cast<Backward*>(self)->run(thread, threads); }, &backward);
    }
};

}  // namespace throughtime::LEVEL
