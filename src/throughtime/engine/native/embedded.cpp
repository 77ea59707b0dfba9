// The C interface. No exception leaves it, and no argument is used before it is checked.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../../include/throughtime.h"
#include "fields.hpp"
#include "levels.hpp"
#include "network.hpp"
#include "sampler.hpp"
#include "separator.hpp"

using namespace throughtime;

struct tt_model {
    enum Tokens { BYTES, CHARACTERS, OTHERS };

    Network network;
    Tokens kind = OTHERS;
    int64_t unknown = -1;
    int threads = 1;
    Separator separator{{}, ""};                            // what tokens stand for, and where documents end
    std::vector<std::pair<std::string, int64_t>> by_piece;  // sorted

    // What the first layer makes of every token is looked up where it takes no more than so many bytes.
    tt_model() : network(1 << 24) {}
    const std::vector<std::string>& pieces() const { return separator.all_pieces(); }
    int64_t vocabulary() const { return (int64_t)pieces().size(); }
    void check_token(int64_t token) const {
        if (token < 0 || token >= vocabulary())
            throw std::out_of_range("token " + std::to_string(token) + " is not in a vocabulary of " +
                                    std::to_string(vocabulary()));
    }
    // A state has a number more than the network's: the bytes of the separator that were matched.
    int64_t matched(const float* state) const {
        const float found = state[network.state_size()];
        if (!(found >= 0 && found <= (float)separator.size() && found == std::floor(found)))
            throw std::invalid_argument("the state is none: its last number says how much of the separator was read");
        return (int64_t)found;
    }
    void read(int64_t token, float* state, float* logits) const {
        const int64_t before = matched(state);
        const uint8_t begins = separator.ended(before);
        const std::vector<float*> arrays = network.arrays_in(state, 1);
        network.run({1, 1, &token, nullptr, &begins}, arrays.data(), arrays.data(), 1, logits, threads);
        state[network.state_size()] = (float)separator.after(before, token);
    }
};

namespace {

constexpr size_t LONGEST_SEPARATOR = 1 << 24;  // what a float counts exactly

// Why the last call of this thread failed.
thread_local char reason[256];

void keep_reason(const char* why) noexcept { snprintf(reason, sizeof reason, "%s", why); }

// What `work` gives; where it throws, `otherwise` as it then is.
template <class Result, class Work>
Result guarded(const Result& otherwise, Work work) noexcept {
    try {
        const Result found = work();
        keep_reason("");
        return found;
    } catch (const std::bad_alloc&) {
        keep_reason("there is not enough memory");
    } catch (const std::exception& failure) {
        keep_reason(failure.what());
    } catch (...) {
        keep_reason("an exception of an unknown kind");
    }
    return otherwise;
}

void check(bool holds, const char* otherwise) {
    if (!holds) throw std::invalid_argument(otherwise);
}

template <class T>
T& given(T* pointer, const char* otherwise) {
    check(pointer, otherwise);
    return *pointer;
}

const tt_model& given(const tt_model* model) { return given(model, "the model is null"); }

// A name in a file, as a terminal may show it.
std::string shown(const std::string& name) {
    std::string found = name.substr(0, 32);
    for (char& byte : found)
        if (byte < ' ' || byte > '~') byte = '?';
    return found;
}

const Level& chosen_level() {
    const char* wanted = getenv("THROUGHTIME_ISA");
    const std::vector<const Level*> found = levels();
    if (found.empty())
        throw std::runtime_error("the library has no kernels for this processor: build it with all levels");
    const Level* level = wanted && *wanted ? level_of(wanted) : found.back();
    if (!level) throw std::runtime_error("THROUGHTIME_ISA names no level that is there");
    return *level;
}

tt_model::Tokens kind_of(const std::string& tokens) {
    if (tokens == "byte") return tt_model::BYTES;
    if (tokens == "char") return tt_model::CHARACTERS;
    if (tokens == "word" || tokens == "bpe") return tt_model::OTHERS;
    throw std::runtime_error("the file is damaged: it has tokens of an unknown kind");
}

void read_vocabulary(Fields& fields, tt_model& model) {
    model.kind = kind_of(fields.text());
    model.unknown = fields.number();
    const int64_t V = fields.count("the number of tokens");
    check(model.unknown >= -1 && model.unknown < V, "the file is damaged: the unknown token is out of range");
    std::vector<std::string> pieces;
    for (int64_t i = 0; i < V; i++) {
        pieces.push_back(fields.text());
        if (i != model.unknown) model.by_piece.emplace_back(pieces.back(), i);
    }
    std::sort(model.by_piece.begin(), model.by_piece.end());
    std::string separator = fields.text();
    check(separator.size() <= LONGEST_SEPARATOR, "the file is damaged: the separator is too long");
    model.separator = Separator(std::move(pieces), std::move(separator));
}

std::unique_ptr<tt_model> load(const char* path, int threads) {
    check(path, "no file is named");
    check(threads >= 0, "threads must not be negative");
    Fields fields(path);
    const Level& level = chosen_level();
    std::unique_ptr<tt_model> model(new tt_model);
    Network& network = model->network;
    model->threads = threads ? threads : std::max(1, (int)std::thread::hardware_concurrency());
    const std::string weights = fields.text();
    read_vocabulary(fields, *model);
    const auto kernel_of = [&](const std::string& cell, const std::string& held) -> const Recurrence& {
        const Recurrence* found = recurrence_of(level, cell, held);
        if (!found)
            throw std::runtime_error("the library has no kernel for " + shown(cell) + " with weights in " +
                                     shown(held));
        return *found;
    };
    const int64_t V = model->vocabulary();
    int64_t D = 0;
    const std::vector<float> embedding = fields.array(V, D, "the embedding");
    network.embed(embedding.data(), V, D);
    const auto units = [&] { return fields.number(1, Fields::LARGEST, "the number of units"); };
    const bool of_one_size = fields.version() == Fields::ONE_SIZE;
    int64_t H = of_one_size ? units() : 0, below = D;
    const int64_t layers = fields.count("the number of layers");
    for (int64_t i = 0; i < layers; i++, below = H) {
        if (!of_one_size) H = units();
        const std::string cell = fields.text();
        const Recurrence& kernel = kernel_of(cell, fields.text());
        Layer layer{};
        layer.threads = 1;
        layer.inputs = below, layer.units = H;
        const std::vector<float> W = fields.matrix(kernel.gates * H, layer.inputs, "a matrix");
        std::vector<float> U;
        if (kernel.product) U = fields.matrix(kernel.gates * H, H, "a matrix");
        const std::vector<float> vectors = fields.matrix(1, kernel.vectors * H, "a vector");
        layer.W = W.data(), layer.U = U.data(), layer.vectors = vectors.data();
        network.add(kernel, layer);
    }
    const std::vector<float> W = fields.matrix(V, H, "the head"), b = fields.matrix(1, V, "the head's bias");
    fields.end();
    Layer head{};
    head.threads = 1;
    head.inputs = H, head.units = V, head.W = W.data(), head.vectors = b.data();
    network.put_head(kernel_of("affine", weights), head);
    return model;
}

// Bytes of the UTF-8 character that begins here; 0: there is none.
size_t character_size(const unsigned char* text, size_t length) {
    const unsigned char first = text[0];
    const size_t size = first < 0x80   ? 1
                        : first < 0xc2 ? 0
                        : first < 0xe0 ? 2
                        : first < 0xf0 ? 3
                        : first < 0xf5 ? 4
                                       : 0;
    if (size > length) return 0;
    for (size_t i = 1; i < size; i++)
        if ((text[i] & 0xc0) != 0x80) return 0;
    // Longer than need be, half of a surrogate pair, or beyond the last code point.
    const bool wrong = (first == 0xe0 && text[1] < 0xa0) || (first == 0xed && text[1] > 0x9f) ||
                       (first == 0xf0 && text[1] < 0x90) || (first == 0xf4 && text[1] > 0x8f);
    return wrong ? 0 : size;
}

// `failure` is the number of what is wrong where it throws.
int64_t encode(const tt_model& model, const char* text, size_t length, int64_t* tokens, int64_t room,
               int64_t& failure) {
    const auto refuse = [&](int64_t number, const char* why) {
        failure = number;
        throw std::invalid_argument(why);
    };
    check(text || !length, "the text is null");
    check(room >= 0, "room must not be negative");
    check(tokens || !room, "tokens is null");
    if (model.kind == tt_model::OTHERS) refuse(-1, "words and byte pairs need the model's tokeniser");
    int64_t count = 0;
    for (size_t at = 0; at < length; count++) {
        const size_t size = model.kind == tt_model::BYTES
                                ? 1
                                : character_size(reinterpret_cast<const unsigned char*>(text) + at, length - at);
        check(size, "the text is not UTF-8");
        const std::pair<std::string, int64_t> wanted(std::string(text + at, size), 0);
        const auto found = std::lower_bound(model.by_piece.begin(), model.by_piece.end(), wanted);
        if (found == model.by_piece.end() || found->first != wanted.first)
            refuse(-2, "the vocabulary lacks a character of the text");
        if (count < room) tokens[count] = found->second;
        at += size;
    }
    return count;
}

Sampler sampler_of(const tt_model& model, const tt_choice& choice) {
    std::vector<uint8_t> allowed;
    if (model.unknown >= 0) {
        allowed.assign(model.vocabulary(), 1);
        allowed[model.unknown] = 0;
    }
    return Sampler(
        {choice.temperature, choice.top_k, choice.top_p, choice.min_p, choice.repetition_penalty, choice.seed},
        model.vocabulary(), std::move(allowed));
}

}  // namespace

tt_model* tt_load(const char* file, int threads, char* error, size_t room) {
    tt_model* model = guarded<tt_model*>(nullptr, [&] { return load(file, threads).release(); });
    if (!model && error && room) snprintf(error, room, "%s%s%s", file ? file : "", file ? ": " : "", reason);
    return model;
}

void tt_free(tt_model* model) { delete model; }

const char* tt_error(void) { return reason; }

int64_t tt_vocabulary(const tt_model* model) {
    return guarded<int64_t>(-1, [&] { return given(model).vocabulary(); });
}

size_t tt_state_size(const tt_model* model) {
    return guarded<size_t>(0, [&] { return (size_t)given(model).network.state_size() + 1; });
}

const char* tt_piece(const tt_model* model, int64_t token, size_t* length) {
    return guarded<const char*>(nullptr, [&] {
        given(model).check_token(token);
        const std::string& piece = model->pieces()[token];
        given(length, "length is null") = piece.size();
        return piece.data();
    });
}

int64_t tt_encode(const tt_model* model, const char* text, size_t length, int64_t* tokens, int64_t room) {
    int64_t failure = -3;
    return guarded(failure, [&] { return encode(given(model), text, length, tokens, room, failure); });
}

int tt_step(const tt_model* model, int64_t token, float* state, float* logits) {
    return guarded(-1, [&] {
        given(model).check_token(token);
        check(state && logits, "state or logits is null");
        model->read(token, state, logits);
        return 0;
    });
}

tt_choice tt_usual(void) { return {1, 0, 1, 0, 1, 0}; }

int64_t tt_generate(const tt_model* model, float* state, const int64_t* prompt, int64_t count, int64_t tokens,
                    const tt_choice* choice, tt_sink sink, void* user) {
    return guarded<int64_t>(-1, [&] {
        check(state && prompt && sink, "state, prompt or sink is null");
        check(count > 0, "a prompt needs at least one token");
        check(tokens >= 0, "tokens must not be negative");
        for (int64_t i = 0; i < count; i++) given(model).check_token(prompt[i]);
        model->matched(state);
        Sampler sampler = sampler_of(*model, given(choice, "choice is null"));
        std::vector<float> logits(model->vocabulary());
        for (int64_t i = 0; i < count; i++) {
            model->read(prompt[i], state, logits.data());
            sampler.see(prompt[i]);
        }
        for (int64_t written = 0; written < tokens; written++) {
            const int64_t token = sampler.choose(logits.data());
            check(token >= 0, "no token that is allowed can follow");
            const std::string& piece = model->pieces()[token];
            if (sink(user, piece.data(), piece.size())) return written + 1;
            model->read(token, state, logits.data());
        }
        return tokens;
    });
}
