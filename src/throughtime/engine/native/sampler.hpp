// From logits to a token.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace throughtime {

struct Choice {
    double temperature = 1;         // 0: the likeliest token
    int64_t top_k = 0;              // draw from so many of the likeliest; 0: from all
    double top_p = 1;               // draw from the fewest likeliest whose probabilities sum to this
    double min_p = 0;               // draw from those at least so probable, as a share of the likeliest
    double repetition_penalty = 1;  // logits of tokens seen are divided by it where positive, else multiplied
    uint64_t seed = 0;
};

// One lane's way of choosing. The n-th draw depends on the seed and on n alone. Not for two threads at once.
class Sampler {
    Choice choice;
    std::vector<uint8_t> allowed;  // [V], or empty: all
    std::vector<uint8_t> seen;     // [V], only where repetition is penalised
    std::vector<std::pair<float, int32_t>> candidates;
    std::vector<double> weights;  // theirs

    double uniform();

 public:
    // Throws std::invalid_argument where a setting is out of range.
    Sampler(const Choice& choice, int64_t V, std::vector<uint8_t> allowed);
    void see(int64_t token);                   // one that was read; what is no token is ignored
    int64_t choose(float* logits);             // it may change them; -1: no token that is allowed has a finite logit
    std::vector<int64_t> tokens_seen() const;  // ascending; none where repetition is not penalised
    uint64_t seed() const { return choice.seed; }
    uint64_t drawn = 0;  // number of the next draw
    int64_t vocabulary;
};

// A token for each of B lanes, from logits [B, V]; each lane has its own sampler.
void choose(Sampler* const* samplers, int64_t B, float* logits, int64_t* tokens, int threads);

}  // namespace throughtime
