// What a level offers, and what a call of it is about. Axes: T time, B batch, D input, H hidden, G gates, V vocabulary.
#pragma once

#include <cstddef>
#include <cstdint>

namespace throughtime {

// One layer over one window. All arrays are float32, dense and in this order of axes. A null pointer: not there.
struct Layer {
    int64_t steps, lanes, inputs, units;  // T, B, D, H; none is 0
    int threads;
    int64_t turn;  // of calls with the same weights: every other one goes through them from their end

    const float* W;           // [G H, D]
    const float* U;           // [G H, H]; none where the cell has no product with the state
    const float* vectors;     // [Q H]: biases and gains, in the order of the cell's documentation
    const float* U_mask;      // [G H, H], multiplied into U
    const float* state_mask;  // [B, H], multiplied into the state that the product reads

    const float* x;  // [T, B, D], or [V, D] where there are ids
    // Where lanes are unequal: number of rows before each step, [T + 1]. A row is one step of one lane. Lanes are sorted,
    // longest first, and an array [T, B, ...] holds only the rows there are: step after step, the lanes that have the
    // step, which are B lanes at the first step and at least one at the last. Null: every lane has T steps.
    const int64_t* starts;
    const int64_t* ids;     // [T, B]: which row of x is a step's input
    int64_t vocabulary;     // V
    const uint8_t* fresh;   // [T, B]
    const float* flow;      // [T, B]
    const float* hidden0;   // [B, H]
    const float* carried0;  // [B, H]: what a step takes over unit by unit: an LSTM's cell, a GRU's output

    void* packed;  // W, U, vectors and, with a vocabulary, x, packed before: they are not read again

    float* y;        // [T, B, H]
    float* hidden;   // [B, H], after a lane's last step; null: nobody asks
    float* carried;  // [B, H]
    float* saved;    // kept for the way back; null where there will be none
    void* read;      // likewise

    const float* dy;        // [T, B, H]
    const float* dhidden;   // [B, H]
    const float* dcarried;  // [B, H]
    float* dx;              // as x
    float* dW;
    float* dU;
    float* dvectors;
    float* dhidden0;
    float* dcarried0;
};

struct Sizes {
    size_t saved, read;  // bytes
};

struct Recurrence {
    const char* cell;
    const char* weights;  // float32, bf16 or int8
    int gates, vectors;
    bool product;         // whether there is a product with the state, U h
    bool carries_hidden;  // the carried vector is the output itself
    Sizes (*sizes)(const Layer&);
    size_t (*packed_size)(const Layer&);  // bytes; it depends on D, H and V
    void (*pack)(const Layer&);           // into `packed`
    void (*forward)(const Layer&);
    void (*backward)(const Layer&);  // null: there is no way back
};

struct Level {
    const char* name;
    int lanes;  // floats in a vector
    const Recurrence* recurrences;
    int count;
    // -log softmax of each of `rows` rows of `columns` logits at its target
    void (*target_nats)(const float* logits, long rows, long columns, const int64_t* targets, double* nats);
    // softmax(logits + bias) as whole multiples of 2^-24, none 0, that sum to 1
    void (*whole_probabilities)(const float* logits, long rows, long columns, const float* bias, double* out);
};

}  // namespace throughtime
