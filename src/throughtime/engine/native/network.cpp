#include "network.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <string>

#include "memory.hpp"

namespace throughtime {
namespace {

// A thread more has to have this much of the weights to read: to wake it and to meet it takes microseconds.
constexpr size_t BYTES_A_THREAD = 512 << 10;
// Weights that may be read in one call, in bytes.
constexpr int64_t BYTES_AT_ONCE = (int64_t)1 << 33;

// A thread's rows between layers, and below the first where that has no table. Small ones stay for the next call.
thread_local std::vector<float> between[2], gathered;

void forget_large_rooms() {
    for (std::vector<float>* room : {&between[0], &between[1], &gathered})
        if (room->size() * sizeof(float) > KEPT_BYTES) std::vector<float>().swap(*room);
}

int worthwhile(int threads, size_t bytes, int64_t rows) {
    const size_t most = 1 + bytes * (size_t)rows / BYTES_A_THREAD;
    return (size_t)threads < most ? threads : (int)most;
}

}  // namespace

void Packed::Free::operator()(void* memory) const { free(memory); }

Packed::Packed(const Recurrence& kernel, Layer given)
    : kernel(&kernel), D(given.inputs), H(given.units), V(given.vocabulary), bytes(0) {
    given.steps = given.lanes = 1;
    bytes = kernel.packed_size(given);
    memory.reset(aligned(bytes));
    given.packed = memory.get();
    kernel.pack(given);
}

void Packed::run(Layer call, int threads) const {
    call.inputs = D, call.units = H, call.vocabulary = V;
    call.packed = memory.get();
    call.turn = __atomic_fetch_add(&calls, call.steps, __ATOMIC_RELAXED);
    call.threads = worthwhile(threads, bytes, call.steps * call.lanes);
    kernel->forward(call);
}

void Network::embed(const float* rows_VD, int64_t V, int64_t D) {
    embedding.assign(rows_VD, rows_VD + V * D);
    vocabulary = V;
}

void Network::add(const Recurrence& kernel, Layer given) {
    const auto refuse = [](const std::string& why) { throw std::invalid_argument(why); };
    if (layers.empty() && vocabulary) {
        if ((int64_t)embedding.size() != vocabulary * given.inputs) refuse("the embedding is not as wide as the input");
        if (sizeof(float) * vocabulary * kernel.gates * given.units <= table_bytes)
            given.x = embedding.data(), given.vocabulary = vocabulary;
    } else if (!layers.empty()) {
        if (given.inputs != units())
            refuse("a layer of input " + std::to_string(given.inputs) + " cannot stand on " + std::to_string(units()) +
                   " units");
    }
    layers.emplace_back(kernel, given);
    sizes.insert(sizes.end(), layers.back().arrays(), given.units);
    if (given.vocabulary) std::vector<float>().swap(embedding);
}

void Network::put_head(const Recurrence& affine, const Layer& given) {
    if (layers.empty() || given.inputs != units()) throw std::invalid_argument("a head stands on the last layer");
    head.clear();
    head.emplace_back(affine, given);
}

int64_t Network::state_size() const { return std::accumulate(sizes.begin(), sizes.end(), (int64_t)0); }

int64_t Network::widest() const {
    int64_t units = 0;
    for (const Packed& layer : layers) units = std::max(units, layer.units());
    return units;
}

int64_t Network::steps_at_once(int64_t B) const {
    int64_t bytes = head.empty() ? 0 : head.front().size();
    for (const Packed& layer : layers) bytes += layer.size();
    return std::max<int64_t>(1, BYTES_AT_ONCE / (bytes + 1) / B);
}

void Network::outputs_of(const float* const* state, int64_t B, float* out, int threads) const {
    Layer call{};
    call.steps = 1, call.lanes = B;
    call.x = state[sizes.size() - layers.back().arrays()];
    call.y = out;
    head.front().run(call, threads);
}

void Network::run(const Steps& steps, const float* const* before, float* const* after, int64_t wanted, float* out,
                  int threads) const {
    if (layers.empty()) throw std::invalid_argument("a network without a layer cannot run");
    const int64_t T = steps.T, B = steps.B, first = T - wanted;
    const bool gathers = steps.ids && !layers.front().vocabulary();
    const int64_t width = gathers ? std::max(widest(), inputs()) : widest();
    const int64_t at_once = std::max<int64_t>(1, (int64_t)(KEPT_BYTES / sizeof(float)) / (B * width));
    for (int64_t t = 0; t < T; t += at_once, before = after) {
        const int64_t end = std::min(T, t + at_once), begin = std::max(t, first);
        const auto from_here = [&](auto* all, int64_t row) { return all ? all + t * B * row : all; };
        run_part({end - t, B, from_here(steps.ids, 1), from_here(steps.x, inputs()), from_here(steps.fresh, 1)}, before,
                 after, std::max<int64_t>(0, end - begin), begin < end ? out + (begin - first) * B * outputs() : out,
                 threads);
    }
    forget_large_rooms();
}

void Network::run_part(const Steps& steps, const float* const* before, float* const* after, int64_t wanted, float* out,
                       int threads) const {
    const int64_t T = steps.T, B = steps.B, H = units(), rows = T * B, width = widest();
    const bool gathers = steps.ids && !layers.front().vocabulary();
    for (auto& room : between)
        if ((int64_t)room.size() < rows * width) room.resize(rows * width);
    const float* x = steps.x;
    if (gathers) {
        const int64_t D = inputs();
        if ((int64_t)gathered.size() < rows * D) gathered.resize(rows * D);
        for (int64_t i = 0; i < rows; i++)
            memcpy(gathered.data() + i * D, embedding.data() + steps.ids[i] * D, D * sizeof(float));
        x = gathered.data();
    }
    for (size_t i = 0; i < layers.size(); i++) {
        const Packed& layer = layers[i];
        const bool direct = i + 1 == layers.size() && head.empty() && wanted == T;
        Layer call{};
        call.steps = T, call.lanes = B;
        call.x = x;
        call.ids = layer.vocabulary() ? steps.ids : nullptr;
        call.fresh = steps.fresh;
        call.y = direct ? out : between[i % 2].data();
        call.hidden0 = *before, call.hidden = *after;
        call.carried0 = *before, call.carried = nullptr;
        if (layer.arrays() == 2) call.carried0 = before[1], call.carried = after[1];
        before += layer.arrays(), after += layer.arrays();
        layer.run(call, threads);
        x = call.y;
    }
    const float* last = x + (T - wanted) * B * H;
    if (head.empty()) {
        if (last != out) memcpy(out, last, wanted * B * H * sizeof(float));
    } else if (wanted) {
        Layer call{};
        call.steps = wanted, call.lanes = B;
        call.x = last;
        call.y = out;
        head.front().run(call, threads);
    }
}

}  // namespace throughtime
