// Samplers and separators as Python sees them.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "array.hpp"
#include "bound.hpp"
#include "sampler.hpp"
#include "separator.hpp"

namespace throughtime {
namespace {

// Where documents begin in ids [T, B] of lanes that have matched so much; afterwards that is what they match at the end.
Array<uint8_t, 2> document_starts(const Separator& separator, Array<const int64_t, 2> ids, Array<int64_t, 1> matched) {
    const int64_t T = ids.shape(0), B = ids.shape(1);
    check(matched.size() == B, "there should be a number for each lane");
    auto fresh = Array<uint8_t, 2>::unwritten(T, B);
    std::fill(fresh.data(), fresh.data() + T * B, 0);
    for (int64_t b = 0; b < B && separator.size(); b++) {
        int64_t at = matched.data()[b];
        check(at >= 0 && at <= separator.size(), "more is matched than the separator has");
        for (int64_t t = 0; t < T; t++) {
            const int64_t id = ids.data()[t * B + b];
            if (id < 0 || id >= (int64_t)separator.all_pieces().size())
                throw nb::index_error(("id " + std::to_string(id) + " is not in a vocabulary of " +
                                       std::to_string(separator.all_pieces().size()))
                                          .c_str());
            fresh.data()[t * B + b] = separator.ended(at);
            at = separator.after(at, id);
        }
        matched.data()[b] = at;
    }
    return fresh;
}

}  // namespace

void bind_sampling(nb::module_& m) {
    nb::class_<Separator>(m, "Separator")
        .def(
            "__init__",
            [](Separator* self, const std::vector<nb::bytes>& pieces, const nb::bytes& text) {
                new (self) Separator(strings(pieces), std::string(text.c_str(), text.size()));
            },
            nb::arg("pieces"), nb::arg("text"))
        .def("starts", &document_starts, nb::arg("ids"), nb::arg("matched"))
        .def_prop_ro("pieces", [](const Separator& self) {
            nb::list pieces;
            for (const std::string& piece : self.all_pieces()) pieces.append(nb::bytes(piece.data(), piece.size()));
            return nb::tuple(pieces);
        });
    nb::class_<BoundSampler>(m, "Sampler")
        .def(
            "__init__",
            [](BoundSampler* self, int64_t vocabulary, double temperature, int64_t top_k, double top_p, double min_p,
               double repetition_penalty, uint64_t seed, std::optional<Array<const uint8_t, 1>> allowed) {
                std::vector<uint8_t> mask;
                if (allowed) mask.assign(allowed->data(), allowed->data() + allowed->size());
                check(vocabulary > 0, "the vocabulary should have a token");
                check(!allowed || (int64_t)mask.size() == vocabulary, "the allowed tokens should be a mask of all");
                new (self)
                    BoundSampler(Choice{temperature, top_k, top_p, min_p, repetition_penalty, seed}, vocabulary, mask);
            },
            nb::arg("vocabulary"), nb::arg("temperature"), nb::arg("top_k"), nb::arg("top_p"), nb::arg("min_p"),
            nb::arg("repetition_penalty"), nb::arg("seed"), nb::arg("allowed").none())
        .def("see",
             [](BoundSampler& self, Array<const int64_t, 1> tokens) {
                 self.check_free();
                 for (int64_t i = 0; i < tokens.size(); i++) {
                     check(tokens.data()[i] >= 0 && tokens.data()[i] < self.vocabulary,
                           "a token is not in the vocabulary");
                     self.see(tokens.data()[i]);
                 }
             })
        .def("skip",
             [](BoundSampler& self, uint64_t drawn) {
                 self.check_free();
                 self.drawn = drawn;
             })
        .def("choose",
             [](BoundSampler& self, Array<float, 1> logits) {
                 self.check_free();
                 check(logits.size() == self.vocabulary, "there should be a logit for each token");
                 return self.choose(logits.data());
             })
        .def_prop_ro("seed", [](const BoundSampler& self) { return self.seed(); })
        .def_prop_ro("drawn",
                     [](const BoundSampler& self) {
                         self.check_free();
                         return self.drawn;
                     })
        .def_prop_ro("seen", [](const BoundSampler& self) {
            self.check_free();
            return self.tokens_seen();
        });
}

}  // namespace throughtime
