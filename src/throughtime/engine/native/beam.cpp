#include "beam.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

namespace throughtime {
namespace {

struct Beam {
    std::string text;
    double nats;
    int64_t matched;
};

struct Candidate {
    double nats;
    int64_t beam, token;
    // The earlier of two that are as likely goes first.
    bool operator<(const Candidate& other) const {
        if (nats != other.nats) return nats < other.nats;
        return beam != other.beam ? beam < other.beam : token < other.token;
    }
};

// States of some lanes, their arrays one behind the other.
struct States {
    std::vector<float> memory;
    std::vector<float*> arrays;

    void resize(const Network& network, int64_t lanes) {
        memory.resize(network.state_size() * lanes);
        arrays = network.arrays_in(memory.data(), lanes);
    }
};

// A lane of a state into a lane of another.
void copy_lane(const Network& network, const float* const* from, int64_t lane, float* const* to, int64_t to_lane) {
    for (const int64_t size : network.state_sizes())
        memcpy(*to++ + to_lane * size, *from++ + lane * size, size * sizeof(float));
}

// How all tokens follow one beam, those that can.
void follow(const float* logits, int64_t V, const Search& wanted, double nats, int64_t beam,
            std::vector<Candidate>& found) {
    const float most = *std::max_element(logits, logits + V);
    double total = 0;
    for (int64_t token = 0; token < V; token++) total += std::exp((double)logits[token] - most);
    const double base = nats + std::log(total) + most;
    for (int64_t token = 0; token < V; token++) {
        const double sum = base - logits[token];
        if (std::isfinite(sum) && (wanted.allowed.empty() || wanted.allowed[token]))
            found.push_back({sum, beam, token});
    }
}

// Where the first stop begins in a text whose last piece has so many bytes; npos: there is none. Before the piece there
// was none.
size_t stop_in(const std::string& text, size_t piece, const std::vector<std::string>& stops) {
    size_t first = std::string::npos;
    for (const std::string& stop : stops) {
        const size_t reach = piece + stop.size() - 1;
        first = std::min(first, text.find(stop, text.size() > reach ? text.size() - reach : 0));
    }
    return first;
}

}  // namespace

std::vector<Ended> search(const Network& network, const Search& wanted, const float* logits, const float* const* state,
                          int threads) {
    const int64_t V = network.outputs();
    const auto score = [&](double nats, int64_t tokens) {
        return -nats / std::pow((5 + (double)tokens) / 6, wanted.length_penalty);
    };
    States states, next_states;
    states.resize(network, 1);
    copy_lane(network, state, 0, states.arrays.data(), 0);
    std::vector<float> outputs(logits, logits + V);
    std::vector<Beam> alive{{"", 0.0, wanted.matched}}, following;
    std::vector<int64_t> parents, tokens;
    std::vector<uint8_t> fresh;
    std::vector<Candidate> candidates;
    std::vector<Ended> ended;
    for (int64_t length = 1; length <= wanted.tokens; length++) {
        candidates.clear();
        for (size_t beam = 0; beam < alive.size(); beam++)
            follow(outputs.data() + beam * V, V, wanted, alive[beam].nats, (int64_t)beam, candidates);
        const size_t looked_at = std::min(candidates.size(), (size_t)(2 * wanted.beams));
        std::partial_sort(candidates.begin(), candidates.begin() + looked_at, candidates.end());
        following.clear(), parents.clear(), tokens.clear(), fresh.clear();
        for (size_t i = 0; i < looked_at && (int64_t)following.size() < wanted.beams; i++) {
            const Candidate& next = candidates[i];
            const Beam& beam = alive[next.beam];
            const std::string& piece = wanted.separator.all_pieces()[next.token];
            const int64_t matched = wanted.separator.after(beam.matched, next.token);
            const uint8_t begins = wanted.separator.ended(beam.matched);
            std::string text = beam.text + piece;
            const size_t stop = stop_in(text, piece.size(), wanted.stops);
            if (stop == std::string::npos && length < wanted.tokens) {
                following.push_back({std::move(text), next.nats, matched});
                parents.push_back(next.beam), tokens.push_back(next.token), fresh.push_back(begins);
                continue;
            }
            States after;
            after.resize(network, 1);
            float* const* arrays = after.arrays.data();
            copy_lane(network, states.arrays.data(), next.beam, arrays, 0);
            std::vector<float> unread(V);
            network.run({1, 1, &next.token, nullptr, &begins}, arrays, arrays, 1, unread.data(), threads);
            ended.push_back(
                {text.substr(0, stop), next.nats, score(next.nats, length), std::move(after.memory), matched});
        }
        std::stable_sort(ended.begin(), ended.end(), [](const Ended& a, const Ended& b) { return a.score > b.score; });
        if (following.empty()) break;
        // Nats only grow; at best a beam keeps its own to the end, where the penalty for length helps it most. The first
        // of them has the fewest.
        if ((int64_t)ended.size() >= wanted.best &&
            score(following.front().nats, wanted.tokens) <= ended[wanted.best - 1].score)
            break;
        const int64_t lanes = (int64_t)following.size();
        next_states.resize(network, lanes);
        for (int64_t lane = 0; lane < lanes; lane++)
            copy_lane(network, states.arrays.data(), parents[lane], next_states.arrays.data(), lane);
        std::swap(states, next_states), alive.swap(following);
        outputs.resize(V * lanes);
        float* const* arrays = states.arrays.data();
        network.run({1, lanes, tokens.data(), nullptr, fresh.data()}, arrays, arrays, 1, outputs.data(), threads);
        wanted.pause();
    }
    if ((int64_t)ended.size() > wanted.best) ended.resize(wanted.best);
    return ended;
}

}  // namespace throughtime
