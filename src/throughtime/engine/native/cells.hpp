// Every cell that has a kernel, and its name: EACH(Cell, name), with commas between.
#pragma once

#include "affine.hpp"
#include "elman.hpp"
#include "gru.hpp"
#include "layernorm.hpp"
#include "lstm.hpp"
#include "minimal.hpp"

// Cells whose product with the state meets numbers from -1 to 1 alone, or that have no such product.
#define BOUNDED_CELLS(EACH)                                                                             \
    EACH(Affine, "affine"), EACH(Elman<Phi::Tanh>, "elman-tanh"), EACH(Gru, "gru"), EACH(Lstm, "lstm"), \
        EACH(LayerNormGru, "layernorm-gru"), EACH(LayerNormLstm, "layernorm-lstm"),                     \
        EACH(MinGru<Linear>, "mingru-linear"), EACH(MinGru<Positive>, "mingru-positive"),               \
        EACH(MinLstm<Linear>, "minlstm-linear"), EACH(MinLstm<Positive>, "minlstm-positive")

#define UNBOUNDED_CELLS(EACH) EACH(Elman<Phi::Relu>, "elman-relu")
