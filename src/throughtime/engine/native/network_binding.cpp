// Networks and samplers as Python sees them.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "array.hpp"
#include "beam.hpp"
#include "bindings.hpp"
#include "levels.hpp"
#include "network.hpp"
#include "sampler.hpp"

namespace nb = nanobind;

namespace throughtime {
namespace {

void check(bool holds, const char* otherwise) {
    if (!holds) throw nb::value_error(otherwise);
}

// `otherwise` makes the message, only where it is needed.
template <class Message>
void check(bool holds, Message otherwise) {
    if (!holds) throw nb::value_error(std::string(otherwise()).c_str());
}

// A network, and the level its kernels are of.
struct Bound : Network {
    const Level* level;
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

    template <class State>
    void check_state(int64_t B, const State& state) const {
        check(state.shape(0) == state_arrays() && state.shape(1) == B && state.shape(2) == units(), [&] {
            return "a state should have shape [" + std::to_string(state_arrays()) + ", " + std::to_string(B) + ", " +
                   std::to_string(units()) + "]";
        });
    }

    void check_ids(const int64_t* all, int64_t count) const {
        check(ids() > 0, "this network reads vectors, not ids");
        for (int64_t i = 0; i < count; i++)
            if (all[i] < 0 || all[i] >= ids())
                throw nb::index_error(
                    ("id " + std::to_string(all[i]) + " is not in a vocabulary of " + std::to_string(ids())).c_str());
    }

    typedef std::optional<Array<const uint8_t, 2>> Fresh;
    typedef std::pair<Array<float, 3>, Array<float, 3>> Fed;  // outputs [wanted, B, outputs] and state

    // The outputs of the last `wanted` steps.
    Fed feed(Steps steps, const Fresh& fresh, Array<const float, 3> before, int64_t wanted, int threads) const {
        const int64_t T = steps.T, B = steps.B;
        check(T > 0 && B > 0 && threads > 0, "there should be at least one step, one lane and one thread");
        check(wanted >= 0 && wanted <= T, "there are not as many outputs as are wanted");
        check(!fresh || (fresh->shape(0) == T && fresh->shape(1) == B),
              "fresh should have a mark for every step of every lane");
        check_state(B, before);
        if (fresh) steps.fresh = fresh->data();
        auto after = Array<float, 3>::unwritten(before.shape(0), B, units());
        auto out = Array<float, 3>::unwritten(wanted, B, outputs());
        {
            const Unlocked unlocked;
            run(steps, before.data(), after.data(), wanted, out.data(), threads);
        }
        return {std::move(out), std::move(after)};
    }

    Fed feed_ids(Array<const int64_t, 2> ids, const Fresh& fresh, Array<const float, 3> before, int64_t wanted,
                 int threads) const {
        check_ids(ids.data(), ids.size());
        return feed({ids.shape(0), ids.shape(1), ids.data(), nullptr, nullptr}, fresh, before, wanted, threads);
    }

    Fed feed_vectors(Array<const float, 3> x, const Fresh& fresh, Array<const float, 3> before, int64_t wanted,
                     int threads) const {
        check(!ids(), "this network reads ids, not vectors");
        check(x.shape(2) == inputs(),
              [&] { return "the inputs should have shape [T, B, " + std::to_string(inputs()) + "]"; });
        return feed({x.shape(0), x.shape(1), nullptr, x.data(), nullptr}, fresh, before, wanted, threads);
    }

    void nats(Array<const float, 2> logits_NV, Array<const int64_t, 1> targets_N, Array<double, 1> nats_N) const {
        const int64_t N = logits_NV.shape(0), V = logits_NV.shape(1);
        check(targets_N.size() == N && nats_N.size() == N, "logits, targets and nats should be as many");
        for (int64_t i = 0; i < N; i++)
            check(targets_N.data()[i] >= 0 && targets_N.data()[i] < V, "a target is not in the vocabulary");
        const Unlocked unlocked;
        level->target_nats(logits_NV.data(), N, V, targets_N.data(), nats_N.data());
    }

    void probabilities(Array<const float, 2> logits_BV, Array<const float, 1> bias_V, Array<double, 2> out_BV) const {
        const int64_t B = logits_BV.shape(0), V = logits_BV.shape(1);
        check(bias_V.size() == V && out_BV.shape(0) == B && out_BV.shape(1) == V,
              "logits, bias and probabilities should be of one size");
        check(V < 1 << 24, "there are too many tokens for probabilities of 24 bits");
        const Unlocked unlocked;
        level->whole_probabilities(logits_BV.data(), B, V, bias_V.data(), out_BV.data());
    }

    // Draws tokens [T, B]: each lane's from its logits [1, B, V], which are then those after it, as the state is.
    void generate(Array<float, 3> logits, Array<float, 3> state, std::vector<Sampler*> samplers,
                  Array<int64_t, 2> tokens, int threads) const {
        const int64_t B = (int64_t)samplers.size(), V = outputs();
        check(B > 0 && ids() == V, "a network that writes what it reads, and a sampler for each lane, are needed");
        check_state(B, state);
        check(logits.shape(0) == 1 && logits.shape(1) == B && logits.shape(2) == V,
              "the logits should have shape [1, B, V]");
        check(tokens.shape(1) == B, "the tokens should have a column for each lane");
        for (const Sampler* sampler : samplers) check(sampler->vocabulary == V, "a sampler is of another vocabulary");
        const Unlocked unlocked;
        for (int64_t t = 0; t < tokens.shape(0); t++) {
            int64_t* drawn = tokens.data() + t * B;
            choose(samplers.data(), B, logits.data(), drawn, threads);
            for (int64_t b = 0; b < B; b++)
                if (drawn[b] < 0) throw std::invalid_argument("no token that is allowed can follow");
            run({1, B, drawn, nullptr, nullptr}, state.data(), state.data(), 1, logits.data(), threads);
        }
    }

    // (text, nats, score, state) of each text found, from the logits [V] of what comes next and the state [S, 1, H].
    nb::list search(Array<const float, 1> logits, Array<const float, 3> state, const std::vector<nb::bytes>& pieces,
                    const std::vector<nb::bytes>& stops, std::optional<Array<const uint8_t, 1>> allowed, int64_t beams,
                    int64_t best, int64_t tokens, double length_penalty, int threads) const {
        const auto strings = [](const std::vector<nb::bytes>& all) {
            std::vector<std::string> found;
            for (const nb::bytes& one : all) found.emplace_back(one.c_str(), one.size());
            return found;
        };
        const int64_t V = outputs();
        check(ids() == V && (int64_t)pieces.size() == V,
              "a network that writes what it reads, and a piece a token, are needed");
        check_state(1, state);
        check(logits.size() == V, "there should be a logit for each token");
        check(!allowed || allowed->size() == V, "the allowed tokens should be a mask of all");
        check(beams > 0 && best > 0 && tokens > 0 && threads > 0, "there should be at least one of each");
        Search wanted{beams, best, tokens, length_penalty, strings(pieces), strings(stops), {}};
        for (const std::string& stop : wanted.stops) check(!stop.empty(), "a stop should not be empty");
        if (allowed) wanted.allowed.assign(allowed->data(), allowed->data() + V);
        std::vector<Ended> found;
        {
            const Unlocked unlocked;
            found = throughtime::search(*this, wanted, logits.data(), state.data(), threads);
        }
        nb::list result;
        for (Ended& one : found) {
            const auto after = Array<float, 3>::unwritten(state_arrays(), 1, units());
            std::copy(one.state.begin(), one.state.end(), after.data());
            result.append(nb::make_tuple(nb::bytes(one.text.data(), one.text.size()), one.nats, one.score, after));
        }
        return result;
    }
};

}  // namespace

void bind_network(nb::module_& m) {
    nb::class_<Sampler>(m, "Sampler")
        .def(
            "__init__",
            [](Sampler* self, int64_t vocabulary, double temperature, int64_t top_k, double top_p, double min_p,
               double repetition_penalty, uint64_t seed, std::optional<Array<const uint8_t, 1>> allowed) {
                std::vector<uint8_t> mask;
                if (allowed) mask.assign(allowed->data(), allowed->data() + allowed->size());
                check(!allowed || (int64_t)mask.size() == vocabulary, "the allowed tokens should be a mask of all");
                new (self) Sampler({temperature, top_k, top_p, min_p, repetition_penalty, seed}, vocabulary, mask);
            },
            nb::arg("vocabulary"), nb::arg("temperature"), nb::arg("top_k"), nb::arg("top_p"), nb::arg("min_p"),
            nb::arg("repetition_penalty"), nb::arg("seed"), nb::arg("allowed").none())
        .def("see", [](Sampler& self, Array<const int64_t, 1> tokens) {
            for (int64_t i = 0; i < tokens.size(); i++) {
                check(tokens.data()[i] >= 0 && tokens.data()[i] < self.vocabulary, "a token is not in the vocabulary");
                self.see(tokens.data()[i]);
            }
        });
    nb::class_<Bound>(m, "Network")
        .def(nb::init<const std::string&, size_t>(), nb::arg("level"), nb::arg("table_bytes"))
        .def(
            "embed",
            [](Bound& self, Array<const float, 2> rows) {
                check(rows.size() > 0, "the embedding should have shape [V, D]");
                self.embed(rows.data(), rows.shape(0), rows.shape(1));
            },
            nb::arg("rows"))
        .def(
            "add",
            [](Bound& self, const std::string& cell, const std::string& weights, Array<const float, 2> W,
               std::optional<Array<const float, 2>> U, Array<const float, 1> vectors, int threads) {
                const Recurrence& kernel = self.kernel(cell, weights);
                self.add(kernel, Bound::given(kernel, W, U, vectors, threads));
            },
            nb::arg("cell"), nb::arg("weights"), nb::arg("W"), nb::arg("U").none(), nb::arg("vectors"),
            nb::arg("threads"))
        .def(
            "head",
            [](Bound& self, const std::string& weights, Array<const float, 2> W, Array<const float, 1> b, int threads) {
                const Recurrence& kernel = self.kernel("affine", weights);
                self.put_head(kernel, Bound::given(kernel, W, std::nullopt, b, threads));
            },
            nb::arg("weights"), nb::arg("W"), nb::arg("b"), nb::arg("threads"))
        .def("feed_ids", &Bound::feed_ids, nb::arg("ids"), nb::arg("fresh").none(), nb::arg("before"),
             nb::arg("wanted"), nb::arg("threads"))
        .def("feed_vectors", &Bound::feed_vectors, nb::arg("x"), nb::arg("fresh").none(), nb::arg("before"),
             nb::arg("wanted"), nb::arg("threads"))
        .def("nats", &Bound::nats, nb::arg("logits"), nb::arg("targets"), nb::arg("nats"))
        .def("probabilities", &Bound::probabilities, nb::arg("logits"), nb::arg("bias"), nb::arg("out"))
        .def("generate", &Bound::generate, nb::arg("logits"), nb::arg("state"), nb::arg("samplers"), nb::arg("tokens"),
             nb::arg("threads"))
        .def("search", &Bound::search, nb::arg("logits"), nb::arg("state"), nb::arg("pieces"), nb::arg("stops"),
             nb::arg("allowed").none(), nb::arg("beams"), nb::arg("best"), nb::arg("tokens"), nb::arg("length_penalty"),
             nb::arg("threads"));
}

}  // namespace throughtime
