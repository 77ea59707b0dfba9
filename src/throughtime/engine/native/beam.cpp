#include "beam.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

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

// A lane of a state [S, B, H] into a lane of another.
void copy_lane(const Network& network, const float* from, int64_t lanes, int64_t lane, float* to, int64_t to_lanes,
               int64_t to_lane) {
    const int64_t S = network.state_arrays(), H = network.units();
    for (int64_t s = 0; s < S; s++)
        memcpy(to + (s * to_lanes + to_lane) * H, from + (s * lanes + lane) * H, H * sizeof(float));
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

std::vector<Ended> search(const Network& network, const Search& wanted, const float* logits, const float* state,
                          int threads) {
    const int64_t V = network.outputs(), size = network.state_arrays() * network.units();
    const auto score = [&](double nats, int64_t tokens) {
        return -nats / std::pow((5 + (double)tokens) / 6, wanted.length_penalty);
    };
    std::vector<float> states(state, state + size), next_states, outputs(logits, logits + V);
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
            std::vector<float> after(size), unread(V);
            copy_lane(network, states.data(), (int64_t)alive.size(), next.beam, after.data(), 1, 0);
            network.run({1, 1, &next.token, nullptr, &begins}, after.data(), after.data(), 1, unread.data(), threads);
            ended.push_back({text.substr(0, stop), next.nats, score(next.nats, length), std::move(after), matched});
        }
        std::stable_sort(ended.begin(), ended.end(), [](const Ended& a, const Ended& b) { return a.score > b.score; });
        if (following.empty()) break;
        // Nats only grow; at best a beam keeps its own to the end, where the penalty for length helps it most. The first
        // of them has the fewest.
        if ((int64_t)ended.size() >= wanted.best &&
            score(following.front().nats, wanted.tokens) <= ended[wanted.best - 1].score)
            break;
        const int64_t lanes = (int64_t)following.size();
        next_states.resize(size * lanes);
        for (int64_t lane = 0; lane < lanes; lane++)
            copy_lane(network, states.data(), (int64_t)alive.size(), parents[lane], next_states.data(), lanes, lane);
        states.swap(next_states), alive.swap(following);
        outputs.resize(V * lanes);
        network.run({1, lanes, tokens.data(), nullptr, fresh.data()}, states.data(), states.data(), 1, outputs.data(),
                    threads);
        wanted.pause();
    }
    if ((int64_t)ended.size() > wanted.best) ended.resize(wanted.best);
    return ended;
}

}  // namespace throughtime
