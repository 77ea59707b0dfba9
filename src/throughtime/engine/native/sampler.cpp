#include "sampler.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "team.hpp"

namespace throughtime {
namespace {

// SplitMix64 (Steele, Lea & Flood 2014): the n-th number of a seed, without those before it.
uint64_t random_bits(uint64_t seed, uint64_t n) {
    uint64_t z = seed + (n + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

// A thread more has to have this many logits to look at: to wake it and to meet it takes microseconds.
constexpr int64_t ENTRIES_A_THREAD = 1 << 10;

constexpr float NEVER = -std::numeric_limits<float>::infinity();
constexpr float LARGEST = std::numeric_limits<float>::max();

// As a float that is neither 0 nor infinite: a logit multiplied by it is never NaN.
float within(double factor) {
    return (float)std::min(std::max(factor, (double)std::numeric_limits<float>::min()), (double)LARGEST);
}

}  // namespace

Sampler::Sampler(const Choice& choice, int64_t V, std::vector<uint8_t> allowed)
    : choice(choice), allowed(std::move(allowed)), vocabulary(V) {
    const auto check = [](bool holds, const char* otherwise) {
        if (!holds) throw std::invalid_argument(otherwise);
    };
    check(choice.temperature >= 0 && std::isfinite(choice.temperature), "temperature must be finite and not negative");
    check(choice.top_k >= 0, "top_k must not be negative");
    check(choice.top_p > 0 && choice.top_p <= 1, "top_p must be above 0 and at most 1");
    check(choice.min_p >= 0 && choice.min_p <= 1, "min_p must be 0 to 1");
    check(choice.repetition_penalty > 0 && std::isfinite(choice.repetition_penalty),
          "repetition_penalty must be finite and above 0");
    if (choice.repetition_penalty != 1) seen.resize(V);
}

void Sampler::see(int64_t token) {
    if (token >= 0 && token < (int64_t)seen.size()) seen[token] = 1;
}

std::vector<int64_t> Sampler::tokens_seen() const {
    std::vector<int64_t> tokens;
    for (int64_t token = 0; token < (int64_t)seen.size(); token++)
        if (seen[token]) tokens.push_back(token);
    return tokens;
}

double Sampler::uniform() {
    // The seed is scrambled first: draws of neighbouring seeds would be one another's.
    return (double)(random_bits(random_bits(choice.seed, 0), drawn++) >> 11) * 0x1p-53;
}

int64_t Sampler::choose(float* logits) {
    const int64_t V = vocabulary;
    const float rise = within(choice.repetition_penalty), fall = within(1 / choice.repetition_penalty);
    for (int64_t i = 0; i < (int64_t)seen.size(); i++)
        if (seen[i] && std::isfinite(logits[i]))
            logits[i] = std::min(std::max(logits[i] * (logits[i] > 0 ? fall : rise), -LARGEST), LARGEST);
    for (int64_t i = 0; i < (int64_t)allowed.size(); i++)
        if (!allowed[i]) logits[i] = NEVER;
    int64_t token = -1;
    float highest = NEVER;
    for (int64_t i = 0; i < V; i++)
        if (logits[i] > highest) highest = logits[i], token = i;
    if (token < 0 || !std::isfinite(highest)) return -1;
    if (choice.temperature > 0) {
        const double most = highest;
        // Beyond this no draw of 53 bits would ever end.
        double least = most + std::max(std::log(std::max(choice.min_p, 1e-300)), -64.0) * choice.temperature;
        if (!(least <= most)) least = most;  // a share above 1, or none
        if (least < -LARGEST) least = -LARGEST;
        candidates.clear();
        for (int64_t i = 0; i < V; i++)
            if (logits[i] >= (float)least) candidates.emplace_back(logits[i], (int32_t)i);
        const auto likelier = [](const auto& a, const auto& b) {
            return a.first > b.first || (a.first == b.first && a.second < b.second);
        };
        size_t count = candidates.size();
        if (choice.top_k > 0 && (size_t)choice.top_k < count) {
            count = choice.top_k;
            std::partial_sort(candidates.begin(), candidates.begin() + count, candidates.end(), likelier);
        }
        if (choice.top_p < 1) std::sort(candidates.begin(), candidates.begin() + count, likelier);
        weights.resize(count);
        double total = 0;
        for (size_t i = 0; i < count; i++) {
            weights[i] = std::exp((candidates[i].first - most) / choice.temperature);
            total += weights[i];
        }
        if (choice.top_p < 1) {
            const double wanted = choice.top_p * total;
            size_t taken = 0;
            for (total = 0; taken < count && (taken == 0 || total < wanted); taken++) total += weights[taken];
            count = taken;
        }
        double left = uniform() * total;
        size_t i = 0;
        while (i + 1 < count && (left -= weights[i]) >= 0) i++;
        token = candidates[i].second;
    }
    see(token);
    return token;
}

void choose(Sampler* const* samplers, int64_t B, float* logits, int64_t* tokens, int threads) {
    struct Work {
        Sampler* const* samplers;
        int64_t B;
        float* logits;
        int64_t* tokens;
    } work{samplers, B, logits, tokens};
    const int64_t most = 1 + B * samplers[0]->vocabulary / ENTRIES_A_THREAD;
    in_parallel(
        threads < most ? threads : (int)most,
        [](void* data, int thread, int count) {
            const Work& w = *static_cast<Work*>(data);
            for (int64_t b = w.B * thread / count; b < w.B * (thread + 1) / count; b++)
                w.tokens[b] = w.samplers[b]->choose(w.logits + b * w.samplers[b]->vocabulary);
        },
        &work);
}

}  // namespace throughtime
