// Steps of cells whose gates are taken unit by unit: products, gates and output of a block of units in one go.
#pragma once

#include "backward.hpp"
#include "forward.hpp"

namespace throughtime::LEVEL {

struct Unitwise {
    static constexpr int HELD = 0, ROW_SUMS = 0;

    template <class Cell, class P, class Sync>
    static void forward(const Forward<Cell, P>& pass, long t, Range rows, Range mine, Sync sync) {
        pass.in_turn(mine, t, rows.size(), [&](Range panels) {
            pass.recur(panels, t, rows);
            const Range blocks = pass.blocks_of(panels);
            for (long block = blocks.begin; block < blocks.end; block++)
                for (long b = rows.begin; b < rows.end; b++) {
                    float* at = pass.saved_at(block, t, b);
                    Vec s[Cell::SLOTS];
                    for (int j = 0; j < Cell::SLOTS; j++) s[j] = load(at + j * LANES);
                    const Vec y = Cell::forward(s, pass.before(block, t, b));
                    for (int j = 0; j < Cell::SLOTS; j++)
                        if (pass.l.saved && j != Cell::CARRIED) store(at + j * LANES, s[j]);
                    pass.put_carried(block, t, b, s[Cell::CARRIED]);
                    pass.put_output(block, t, b, y);
                }
        });
        if ((Cell::PRODUCT || pass.l.starts) && t + 1 < pass.T) sync();
    }

    template <class Cell, class P, class Sync>
    static void backward(const Backward<Cell, P>& pass, long t, Range rows, Range mine, float* sums, int unit_group,
                         int unit_groups, Sync sync) {
        constexpr int GRADIENTS = Cell::GRADIENTS, APART = pass.PANEL * LANES;
        pass.scale_rows(t, rows, unit_group, unit_groups);
        for (long i = 0; i < mine.size(); i++)
            pass.arrivals(
                mine.back_and_forth(i, t), t, rows, [&](long block, long first, int count, const float* arriving) {
                    float* block_sums = sums + block * GRADIENTS * LANES;
                    Vec sum[GRADIENTS];
                    for (int j = 0; j < GRADIENTS; j++) sum[j] = load(block_sums + j * LANES);
                    for (long b = first; b < first + count; b++, arriving += APART) {
                        const float* at = pass.saved_at(block, t, b);
                        Vec s[Cell::SLOTS], d[GRADIENTS], carry = pass.carried(block, t, b);
                        for (int j = 0; j < Cell::SLOTS; j++) s[j] = load(at + j * LANES);
                        Cell::backward(s, pass.before(block, t, b), load(arriving) + pass.given(block, t, b), carry, d);
                        store(pass.carry + (block * pass.B + b) * LANES, carry);
                        Vec most = magnitude(carry);
                        for (int j = 0; j < GRADIENTS; j++) {
                            pass.put_d(j, block, t, b, unit_group, d[j]);
                            most = larger(magnitude(d[j]), most);
                            sum[j] += d[j];
                        }
                        pass.note_peak(t, unit_group, b, most);
                    }
                    for (int j = 0; j < GRADIENTS; j++) store(block_sums + j * LANES, sum[j]);
                });
        if (Cell::PRODUCT || P::NARROW || pass.l.starts) sync();
    }
};

}  // namespace throughtime::LEVEL
