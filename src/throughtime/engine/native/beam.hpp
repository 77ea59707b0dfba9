// Beam search: the likeliest texts that follow a state.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "network.hpp"
#include "separator.hpp"

namespace throughtime {

struct Search {
    int64_t beams, best, tokens;     // texts followed at once, wanted, and the longest of them
    double length_penalty;           // a text's score is -nats / ((5 + tokens) / 6) ^ this
    const Separator& separator;      // what the tokens stand for, and where documents end
    int64_t matched;                 // bytes of it that the text before ends with
    std::vector<std::string> stops;  // each ends a text
    std::vector<uint8_t> allowed;    // [V], or empty: all
    void (*pause)();                 // called after every step; it may throw to end the search
};

struct Ended {
    std::string text;  // without the stop that ended it
    double nats, score;
    std::vector<float> state;  // after the last token, its arrays one behind the other
    int64_t matched;           // bytes of the separator that it ends with
};

// The best texts found, the best first, from the logits [V] of what comes next and the state of one lane. The search
// ends when `best` texts have ended and no beam can become better than they are.
std::vector<Ended> search(const Network& network, const Search& wanted, const float* logits, const float* const* state,
                          int threads);

}  // namespace throughtime
