// Forwards through a window: inputs are projected some steps ahead, then step follows step.
#pragma once

#include "window.hpp"

namespace throughtime::LEVEL {

template <class Cell, class P>
struct Forward : Window<Cell, P> {
    typedef Window<Cell, P> Base;
    typedef typename Base::Operand Operand;
    typedef typename Base::Left Left;
    typedef typename Base::Right Right;
    using Base::l, Base::T, Base::B, Base::D, Base::H, Base::blocks, Base::padded, Base::SLOTS, Base::GATES,
        Base::VECTORS;

    static constexpr int PANEL = GATES == 1 ? 2 : 1;  // blocks of units whose gates are multiplied together
    static constexpr int WIDTH = PANEL * GATES;       // vectors of that

    const long panels = (blocks + PANEL - 1) / PANEL;
    Right *W = nullptr, *U = nullptr;
    float* vectors = nullptr;  // [block][vector][lane]
    Operand* x = nullptr;
    float* x_scales = nullptr;
    float* table = nullptr;  // [block][token][gate][lane]: the input's part of the gates, where the inputs are tokens
    long chunk = 1;          // steps whose inputs are projected at once; where lanes end, more steps with no more rows
    int64_t* places = nullptr;  // there, the place of each step's first row in its chunk
    long W_panel, U_panel;
    Workspace room;
    Barrier all, groups[MOST_THREADS];

    explicit Forward(const Layer& layer) : Base(layer) {
        W_panel = panel_size<P>(Base::x_depth, WIDTH);
        U_panel = panel_size<P>(padded, WIDTH);
        chunk = CHUNK_BYTES * l.threads / (B * blocks * SLOTS * LANES * (long)sizeof(float));
        if (chunk * B < 64) chunk = (64 + B - 1) / B;
        if (chunk > T) chunk = T;
        while (!l.saved && chunk < T && chunk & (chunk - 1)) chunk &= chunk - 1;  // a power of 2
    }

    // What is made of the parameters alone. A table needs no weights beside it.
    void take_packed(Arena& arena) {
        if (!l.vocabulary) W = arena.template take<Right>(panels * W_panel);
        U = arena.template take<Right>(Cell::PRODUCT ? panels * U_panel : 0);
        vectors = arena.template take<float>(blocks * VECTORS * LANES);
        table = l.vocabulary ? arena.template take<float>(blocks * l.vocabulary * GATES * LANES) : nullptr;
    }

    void take_x(Arena& arena, long rows) {
        x = arena.template take<Operand>(Base::copies_x ? rows * Base::x_row : 0);
        x_scales = P::NARROW ? arena.template take<float>(rows) : nullptr;
    }

    // What takes part in making that, and can be forgotten then.
    void take_to_pack(Arena& arena) {
        if (l.vocabulary) W = arena.template take<Right>(panels * W_panel);
        if (l.vocabulary) take_x(arena, l.vocabulary);
    }

    void take_for_steps(Arena& arena) {
        if (!l.vocabulary) take_x(arena, Base::rows());
        places = arena.template take<int64_t>(l.starts ? T : 0);
        const bool all = l.saved || (chunk == T && !l.vocabulary);
        Base::saved_rows = all ? Base::all_rows() : Ring::of(l.vocabulary ? 1 : chunk, B);
        if (!all && l.starts) Base::saved_rows.places = places;
        Base::read_rows = l.read ? Base::all_rows() : Ring::of(2, B);
        Base::saved =
            l.saved ? l.saved
                    : arena.template take<float>(Base::saved_rows.rows * (blocks * SLOTS * LANES + Cell::STATISTICS));
        Base::read = l.read ? static_cast<Operand*>(l.read)
                            : arena.template take<Operand>(Base::read_rows.rows * Base::read_row);
    }

    // Memory of this thread for what `take` takes.
    template <class Take>
    void scratch(Take take) {
        Arena counted(nullptr);
        take(counted);
        Arena arena(room.take(counted.size()));
        take(arena);
    }

    Range blocks_of(Range panels) const { return Base::template blocks_of<PANEL>(panels); }

    // How many vectors a panel has: the last one can be narrower.
    int width(long panel) const { return (int)blocks_of({panel, panel + 1}).size() * GATES; }

    // Column n of a panel is a row of the weights.
    const float* row_of(const float* weights, const int* gate, long columns, long panel, int n) const {
        const long vector = n / LANES, unit = (panel * PANEL + vector / GATES) * LANES + n % LANES;
        return weights && unit < H ? weights + (gate[vector % GATES] * H + unit) * columns : nullptr;
    }

    void pack(Range mine) const {
        Base::pack_vectors(vectors, blocks_of(mine));
        for (long panel = mine.begin; panel < mine.end; panel++) {
            pack_weights_of<P>([&](int n) { return row_of(l.W, Cell::W_GATE, D, panel, n); }, unscaled, D,
                               Base::x_depth, width(panel), W + panel * W_panel);
            if (!Cell::PRODUCT) continue;
            pack_weights_of<P>([&](int n) { return row_of(l.U, Cell::U_GATE, H, panel, n); },
                               [&](int n) { return row_of(l.U_mask, Cell::U_GATE, H, panel, n); }, H, padded,
                               width(panel), U + panel * U_panel);
        }
    }

    void first_reads(int thread, int threads) const {
        const Range lanes = share(B, thread, threads), rows = share(Base::read_rows.rows, thread, threads);
        for (long b = lanes.begin; b < lanes.end; b++)
            for (long block = 0; block < blocks; block++)
                Base::put_read(block, 0, b, load_part(l.hidden0 + b * H + block * LANES, Base::valid(block)));
        for (long row = rows.begin; row < rows.end; row++)  // the gap between rows is stored too
            Base::end_row(Base::read + row * Base::read_row + padded, Base::read_row - padded, 1.0f);
    }

    const Left* x_at(long row) const {
        const void* from = Base::copies_x ? (const void*)(x + row * Base::x_row) : (const void*)(l.x + row * D);
        return static_cast<const Left*>(from);
    }

    // The packed weights, and the table made with them.
    void make_packed(int thread, int threads) {
        const Range mine = share(panels, thread, threads);
        pack(mine);
        if (!table) return;
        if (Base::copies_x) Base::copy_x(x, x_scales, share(l.vocabulary, thread, threads));
        wait(all, threads);
        const long entry = GATES * LANES, apart = l.vocabulary * entry;
        for (long panel = mine.begin; panel < mine.end; panel++)
            project({panel, panel + 1}, 0, l.vocabulary, table + panel * PANEL * apart, entry, apart);
    }

    // W x, and the first vectors where the slots start as they do, for `rows` rows of x, into records of `record`
    // floats, those of a block `apart` from those of the next.
    void project(Range mine, long first, long rows, float* to, long record, long apart) const {
        const long row = Base::copies_x ? Base::x_row : D;
        const Strides strides{
            row / P::PER_LEFT, 1, 0, 1, (int)(Base::x_depth / P::PER_LEFT), P::NARROW ? x_scales + first : nullptr};
        const float* start = vectors + mine.begin * PANEL * VECTORS * LANES;
        multiply(mine, x_at(first), strides, W + mine.begin * W_panel, W_panel,
                 {to, record, vector_stride(apart), PANEL * apart}, rows,
                 {Cell::STARTS ? start : nullptr, 0, vector_stride(VECTORS * LANES), PANEL * VECTORS * LANES});
        for (long panel = mine.begin; panel < mine.end; panel++)
            for (int j = WIDTH; j < Cell::STARTS && j * LANES < record; j++)
                for (long i = 0; i < rows; i++)
                    store(to + (panel - mine.begin) * PANEL * apart + i * record + j * LANES,
                          load(vectors + (panel * VECTORS + j) * LANES));
    }

    // The last panel can be narrower.
    void multiply(Range mine, const Left* a, const Strides& s, const Right* weights, long panel_apart, Sums c,
                  long rows, Start start) const {
        const long last = width(mine.end - 1) < WIDTH ? mine.size() - 1 : mine.size();
        multiply_panels<P>(a, s, weights, panel_apart, WIDTH, last, c, rows, start);
        if (last < mine.size())
            multiply_panels<P>(a, s, weights + last * panel_apart, panel_apart, width(mine.end - 1), 1,
                               {c.at + last * c.panel, c.row, c.vector}, rows,
                               {start.at ? start.at + last * start.panel : nullptr, start.row, start.vector});
    }

    // From a panel's vector to the next: the slots of a block lie side by side, blocks lie `apart`.
    static constexpr long vector_stride(long apart) {
        static_assert(PANEL == 1 || GATES == 1);
        return PANEL == 1 ? LANES : apart;
    }

    long apart() const { return Base::saved_at(1, 0, 0) - Base::saved_at(0, 0, 0); }

    // Makes W x of the steps from t until another one: for the lanes `rows`; where lanes are unequal, for so many of the
    // rows of all these steps.
    void project_ahead(long t, long until, Range rows, Range mine) const {
        const bool every_lane = !l.starts && rows.size() == B, in_one = l.starts || every_lane;
        const long count = every_lane ? (until - t) * B : rows.size(), at_once = company(WIDTH, count);
        for (long panel = mine.begin; panel < mine.end; panel += at_once) {
            const Range some{panel, panel + at_once < mine.end ? panel + at_once : mine.end};
            for (long step = t; step < (in_one ? t + 1 : until); step++)
                project(some, Base::row(step, rows.begin), count, Base::saved_at(some.begin * PANEL, step, rows.begin),
                        SLOTS * LANES, apart());
        }
    }

    // Where the chunk of steps ends that begins with t.
    long end_of_chunk(long t) const {
        if (!l.starts) return t + chunk < T ? t + chunk : T;
        for (t++; t < T && places[t];) t++;
        return t;
    }

    void look_up(long t, Range rows, Range mine) const {
        const Range mine_blocks = blocks_of(mine);
        for (long block = mine_blocks.begin; block < mine_blocks.end; block++)
            for (long b = rows.begin; b < rows.end; b++) {
                float* to = Base::saved_at(block, t, b);
                const float* from = table + (block * l.vocabulary + l.ids[Base::row(t, b)]) * GATES * LANES;
                memcpy(to, from, GATES * LANES * sizeof(float));
                for (int j = GATES; j < Cell::STARTS; j++)
                    store(to + j * LANES, load(vectors + (block * VECTORS + j) * LANES));
            }
    }

    // Adds U h to the slots of step t. A window of one step has its W x made here too: what is read of both matrices
    // last is then what the next window finds in the cache.
    void recur(Range mine, long t, Range rows) const {
        if (T == 1 && !table) project_ahead(t, t + 1, rows, mine);
        if (!Cell::PRODUCT) return;
        const Strides strides{Base::read_row / P::PER_LEFT, 1, 0, 1, (int)(padded / P::PER_LEFT)};
        const Left* a = reinterpret_cast<const Left*>(Base::read_at(t, rows.begin));
        float* to = Base::saved_at(mine.begin * PANEL, t, rows.begin) + Cell::RECURRENT * LANES;
        const Sums sums{to, SLOTS * LANES, vector_stride(apart()), PANEL * apart()};
        multiply(mine, a, strides, U + mine.begin * U_panel, U_panel, sums, rows.size(),
                 {Cell::STARTS ? to : nullptr, sums.row, sums.vector, sums.panel});
    }

    // Panels in the order of step t, as many at a time as are multiplied at once.
    template <class Use>
    void in_turn(Range mine, long t, long rows, Use use) const {
        const long at_once = company(WIDTH, rows), turns = (mine.size() + at_once - 1) / at_once;
        for (long i = 0; i < turns; i++) {
            const long begin = mine.begin + Range{0, turns}.back_and_forth(i, t + l.turn) * at_once;
            use(Range{begin, begin + at_once < mine.end ? begin + at_once : mine.end});
        }
    }

    // What a step puts out, and what it hands on beside it; those of a lane's last step are what the window leaves.
    void put_output(long block, long t, long b, Vec y) const {
        const bool last = b >= Base::alive(t + 1);
        store_part(l.y + Base::row(t, b) * H + block * LANES, y, Base::valid(block));
        if (last && l.hidden) store_part(l.hidden + b * H + block * LANES, y, Base::valid(block));
        if (Cell::PRODUCT && !last) Base::put_read(block, t + 1, b, y);
    }

    void put_carried(long block, long t, long b, Vec c) const {
        store(Base::saved_at(block, t, b) + Cell::CARRIED * LANES, c);
        if (l.carried && b >= Base::alive(t + 1)) store_part(l.carried + b * H + block * LANES, c, Base::valid(block));
    }

    void run(int thread, int threads) {
        const Grid grid = Base::grid(threads, panels, U_panel);
        const int row_group = thread / grid.unit_groups, unit_group = thread % grid.unit_groups;
        const Range mine = share(panels, unit_group, grid.unit_groups);

        if (!l.packed) make_packed(thread, threads);
        if (Base::copies_x && !l.vocabulary) Base::copy_x(x, x_scales, share(Base::rows(), thread, threads));
        if (Cell::PRODUCT) first_reads(thread, threads);
        wait(all, threads);
        const auto sync = [&] { Base::meet(groups[row_group], grid.unit_groups, all, threads); };
        for (long t = 0, until = 0; t < T; t++) {
            const Range rows = Base::lanes_of(t, row_group, grid.row_groups);
            if (table) {
                look_up(t, rows, mine);
            } else if (T > 1 && t == until) {
                until = end_of_chunk(t);
                const long ahead = Base::rows_before(until) - Base::rows_before(t);
                project_ahead(t, until, l.starts ? share(ahead, row_group, grid.row_groups) : rows, mine);
                if (l.starts) sync();
            }
            Cell::Steps::forward(*this, t, rows, mine, sync);
        }
    }

    void start(void (*work)(void*, int, int)) {
        in_parallel(l.threads < MOST_THREADS ? l.threads : MOST_THREADS, work, this);
    }

    static void call(const Layer& layer) {
        Forward forward(layer);
        if (layer.packed) {
            Arena arena(layer.packed);
            forward.take_packed(arena);
        }
        forward.scratch([&](Arena& arena) {
            if (!layer.packed) forward.take_packed(arena), forward.take_to_pack(arena);
            forward.take_for_steps(arena);
        });
        put_places(layer, layer.vocabulary && !layer.saved ? forward.B : forward.chunk * forward.B, forward.places);
        forward.start([](void* self, int thread, int threads) { static_cast<Forward*>(self)->run(thread, threads); });
    }

    // ---- Weights packed once, for many calls.

    static size_t packed_size(const Layer& layer) {
        Arena arena(nullptr);
        Forward(layer).take_packed(arena);
        return arena.size();
    }

    static void pack_for_later(const Layer& layer) {
        Forward forward(layer);
        Arena arena(layer.packed);
        forward.take_packed(arena);
        forward.scratch([&](Arena& arena) { forward.take_to_pack(arena); });
        forward.start(
            [](void* self, int thread, int threads) { static_cast<Forward*>(self)->make_packed(thread, threads); });
    }
};

}  // namespace throughtime::LEVEL
