// Networks as Python sees them.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "array.hpp"
#include "beam.hpp"
#include "bindings.hpp"
#include "bound.hpp"
#include "levels.hpp"
#include "network.hpp"
#include "sampler.hpp"
#include "separator.hpp"

namespace throughtime {
namespace {

constexpr int64_t MOST_BEAMS = (int64_t)1 << 32;

// A state as Python sees it: a tuple of arrays [B, units of the layer].
typedef std::vector<Array<const float, 2>> State;
typedef std::vector<Array<float, 2>> WrittenState;

template <class T>
std::vector<T*> pointers(const std::vector<Array<T, 2>>& state) {
    std::vector<T*> found;
    for (const Array<T, 2>& array : state) found.push_back(array.data());
    return found;
}

nb::tuple as_tuple(const WrittenState& state) {
    nb::object made = nb::steal(PyTuple_New((Py_ssize_t)state.size()));
    if (!made.is_valid()) throw nb::python_error();
    for (size_t i = 0; i < state.size(); i++)
        PyTuple_SetItem(made.ptr(), (Py_ssize_t)i, state[i].object().inc_ref().ptr());
    return nb::borrow<nb::tuple>(made);
}

// A network, the level its kernels are of, and how many calls run it.
struct Bound : Network {
    const Level* level;
    mutable int users = 0;
    Bound(const Bound&) = delete;
    Bound(const std::string& name, size_t table_bytes) : Network(table_bytes), level(level_of(name)) {
        if (!level) throw nb::key_error(("there is no level " + name).c_str());
    }

    const Recurrence& kernel(const std::string& cell, const std::string& weights) const {
        const Recurrence* found = recurrence_of(*level, cell, weights);
        if (!found) throw nb::key_error(("no kernel for " + cell + " with weights in " + weights).c_str());
        return *found;
    }

    static Layer given(const Recurrence& kernel, Array<const float, 2> W, std::optional<Array<const float, 2>> U,
                       Array<const float, 1> vectors, int threads) {
        Layer given{};
        given.threads = threads;
        given.inputs = W.shape(1), given.units = W.shape(0) / kernel.gates;
        check(given.inputs > 0 && given.units > 0 && given.units * kernel.gates == W.shape(0),
              [&] { return "W should have " + std::to_string(kernel.gates) + " rows for each unit"; });
        check(kernel.product == U.has_value(), U ? "U is not used" : "U is missing");
        check(!U || (U->shape(0) == W.shape(0) && U->shape(1) == given.units), "U should have shape [G H, H]");
        check(vectors.size() == kernel.vectors * given.units, "vectors has a wrong number of entries");
        check(threads > 0, "there should be at least one thread");
        given.W = W.data(), given.U = U ? U->data() : nullptr, given.vectors = vectors.data();
        return given;
    }

    template <class T>
    void check_state(int64_t B, const std::vector<Array<T, 2>>& state) const {
        bool fits = state.size() == state_sizes().size();
        for (size_t i = 0; fits && i < state.size(); i++)
            fits = state[i].shape(0) == B && state[i].shape(1) == state_sizes()[i];
        check(fits, [&] {
            std::string shapes;
            for (const int64_t size : state_sizes())
                shapes += (shapes.empty() ? "[" : ", [") + std::to_string(B) + ", " + std::to_string(size) + "]";
            return "a state should have arrays of shape " + shapes;
        });
    }

    WrittenState unwritten_state(int64_t B) const {
        WrittenState state;
        for (const int64_t size : state_sizes()) state.push_back(Array<float, 2>::unwritten(B, size));
        return state;
    }

    // The state before the first step: all 0.
    nb::tuple initial_state(int64_t B) const {
        check(B >= 0, "there cannot be fewer lanes than none");
        const WrittenState state = unwritten_state(B);
        for (const Array<float, 2>& array : state) std::fill(array.data(), array.data() + array.size(), 0.0f);
        return as_tuple(state);
    }

    // Before a layer is added: who runs the network meanwhile would read what is moved.
    void check_still() const { check(users == 0, "the network is running in another thread"); }

    // A copy, which no other thread can change once it has been checked.
    std::vector<int64_t> checked_ids(const int64_t* given, int64_t count) const {
        check(ids() > 0, "this network reads vectors, not ids");
        std::vector<int64_t> all(given, given + count);
        for (const int64_t id : all)
            if (id < 0 || id >= ids())
                throw nb::index_error(
                    ("id " + std::to_string(id) + " is not in a vocabulary of " + std::to_string(ids())).c_str());
        return all;
    }

    void check_matched(const Separator& separator, const int64_t* matched_B, int64_t B) const {
        check(!separator.size() || (int64_t)separator.all_pieces().size() == ids(),
              "the separator is of another vocabulary");
        for (int64_t b = 0; b < B; b++)
            check(matched_B[b] >= 0 && matched_B[b] <= separator.size(), "more is matched than the separator has");
    }

    typedef std::optional<Array<const uint8_t, 2>> Fresh;
    typedef std::pair<Array<float, 3>, nb::tuple> Fed;      // outputs [wanted, B, outputs] and state
    typedef std::pair<Array<float, 2>, nb::tuple> Stepped;  // outputs [B, outputs] and state

    // The outputs of the last `wanted` steps go to `out`; the state after all of them.
    nb::tuple read(Steps steps, const State& before, int64_t wanted, float* out, int threads) const {
        const int64_t T = steps.T, B = steps.B;
        const WrittenState after = unwritten_state(B);
        const Use use(users);
        const std::vector<const float*> first = pointers(before);
        const std::vector<float*> last = pointers(after);
        const float* const* start = first.data();
        // Steps of a stretch of which nothing is wanted come first.
        for (int64_t begin = 0, count; begin < T; begin += count) {
            if (begin) heed_signals();
            count = std::min(T - begin, steps_at_once(B));
            const int64_t here = std::min(count, std::max<int64_t>(0, begin + count - (T - wanted)));
            {
                const Unlocked unlocked;
                run(steps.from(begin, count, ids() ? 0 : inputs()), start, last.data(), here, out, threads);
            }
            start = last.data(), out += here * B * outputs();
        }
        return as_tuple(after);
    }

    void check_fits(const Steps& steps, const State& before, int threads) const {
        check(steps.T > 0 && steps.B > 0 && threads > 0, "there should be at least one step, one lane and one thread");
        check_state(steps.B, before);
    }

    Fed feed(Steps steps, const Fresh& fresh, const State& before, int64_t wanted, int threads) const {
        const int64_t T = steps.T, B = steps.B;
        check_fits(steps, before, threads);
        check(wanted >= 0 && wanted <= T, "there are not as many outputs as are wanted");
        check(!fresh || (fresh->shape(0) == T && fresh->shape(1) == B),
              "fresh should have a mark for every step of every lane");
        if (fresh) steps.fresh = fresh->data();
        auto out = Array<float, 3>::unwritten(wanted, B, outputs());
        nb::tuple after = read(steps, before, wanted, out.data(), threads);
        return {std::move(out), std::move(after)};
    }

    Stepped step(const Steps& steps, const State& before, int threads) const {
        check_fits(steps, before, threads);
        auto out = Array<float, 2>::unwritten(steps.B, outputs());
        nb::tuple after = read(steps, before, 1, out.data(), threads);
        return {std::move(out), std::move(after)};
    }

    void check_vectors(int64_t D) const {
        check(!ids(), "this network reads ids, not vectors");
        check(D == inputs(), [&] { return "the inputs should have shape [T, B, " + std::to_string(inputs()) + "]"; });
    }

    Fed feed_ids(Array<const int64_t, 2> given, const Fresh& fresh, const State& before, int64_t wanted,
                 int threads) const {
        const std::vector<int64_t> all = checked_ids(given.data(), given.size());
        return feed({given.shape(0), given.shape(1), all.data(), nullptr, nullptr}, fresh, before, wanted, threads);
    }

    Fed feed_vectors(Array<const float, 3> x, const Fresh& fresh, const State& before, int64_t wanted,
                     int threads) const {
        check_vectors(x.shape(2));
        return feed({x.shape(0), x.shape(1), nullptr, x.data(), nullptr}, fresh, before, wanted, threads);
    }

    Stepped step_ids(Array<const int64_t, 1> given, const State& before, int threads) const {
        const std::vector<int64_t> all = checked_ids(given.data(), given.size());
        return step({1, given.shape(0), all.data(), nullptr, nullptr}, before, threads);
    }

    Stepped step_vectors(Array<const float, 2> x, const State& before, int threads) const {
        check_vectors(x.shape(1));
        return step({1, x.shape(0), nullptr, x.data(), nullptr}, before, threads);
    }

    void nats(Array<const float, 2> logits_NV, Array<const int64_t, 1> targets_N, Array<double, 1> nats_N) const {
        const int64_t N = logits_NV.shape(0), V = logits_NV.shape(1);
        check(targets_N.size() == N && nats_N.size() == N, "logits, targets and nats should be as many");
        const std::vector<int64_t> targets(targets_N.data(), targets_N.data() + N);
        for (const int64_t target : targets) check(target >= 0 && target < V, "a target is not in the vocabulary");
        const Unlocked unlocked;
        level->target_nats(logits_NV.data(), N, V, targets.data(), nats_N.data());
    }

    void probabilities(Array<const float, 2> logits_BV, Array<const float, 1> bias_V, Array<double, 2> out_BV) const {
        const int64_t B = logits_BV.shape(0), V = logits_BV.shape(1);
        check(bias_V.size() == V && out_BV.shape(0) == B && out_BV.shape(1) == V,
              "logits, bias and probabilities should be of one size");
        check(V < 1 << 24, "there are too many tokens for probabilities of 24 bits");
        const Unlocked unlocked;
        level->whole_probabilities(logits_BV.data(), B, V, bias_V.data(), out_BV.data());
    }

    // The outputs [B, O] after a state.
    Array<float, 2> outputs_after(const State& state, int threads) const {
        const int64_t B = state.empty() ? 0 : state.front().shape(0);
        check(ids() && ids() == outputs() && B > 0 && threads > 0,
              "a network with a head, a lane and a thread are needed");
        check_state(B, state);
        auto out = Array<float, 2>::unwritten(B, outputs());
        const std::vector<const float*> arrays = pointers(state);
        const Use use(users);
        const Unlocked unlocked;
        outputs_of(arrays.data(), B, out.data(), threads);
        return out;
    }

    // Draws tokens [T, B]: each lane's from its logits [1, B, V], which are then those after it, as the state is, and
    // what it has matched of the separator. A lane that can draw nothing has -1 from there on, and stays as it is.
    void generate(Array<float, 3> logits, const WrittenState& state, const std::vector<const BoundSampler*>& samplers,
                  const Separator& separator, Array<int64_t, 1> matched, Array<int64_t, 2> tokens, int threads) const {
        const int64_t B = (int64_t)samplers.size(), V = outputs();
        check(B > 0 && threads > 0 && ids() == V,
              "a network that writes what it reads, a thread and a sampler for each lane are needed");
        check_state(B, state);
        check(logits.shape(0) == 1 && logits.shape(1) == B && logits.shape(2) == V,
              "the logits should have shape [1, B, V]");
        check(tokens.shape(1) == B && matched.size() == B, "the tokens should have a column for each lane");
        std::vector<int64_t> at(matched.data(), matched.data() + B), drawn(B);
        check_matched(separator, at.data(), B);
        std::vector<Sampler*> all;
        std::deque<Use> uses;
        uses.emplace_back(users);
        for (const BoundSampler* sampler : samplers) {
            check(sampler->vocabulary == V, "a sampler is of another vocabulary");
            sampler->check_free();
            uses.emplace_back(sampler->users);
            all.push_back(const_cast<BoundSampler*>(sampler));
        }
        std::vector<uint8_t> fresh(B);
        std::vector<float> kept;
        const std::vector<float*> arrays = pointers(state);
        const std::vector<int64_t>& sizes = state_sizes();
        const Unlocked unlocked;
        for (int64_t t = 0; t < tokens.shape(0); t++) {
            choose(all.data(), B, logits.data(), drawn.data(), threads);
            std::copy(drawn.begin(), drawn.end(), tokens.data() + t * B);
            kept.clear();
            for (int64_t b = 0; b < B; b++) {
                fresh[b] = separator.ended(at[b]);
                if (drawn[b] >= 0) {
                    at[b] = separator.after(at[b], drawn[b]);
                    continue;
                }
                drawn[b] = 0;  // read, and taken back below
                for (size_t s = 0; s < sizes.size(); s++)
                    kept.insert(kept.end(), arrays[s] + b * sizes[s], arrays[s] + (b + 1) * sizes[s]);
                kept.insert(kept.end(), logits.data() + b * V, logits.data() + (b + 1) * V);
            }
            run({1, B, drawn.data(), nullptr, fresh.data()}, arrays.data(), arrays.data(), 1, logits.data(), threads);
            const float* from = kept.data();
            for (int64_t b = 0; b < B && !kept.empty(); b++) {
                if (tokens.data()[t * B + b] >= 0) continue;
                for (size_t s = 0; s < sizes.size(); s++) {
                    std::copy(from, from + sizes[s], arrays[s] + b * sizes[s]);
                    from += sizes[s];
                }
                std::copy(from, from + V, logits.data() + b * V);
                from += V;
            }
        }
        std::copy(at.begin(), at.end(), matched.data());
    }

    // (text, nats, score, state, matched) of each text found, from the logits [V] of what comes next, the state
    // of one lane, and what the text before has matched of the separator.
    nb::list search(Array<const float, 1> logits, const State& state, const Separator& separator, int64_t matched,
                    const std::vector<nb::bytes>& stops, std::optional<Array<const uint8_t, 1>> allowed, int64_t beams,
                    int64_t best, int64_t tokens, double length_penalty, int threads) const {
        const int64_t V = outputs();
        check(ids() == V && (int64_t)separator.all_pieces().size() == V,
              "a network that writes what it reads, and a piece a token, are needed");
        check_matched(separator, &matched, 1);
        check_state(1, state);
        check(logits.size() == V, "there should be a logit for each token");
        check(!allowed || allowed->size() == V, "the allowed tokens should be a mask of all");
        check(beams > 0 && beams <= MOST_BEAMS && best > 0 && tokens > 0 && threads > 0,
              "there should be at least one of each");
        Search wanted{beams, best, tokens, length_penalty, separator, matched, strings(stops), {}, [] {
                          static thread_local auto heeded = std::chrono::steady_clock::now();
                          const auto now = std::chrono::steady_clock::now();
                          if (now - heeded < std::chrono::milliseconds(50)) return;
                          heeded = now;
                          const Locked locked;
                          heed_signals();
                      }};
        for (const std::string& stop : wanted.stops) check(!stop.empty(), "a stop should not be empty");
        if (allowed) wanted.allowed.assign(allowed->data(), allowed->data() + V);
        const Use use(users);
        const std::vector<const float*> arrays = pointers(state);
        std::vector<Ended> found;
        {
            const Unlocked unlocked;
            found = throughtime::search(*this, wanted, logits.data(), arrays.data(), threads);
        }
        nb::list result;
        for (Ended& one : found) {
            const WrittenState after = unwritten_state(1);
            const float* from = one.state.data();
            for (const Array<float, 2>& array : after) {
                std::copy(from, from + array.size(), array.data());
                from += array.size();
            }
            result.append(nb::make_tuple(nb::bytes(one.text.data(), one.text.size()), one.nats, one.score,
                                         as_tuple(after), one.matched));
        }
        return result;
    }
};

}  // namespace

void bind_network(nb::module_& m) {
    bind_sampling(m);
    nb::class_<Bound>(m, "Network")
        .def(nb::init<const std::string&, size_t>(), nb::arg("level"), nb::arg("table_bytes"))
        .def(
            "embed",
            [](Bound& self, Array<const float, 2> rows) {
                check(rows.size() > 0, "the embedding should have shape [V, D]");
                self.check_still();
                self.embed(rows.data(), rows.shape(0), rows.shape(1));
            },
            nb::arg("rows"))
        .def(
            "add",
            [](Bound& self, const std::string& cell, const std::string& weights, Array<const float, 2> W,
               std::optional<Array<const float, 2>> U, Array<const float, 1> vectors, int threads) {
                const Recurrence& kernel = self.kernel(cell, weights);
                self.check_still();
                self.add(kernel, Bound::given(kernel, W, U, vectors, threads));
            },
            nb::arg("cell"), nb::arg("weights"), nb::arg("W"), nb::arg("U").none(), nb::arg("vectors"),
            nb::arg("threads"))
        .def(
            "head",
            [](Bound& self, const std::string& weights, Array<const float, 2> W, Array<const float, 1> b, int threads) {
                const Recurrence& kernel = self.kernel("affine", weights);
                self.check_still();
                self.put_head(kernel, Bound::given(kernel, W, std::nullopt, b, threads));
            },
            nb::arg("weights"), nb::arg("W"), nb::arg("b"), nb::arg("threads"))
        .def_prop_ro("outputs", &Network::outputs)
        .def("initial_state", &Bound::initial_state, nb::arg("batch_size"))
        .def("feed_ids", &Bound::feed_ids, nb::arg("ids"), nb::arg("fresh").none(), nb::arg("before"),
             nb::arg("wanted"), nb::arg("threads"))
        .def("feed_vectors", &Bound::feed_vectors, nb::arg("x"), nb::arg("fresh").none(), nb::arg("before"),
             nb::arg("wanted"), nb::arg("threads"))
        .def("step_ids", &Bound::step_ids, nb::arg("ids"), nb::arg("before"), nb::arg("threads"))
        .def("step_vectors", &Bound::step_vectors, nb::arg("x"), nb::arg("before"), nb::arg("threads"))
        .def("nats", &Bound::nats, nb::arg("logits"), nb::arg("targets"), nb::arg("nats"))
        .def("probabilities", &Bound::probabilities, nb::arg("logits"), nb::arg("bias"), nb::arg("out"))
        .def("outputs_after", &Bound::outputs_after, nb::arg("state"), nb::arg("threads"))
        .def("generate", &Bound::generate, nb::arg("logits"), nb::arg("state"), nb::arg("samplers"),
             nb::arg("separator"), nb::arg("matched"), nb::arg("tokens"), nb::arg("threads"))
        .def("search", &Bound::search, nb::arg("logits"), nb::arg("state"), nb::arg("separator"), nb::arg("matched"),
             nb::arg("stops"), nb::arg("allowed").none(), nb::arg("beams"), nb::arg("best"), nb::arg("tokens"),
             nb::arg("length_penalty"), nb::arg("threads"));
}

}  // namespace throughtime
