// Layers one above the other, their weights packed once: what runs a trained model.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels.hpp"

namespace throughtime {

// A layer's weights in the order its kernel reads them.
class Packed {
    struct Free {
        void operator()(void* memory) const;
    };
    const Recurrence* kernel;
    int64_t D, H, V;
    std::unique_ptr<void, Free> memory;
    size_t bytes;
    mutable int64_t calls = 0;

 public:
    Packed(Packed&&) = default;
    // `given` names W, U, vectors and sizes; with a vocabulary, x is the table of what its ids stand for.
    Packed(const Recurrence& kernel, Layer given);
    // One call of the kernel: `call` has the sizes T and B, inputs, states and outputs.
    void run(Layer call, int threads) const;
    int64_t inputs() const { return D; }
    int64_t units() const { return H; }
    int64_t vocabulary() const { return V; }
    int64_t size() const { return (int64_t)bytes; }
    int arrays() const { return kernel->carries_hidden ? 1 : 2; }  // of a state
};

// What a network reads: T steps of B lanes, ids or vectors.
struct Steps {
    int64_t T, B;
    const int64_t* ids;    // [T, B]
    const float* x;        // [T, B, D]
    const uint8_t* fresh;  // [T, B]: where a lane begins anew; null: nowhere

    // So many steps from one on.
    Steps from(int64_t begin, int64_t count, int64_t D) const {
        const int64_t before = begin * B;
        return {count, B, ids ? ids + before : nullptr, x ? x + before * D : nullptr, fresh ? fresh + before : nullptr};
    }
};

// Tokens or vectors go in; logits, or the last layer's output where there is no head, come out. A state is a list of
// arrays [B, units of the layer]: for each layer, from the bottom up, its output and, where it has one, what it carries
// beside it.
class Network {
    size_t table_bytes;
    std::vector<float> embedding;  // [V, D], where the first layer has no table of it
    int64_t vocabulary = 0;
    std::vector<Packed> layers;
    std::vector<Packed> head;    // or none
    std::vector<int64_t> sizes;  // of a state's arrays, in numbers a lane

    int64_t widest() const;
    void run_part(const Steps& steps, const float* const* before, float* const* after, int64_t wanted, float* out,
                  int threads) const;

 public:
    // What the first layer makes of every token is made once, and looked up, where it takes no more than `table_bytes`.
    explicit Network(size_t table_bytes) : table_bytes(table_bytes) {}

    // From the bottom: the rows that ids stand for, if it reads ids; layers; a head, if it has one. All throw
    // std::invalid_argument where sizes do not fit.
    void embed(const float* rows_VD, int64_t V, int64_t D);
    void add(const Recurrence& kernel, Layer given);
    void put_head(const Recurrence& affine, const Layer& given);

    int64_t ids() const { return vocabulary; }                                       // 0: it reads vectors
    int64_t inputs() const { return layers.empty() ? 0 : layers.front().inputs(); }  // 0: it has no layers
    int64_t units() const { return layers.empty() ? 0 : layers.back().units(); }     // of the last layer
    int64_t outputs() const { return head.empty() ? units() : head.front().units(); }

    // The numbers a lane of each array of a state, and of all of them.
    const std::vector<int64_t>& state_sizes() const { return sizes; }
    int64_t state_size() const;
    // The arrays of a state of B lanes that lie one behind the other.
    template <class T>
    std::vector<T*> arrays_in(T* memory, int64_t B) const {
        std::vector<T*> arrays;
        for (const int64_t size : sizes) arrays.push_back(memory), memory += B * size;
        return arrays;
    }

    // Steps of B lanes that take a fraction of a second, by the weights that have to be read: a longer call is cut.
    int64_t steps_at_once(int64_t B) const;
    // What a network with a head puts out after a state of B lanes: out [B, outputs].
    void outputs_of(const float* const* state, int64_t B, float* out, int threads) const;
    // The outputs of the last `wanted` steps go to out [wanted, B, outputs]. `before` may be `after`. Throws
    // std::invalid_argument where there is no layer. Memory does not grow with T.
    void run(const Steps& steps, const float* const* before, float* const* after, int64_t wanted, float* out,
             int threads) const;
};

}  // namespace throughtime
