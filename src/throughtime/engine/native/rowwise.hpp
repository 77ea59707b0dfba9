// Steps of cells that normalise over a row: each has parts, between which the threads that share a row's units meet.
#pragma once

#include "backward.hpp"
#include "forward.hpp"

namespace throughtime::LEVEL {

// The mean of a row's entries, and what brings their deviations to variance 1.
struct Moments {
    float mean, scale;

    static constexpr float EPSILON = 1e-5f;  // as in engine/forms.py

    INLINE Vec normal(Vec v) const { return (v - mean) * scale; }

    // The gradient of v, given that of normal(v) and the row's means of it and of its product with normal(v).
    INLINE Vec back(Vec gradient, Vec normal, float mean_gradient, float mean_product) const {
        return (gradient - mean_gradient - normal * mean_product) * scale;
    }
};

// A cell here keeps in a step's record the sums W x and U h as they are: slots X and A of GATES each. It gives
//     carried(x, a, v, before)             what the next step takes over, from normalised x and a and the vectors v
//     output(x, a, v, c)                   the output, where what is carried is normalised too (NORMALISES_CARRIED)
//     through_output(x, a, v, c, dh, ...)  the gradients of that
//     through_gates(x, a, v, before, ...)  the gradients of what is added in the gates from x and from a
struct Rowwise {
    static constexpr int MOST_GATES = 4;
    static constexpr int HELD = 2 * MOST_GATES;
    static constexpr int ROW_SUMS = 7 * LANES;  // the last: what this thread makes of the first two

    // Of so many slots from one on. Two passes: the variance is a sum of squares of what is left after the mean, not a
    // difference of large numbers. Each slot has sums of its own, or every addition would wait for the one before it.
    template <int SLOTS, class Window>
    static Moments moments(const Window& w, long t, long b, int slot) {
        Vec sums[SLOTS] = {}, squares[SLOTS] = {};
        for (long block = 0; block < w.blocks; block++)
            for (int j = 0; j < SLOTS; j++) sums[j] += load(w.saved_at(block, t, b) + (slot + j) * LANES);
        const float mean = sum_of(sums) / (w.H * SLOTS);
        for (long block = 0; block < w.blocks; block++)
            for (int j = 0; j < SLOTS; j++) {
                const Vec v = first_lanes(load(w.saved_at(block, t, b) + (slot + j) * LANES) - mean, w.valid(block));
                squares[j] += v * v;
            }
        return {mean, 1.0f / __builtin_sqrtf(sum_of(squares) / (w.H * SLOTS) + Moments::EPSILON)};
    }

    template <int COUNT>
    static INLINE float sum_of(const Vec (&parts)[COUNT]) {
        Vec total = parts[0];
        for (int j = 1; j < COUNT; j++) total += parts[j];
        return sum(total);
    }

    // A block's normalised slots in a row of step t.
    template <class Cell, class Window>
    struct Normal {
        Vec x[Cell::GATES], a[Cell::GATES];
        Normal(const Window& w, long block, long t, long b, const Moments& of_x, const Moments& of_a) {
            const float* at = w.saved_at(block, t, b);
            for (int j = 0; j < Cell::GATES; j++) {
                x[j] = of_x.normal(load(at + (Cell::X + j) * LANES));
                a[j] = of_a.normal(load(at + (Cell::A + j) * LANES));
            }
        }
    };

    template <class Cell>
    static INLINE void vectors_of(const float* from, long block, Vec* v) {
        for (int j = 0; j < Cell::VECTORS; j++) v[j] = load(from + (block * Cell::VECTORS + j) * LANES);
    }

    template <class Cell>
    static INLINE void put_vectors(float* to, long block, const Vec* v) {
        for (int j = 0; j < Cell::VECTORS; j++) store(to + (block * Cell::VECTORS + j) * LANES, v[j]);
    }

    template <class Cell, class P, class Sync>
    static void forward(const Forward<Cell, P>& pass, long t, Range rows, Range panels, Sync sync) {
        typedef Normal<Cell, Forward<Cell, P>> Normals;
        const Range mine = pass.blocks_of(panels);
        pass.in_turn(panels, t, rows.size(), [&](Range some) { pass.recur(some, t, rows); });
        sync();
        // All who share a row find the same moments; who has its first units writes them down.
        const bool writes = mine.begin == 0 && mine.size() > 0;
        Vec v[Cell::VECTORS];
        for (long b = rows.begin; b < rows.end; b++) {
            const Moments of_x = moments<Cell::GATES>(pass, t, b, Cell::X),
                          of_a = moments<Cell::GATES>(pass, t, b, Cell::A);
            for (long block = mine.begin; block < mine.end; block++) {
                const Normals n(pass, block, t, b, of_x, of_a);
                vectors_of<Cell>(pass.vectors, block, v);
                const Vec c = Cell::carried(n.x, n.a, v, pass.before(block, t, b));
                pass.put_carried(block, t, b, c);
                if (!Cell::NORMALISES_CARRIED) pass.put_output(block, t, b, c);
            }
            if (writes) memcpy(pass.statistics_at(t, b), &of_x, sizeof of_x);
            if (writes) memcpy(pass.statistics_at(t, b) + 2, &of_a, sizeof of_a);
        }
        sync();
        if constexpr (Cell::NORMALISES_CARRIED) {
            for (long b = rows.begin; b < rows.end; b++) {
                Moments of_x, of_a;
                memcpy(&of_x, pass.statistics_at(t, b), sizeof of_x);
                memcpy(&of_a, pass.statistics_at(t, b) + 2, sizeof of_a);
                const Moments of_c = moments<1>(pass, t, b, Cell::CARRIED);
                for (long block = mine.begin; block < mine.end; block++) {
                    const Normals n(pass, block, t, b, of_x, of_a);
                    vectors_of<Cell>(pass.vectors, block, v);
                    const Vec c = of_c.normal(load(pass.saved_at(block, t, b) + Cell::CARRIED * LANES));
                    pass.put_output(block, t, b, Cell::output(n.x, n.a, v, c));
                }
                if (writes) memcpy(pass.statistics_at(t, b) + 4, &of_c, sizeof of_c);
            }
            sync();
        }
    }

    template <class Cell, class P, class Sync>
    static void backward(const Backward<Cell, P>& pass, long t, Range rows, Range mine, float* sums, int unit_group,
                         int unit_groups, Sync sync) {
        typedef Normal<Cell, Backward<Cell, P>> Normals;
        constexpr int GATES = Cell::GATES, APART = pass.PANEL * LANES;
        const auto held = [&](long block, long b, int j) {
            return pass.held + ((block * pass.B + b) * HELD + j) * LANES;
        };
        const auto row_sum = [&](int group, long b, int j) {
            return pass.row_sums + (group * pass.B + b) * ROW_SUMS + j * LANES;
        };
        const auto mean = [&](long b, int j, long entries) {
            float total = 0.0f;
            for (int group = 0; group < unit_groups; group++) total += sum(load(row_sum(group, b, j)));
            return total / entries;
        };
        const auto of = [&](long b, int which) {
            Moments m;
            memcpy(&m, pass.statistics_at(t, b) + 2 * which, sizeof m);
            return m;
        };
        const auto add = [](float* to, Vec v) { store(to, load(to) + v); };
        for (long b = rows.begin; b < rows.end; b++) memset(row_sum(unit_group, b, 0), 0, ROW_SUMS * sizeof(float));
        pass.scale_rows(t, rows, unit_group, unit_groups);

        // From the gradient of what is carried to those of the gates' sums, x and a each; `s` are sums of a block.
        const auto gates = [&](long block, long b, const Vec* v, Vec dc, const Vec* from_output, Vec* s) {
            const Normals n(pass, block, t, b, of(b, 0), of(b, 1));
            Vec dx[GATES], da[GATES], carry;
            Cell::through_gates(n.x, n.a, v, pass.before(block, t, b), dc, from_output, carry, dx, da);
            store(pass.carry + (block * pass.B + b) * LANES, carry);
            Vec x_sum{}, x_product{}, a_sum{}, a_product{};
            for (int j = 0; j < GATES; j++) {
                s[Cell::SHIFT + j] += dx[j];
                s[Cell::GAIN_X + j] += dx[j] * n.x[j];
                s[Cell::GAIN_A + j] += da[j] * n.a[j];
                if (j == Cell::SHIFTED_A) s[Cell::SHIFT_A] += da[j];
                dx[j] *= v[Cell::GAIN_X + j];
                da[j] *= v[Cell::GAIN_A + j];
                store(held(block, b, j), dx[j]);
                store(held(block, b, GATES + j), da[j]);
                x_sum += dx[j], x_product += dx[j] * n.x[j];
                a_sum += da[j], a_product += da[j] * n.a[j];
            }
            add(row_sum(unit_group, b, 2), x_sum);
            add(row_sum(unit_group, b, 3), x_product);
            add(row_sum(unit_group, b, 4), a_sum);
            add(row_sum(unit_group, b, 5), a_product);
        };

        for (long i = 0; i < mine.size(); i++)
            pass.arrivals(
                mine.back_and_forth(i, t), t, rows, [&](long block, long first, int count, const float* arriving) {
                    Vec v[Cell::VECTORS], s[Cell::VECTORS];
                    vectors_of<Cell>(pass.vectors, block, v);
                    vectors_of<Cell>(sums, block, s);
                    for (long b = first; b < first + count; b++, arriving += APART) {
                        const Vec dh = load(arriving) + pass.given(block, t, b);
                        if constexpr (Cell::NORMALISES_CARRIED) {
                            const Normals n(pass, block, t, b, of(b, 0), of(b, 1));
                            Vec d_gate, d_shifted;
                            const Vec c = of(b, 2).normal(load(pass.saved_at(block, t, b) + Cell::CARRIED * LANES));
                            Cell::through_output(n.x, n.a, v, c, dh, d_gate, d_shifted);
                            s[Cell::GAIN_C] += d_shifted * c;
                            s[Cell::SHIFT_C] += d_shifted;
                            const Vec d_normal = d_shifted * v[Cell::GAIN_C];
                            add(row_sum(unit_group, b, 0), d_normal);
                            add(row_sum(unit_group, b, 1), d_normal * c);
                            store(held(block, b, 0), d_gate);
                            store(held(block, b, 1), d_normal);
                        } else {
                            gates(block, b, v, dh + pass.carried(block, t, b), nullptr, s);
                        }
                    }
                    put_vectors<Cell>(sums, block, s);
                });
        sync();
        const Range blocks = pass.blocks_of(mine);
        if constexpr (Cell::NORMALISES_CARRIED) {
            for (long b = rows.begin; b < rows.end; b++) {
                const float means[] = {mean(b, 0, pass.H), mean(b, 1, pass.H)};
                memcpy(row_sum(unit_group, b, 6), means, sizeof means);
            }
            for (long block = blocks.begin; block < blocks.end; block++) {
                Vec v[Cell::VECTORS], s[Cell::VECTORS];
                vectors_of<Cell>(pass.vectors, block, v);
                vectors_of<Cell>(sums, block, s);
                for (long b = rows.begin; b < rows.end; b++) {
                    const Moments of_c = of(b, 2);
                    const Vec c = of_c.normal(load(pass.saved_at(block, t, b) + Cell::CARRIED * LANES));
                    const Vec d_gate = load(held(block, b, 0));
                    const float* means = row_sum(unit_group, b, 6);
                    const Vec back = of_c.back(load(held(block, b, 1)), c, means[0], means[1]);
                    gates(block, b, v, first_lanes(back, pass.valid(block)) + pass.carried(block, t, b), &d_gate, s);
                }
                put_vectors<Cell>(sums, block, s);
            }
            sync();
        }
        for (long b = rows.begin; b < rows.end; b++) {
            const long entries = pass.H * GATES;
            const Moments of_x = of(b, 0), of_a = of(b, 1);
            const float x1 = mean(b, 2, entries), x2 = mean(b, 3, entries), a1 = mean(b, 4, entries),
                        a2 = mean(b, 5, entries);
            for (long block = blocks.begin; block < blocks.end; block++) {
                const Normals n(pass, block, t, b, of_x, of_a);
                const int valid = pass.valid(block);
                Vec most = magnitude(load(pass.carry + (block * pass.B + b) * LANES));
                for (int j = 0; j < GATES; j++) {
                    const Vec dx = first_lanes(of_x.back(load(held(block, b, j)), n.x[j], x1, x2), valid),
                              da = first_lanes(of_a.back(load(held(block, b, GATES + j)), n.a[j], a1, a2), valid);
                    pass.put_d(j, block, t, b, unit_group, dx);
                    pass.put_d(GATES + j, block, t, b, unit_group, da);
                    most = larger(magnitude(dx), larger(magnitude(da), most));
                }
                pass.note_peak(t, unit_group, b, most);
            }
        }
        sync();
    }
};

}  // namespace throughtime::LEVEL
