// The C interface, and the file it loads: see runtime/embedded.py for what is in it.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../../include/throughtime.h"
#include "levels.hpp"
#include "network.hpp"
#include "sampler.hpp"

using namespace throughtime;

struct tt_model {
    enum Tokens { BYTES, CHARACTERS, OTHERS };

    Network network;
    Tokens kind = OTHERS;
    int64_t unknown = -1;
    int threads = 1;
    std::vector<std::string> pieces;
    std::vector<std::pair<std::string, int64_t>> by_piece;  // sorted

    explicit tt_model(size_t table_bytes) : network(table_bytes) {}
    bool knows(int64_t token) const { return token >= 0 && token < (int64_t)pieces.size(); }
};

namespace {

constexpr char MAGIC[] = "throughtime embedded 1\n";
constexpr int64_t MOST = int64_t(1) << 40;

uint32_t crc32(const uint8_t* data, size_t size) {
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

// Reads a file's fields one after another, and never beyond its end.
class Fields {
    std::vector<uint8_t> content;
    size_t at = 0;

    void take(void* to, size_t size) {
        if (size > content.size() - at) throw std::runtime_error("the file is damaged: it ends too early");
        memcpy(to, content.data() + at, size);
        at += size;
    }

 public:
    explicit Fields(const char* path) {
        const std::unique_ptr<FILE, int (*)(FILE*)> file(fopen(path, "rb"), fclose);
        if (!file) throw std::runtime_error("the file cannot be opened");
        uint8_t block[1 << 16];
        for (size_t got; (got = fread(block, 1, sizeof block, file.get())) > 0;)
            content.insert(content.end(), block, block + got);
        char magic[sizeof MAGIC - 1];
        take(magic, std::min(sizeof magic, content.size()));
        if (content.size() < sizeof magic || memcmp(magic, MAGIC, sizeof magic) != 0)
            throw std::runtime_error("the file was not written by `throughtime embed`");
        const uint32_t check = (uint32_t)number();
        if (check != crc32(content.data() + at, content.size() - at))
            throw std::runtime_error("the file is damaged: its check sum is another");
    }

    int64_t number() {
        int64_t found;
        take(&found, sizeof found);
        return found;
    }

    int64_t size() {
        const int64_t found = number();
        if (found < 0 || found > MOST) throw std::runtime_error("the file is damaged: a size is out of range");
        return found;
    }

    std::string text() {
        std::string found(std::min<int64_t>(size(), (int64_t)content.size()), '\0');
        take(&found[0], found.size());
        return found;
    }

    // Rows and columns, and float32 numbers, or int8 with a scale for each row.
    std::vector<float> array(int64_t& rows, int64_t& columns) {
        const int64_t kind = number();
        rows = size(), columns = size();
        if (columns && rows > (int64_t)content.size() / columns)
            throw std::runtime_error("the file is damaged: an array");
        std::vector<float> found(rows * columns);
        if (kind == 0) {
            take(found.data(), found.size() * sizeof(float));
            return found;
        }
        std::vector<float> scales(rows);
        std::vector<int8_t> whole(found.size());
        take(scales.data(), scales.size() * sizeof(float));
        take(whole.data(), whole.size());
        for (int64_t i = 0; i < (int64_t)found.size(); i++) found[i] = whole[i] * scales[i / columns];
        return found;
    }

    std::vector<float> matrix(int64_t rows, int64_t columns) {
        int64_t r, c;
        std::vector<float> found = array(r, c);
        if (r != rows || c != columns) throw std::runtime_error("the file is damaged: a matrix has another shape");
        return found;
    }
};

const Level& chosen_level() {
    const char* wanted = getenv("THROUGHTIME_ISA");
    const Level* level = wanted && *wanted ? level_of(wanted) : levels().back();
    if (!level) throw std::runtime_error("THROUGHTIME_ISA names no level that is there");
    return *level;
}

std::unique_ptr<tt_model> load(const char* path, int threads) {
    Fields fields(path);
    const Level& level = chosen_level();
    std::unique_ptr<tt_model> model(new tt_model((size_t)fields.size()));
    Network& network = model->network;
    model->threads = threads > 0 ? threads : 1;
    const std::string weights = fields.text();
    const std::string tokens = fields.text();
    model->kind = tokens == "byte" ? tt_model::BYTES : tokens == "char" ? tt_model::CHARACTERS : tt_model::OTHERS;
    model->unknown = fields.number();
    const int64_t V = fields.size();
    if (model->unknown < -1 || model->unknown >= V) throw std::runtime_error("the file is damaged: the unknown token");
    for (int64_t i = 0; i < V; i++) {
        model->pieces.push_back(fields.text());
        if (i != model->unknown) model->by_piece.emplace_back(model->pieces.back(), i);
    }
    std::sort(model->by_piece.begin(), model->by_piece.end());
    const auto kernel_of = [&](const std::string& cell, const std::string& held) -> const Recurrence& {
        const Recurrence* found = recurrence_of(level, cell, held);
        if (!found) throw std::runtime_error("the library has no kernel for " + cell + " with weights in " + held);
        return *found;
    };
    int64_t rows, D;
    const std::vector<float> embedding = fields.array(rows, D);
    if (rows != V || V < 1 || D < 1) throw std::runtime_error("the file is damaged: the embedding has another shape");
    network.embed(embedding.data(), V, D);
    const int64_t H = fields.size(), layers = fields.size();
    if (H < 1 || layers < 1) throw std::runtime_error("the file is damaged: there are no units");
    for (int64_t i = 0; i < layers; i++) {
        const std::string cell = fields.text();
        const Recurrence& kernel = kernel_of(cell, fields.text());
        const std::vector<float> W = fields.matrix(kernel.gates * H, i ? H : D);
        const std::vector<float> U = kernel.product ? fields.matrix(kernel.gates * H, H) : std::vector<float>();
        const std::vector<float> vectors = fields.matrix(1, kernel.vectors * H);
        Layer given{};
        given.threads = 1;
        given.inputs = i ? H : D, given.units = H;
        given.W = W.data(), given.U = U.data(), given.vectors = vectors.data();
        network.add(kernel, given);
    }
    const std::vector<float> W = fields.matrix(V, H), b = fields.matrix(1, V);
    Layer given{};
    given.threads = 1;
    given.inputs = H, given.units = V, given.W = W.data(), given.vectors = b.data();
    network.put_head(kernel_of("affine", weights), given);
    return model;
}

}  // namespace

tt_model* tt_load(const char* file, int threads, char* error, size_t room) {
    try {
        return load(file, threads).release();
    } catch (const std::exception& failure) {
        if (error && room) snprintf(error, room, "%s: %s", file, failure.what());
        return nullptr;
    }
}

void tt_free(tt_model* model) { delete model; }

int64_t tt_vocabulary(const tt_model* model) { return (int64_t)model->pieces.size(); }

size_t tt_state_size(const tt_model* model) { return model->network.state_arrays() * model->network.units(); }

const char* tt_piece(const tt_model* model, int64_t token, size_t* length) {
    if (!model->knows(token)) return nullptr;
    *length = model->pieces[token].size();
    return model->pieces[token].data();
}

int64_t tt_encode(const tt_model* model, const char* text, size_t length, int64_t* tokens, int64_t room) {
    if (model->kind == tt_model::OTHERS) return -1;
    int64_t count = 0;
    for (size_t at = 0; at < length; count++) {
        size_t size = 1;  // a character goes on while bytes begin with 10
        while (model->kind == tt_model::CHARACTERS && at + size < length && (text[at + size] & 0xc0) == 0x80) size++;
        const std::pair<std::string, int64_t> wanted(std::string(text + at, size), 0);
        const auto found = std::lower_bound(model->by_piece.begin(), model->by_piece.end(), wanted);
        if (found == model->by_piece.end() || found->first != wanted.first) return -2;
        if (count < room) tokens[count] = found->second;
        at += size;
    }
    return count;
}

int tt_step(const tt_model* model, int64_t token, float* state, float* logits) {
    if (!model->knows(token)) return -1;
    model->network.run({1, 1, &token, nullptr, nullptr}, state, state, 1, logits, model->threads);
    return 0;
}

tt_choice tt_usual() { return {1, 0, 1, 0, 1, 0}; }

int64_t tt_generate(const tt_model* model, float* state, const int64_t* prompt, int64_t count, int64_t tokens,
                    const tt_choice* choice, tt_sink sink, void* user) {
    const int64_t V = tt_vocabulary(model);
    std::vector<uint8_t> allowed;
    if (model->unknown >= 0) {
        allowed.assign(V, 1);
        allowed[model->unknown] = 0;
    }
    Sampler sampler(
        {choice->temperature, choice->top_k, choice->top_p, choice->min_p, choice->repetition_penalty, choice->seed}, V,
        allowed);
    std::vector<float> logits(V);
    if (count < 1) return -1;
    for (int64_t i = 0; i < count; i++) {
        if (tt_step(model, prompt[i], state, logits.data())) return -1;
        sampler.see(prompt[i]);
    }
    for (int64_t written = 0; written < tokens; written++) {
        const int64_t token = sampler.choose(logits.data());
        if (token < 0) return -1;
        const std::string& piece = model->pieces[token];
        if (sink(user, piece.data(), piece.size())) return written + 1;
        tt_step(model, token, state, logits.data());
    }
    return tokens;
}
