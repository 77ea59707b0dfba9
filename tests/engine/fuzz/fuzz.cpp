// Damaged files and wrong arguments for every function of the C library, the same in every run. It is linked with a
// library that sanitizers watch (`make sanitize`), which end it at the first report:
//
//     fuzz COUNT FOLDER FILE...
//
// COUNT inputs, made of the FILEs that models.py wrote, go through a file in FOLDER. What a function returns is held
// against what throughtime.h says.
#include <sys/stat.h>
#include <throughtime.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace {

typedef std::vector<unsigned char> Bytes;

constexpr size_t HEADER = sizeof "throughtime embedded 2\n" - 1 + 8;  // up to the check sum's end

std::mt19937_64 random_number;

size_t below(size_t count) { return count ? random_number() % count : 0; }
bool one_in(size_t count) { return below(count) == 0; }

template <class T>
T one_of(std::initializer_list<T> all) {
    return all.begin()[below(all.size())];
}

#define EXPECT(holds)                                                                         \
    do {                                                                                      \
        if (!(holds)) {                                                                       \
            fprintf(stderr, "line %d: %s does not hold: %s\n", __LINE__, #holds, tt_error()); \
            exit(1);                                                                          \
        }                                                                                     \
    } while (0)

// A function that fails says why, and one that does not says nothing.
bool failed(bool failure) {
    EXPECT(failure == (*tt_error() != 0));
    return failure;
}

int64_t strange_number() {
    const int64_t most = std::numeric_limits<int64_t>::max(), least = std::numeric_limits<int64_t>::min();
    return one_of<int64_t>({0, 1, -1, 2, 3, 7, 17, 255, 256, 1 << 16, int64_t(1) << 31, int64_t(1) << 32,
                            int64_t(1) << 40, (int64_t(1) << 40) + 1, int64_t(1) << 61, most, most - 7, least,
                            (int64_t)random_number()});
}

double strange_float() {
    const double infinite = std::numeric_limits<double>::infinity();
    return one_of<double>({0.0, -0.0, 1.0, 0.5, 0.1, 1.5, 2.0, -1.0, 1e-300, 5e-324, 1e300, 1e308, 1e38, 1e-38,
                           infinite, -infinite, std::nan(""), (double)random_number() * 0x1p-64});
}

// ---- Files

void damage(Bytes& content) {
    const size_t at = one_in(3) ? below(content.size() < 400 ? content.size() : 400) : below(content.size());
    const auto place = content.begin() + (std::ptrdiff_t)at;
    switch (below(6)) {
        case 0:
            if (!content.empty()) content[at] ^= (unsigned char)(1 + below(255));
            break;
        case 1: content.resize(at); break;
        case 2: content.insert(place, 1 + below(16), (unsigned char)below(256)); break;
        case 3:
            content.erase(place, place + (std::ptrdiff_t)below(std::min<size_t>(content.size() - at, 20) + 1));
            break;
        case 4: {  // a size, or four bytes of a number
            const int64_t number = strange_number();
            if (at + sizeof number <= content.size()) memcpy(content.data() + at, &number, sizeof number);
            break;
        }
        default: {
            const float number = (float)strange_float();
            if (at + sizeof number <= content.size()) memcpy(content.data() + at, &number, sizeof number);
        }
    }
}

// The check sum of what follows it, so that damage is not found by it.
void sign(Bytes& content) {
    if (content.size() < HEADER) return;
    uint32_t crc = ~0u;
    for (size_t i = HEADER; i < content.size(); i++) {
        crc ^= content[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    const int64_t sum = (int64_t)(uint32_t)~crc;
    memcpy(content.data() + HEADER - sizeof sum, &sum, sizeof sum);
}

tt_model* load(const char* path, bool whole) {
    char error[200] = "untouched";
    const size_t room = one_of<size_t>({sizeof error, sizeof error, 0, 1, 2, 20});
    char* where = one_in(20) ? nullptr : error;
    const int threads =
        one_of({1, 1, 1, 1, 2, 2, 3, 3, 0, 0, -1, std::numeric_limits<int>::max(), std::numeric_limits<int>::min()});
    setenv("THROUGHTIME_ISA", one_of({"", "", "", "", "portable", "avx512bf16", "avx512fp16"}), 1);
    tt_model* model = tt_load(path, threads, where, room);
    if (failed(!model)) {
        if (where && room) EXPECT(memchr(error, 0, room));
        EXPECT(!where || room || !strcmp(error, "untouched"));
        for (const char* byte = tt_error(); *byte; byte++) EXPECT(*byte >= ' ' && *byte <= '~');
    }
    // Such a level may not be there.
    if (whole && threads >= 0 && !*getenv("THROUGHTIME_ISA")) EXPECT(model);
    if (threads < 0) EXPECT(!model);
    return model;
}

// ---- Functions

void ask_pieces(const tt_model* model) {
    const int64_t V = tt_vocabulary(model);
    EXPECT(failed(V < 1) == !model);
    EXPECT(failed(tt_state_size(model) == 0) == !model);
    for (int i = 0; i < 4; i++) {
        const int64_t token = one_in(2) ? (int64_t)below((size_t)std::max<int64_t>(V, 1)) : strange_number();
        size_t length = 0, *where = one_in(6) ? nullptr : &length;
        const char* piece = tt_piece(model, token, where);
        EXPECT(failed(!piece) == (!model || !where || token < 0 || token >= V));
        if (piece) EXPECT(piece[length] == 0);
    }
}

void encode(const tt_model* model) {
    std::string text =
        one_of({"the cat", "th\xc3\xa9 mat\n", "", "\xc3", "\xed\xa0\x80", "\xf0\x9f\x98\x80", "\xff\0a"});
    for (size_t i = below(5); i; i--) text += (char)below(256);
    int64_t ids[64];
    const int64_t room = one_of<int64_t>({64, 64, 64, 3, 0, -1, std::numeric_limits<int64_t>::min()});
    const char* from = one_in(9) ? nullptr : text.data();
    int64_t* to = one_in(9) ? nullptr : ids;
    const int64_t count = tt_encode(model, from, text.size(), to, room);
    EXPECT(failed(count < 0) || count <= (int64_t)text.size());
    if (!model || (!from && !text.empty()) || room < 0 || (!to && room)) EXPECT(count == -3);
    for (int64_t i = 0; i < std::min(count, room); i++) EXPECT(ids[i] >= 0 && ids[i] < tt_vocabulary(model));
}

struct Sink {
    const tt_model* model;
    int64_t calls, end;
};

int take(void* user, const char* bytes, size_t length) {
    Sink& sink = *static_cast<Sink*>(user);
    if (length) EXPECT(bytes);
    if (one_in(4)) tt_piece(sink.model, -1, nullptr);  // a call within a call, which fails
    return ++sink.calls == sink.end;
}

void write(const tt_model* model) {
    const int64_t V = std::max<int64_t>(tt_vocabulary(model), 1);
    std::vector<float> state(std::max<size_t>(tt_state_size(model), 1)), logits(V);
    if (one_in(4))
        for (float& value : state) value = (float)strange_float();
    const int64_t token = one_in(3) ? strange_number() : (int64_t)below(V);
    float* where = one_in(9) ? nullptr : state.data();
    float* out = one_in(9) ? nullptr : logits.data();
    const bool fits = model && token >= 0 && token < V && where && out;
    const int stepped = tt_step(model, token, where, out);
    EXPECT(failed(stepped != 0) || fits);

    std::vector<int64_t> prompt(1 + below(4));
    for (int64_t& id : prompt) id = one_in(12) ? strange_number() : (int64_t)below(V);
    tt_choice choice = tt_usual();
    if (one_in(2)) choice.temperature = strange_float();
    if (one_in(3)) choice.top_k = strange_number();
    if (one_in(3)) choice.top_p = strange_float();
    if (one_in(3)) choice.min_p = strange_float();
    if (one_in(3)) choice.repetition_penalty = strange_float();
    choice.seed = random_number();
    const int64_t count =
        one_in(9) ? one_of<int64_t>({0, -1, std::numeric_limits<int64_t>::min()}) : (int64_t)prompt.size();
    const int64_t tokens =
        one_of<int64_t>({5, 5, 5, 0, -1, std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max()});
    Sink sink{model, 0, tokens < 6 ? one_of<int64_t>({0, 2}) : 6};
    const tt_choice* chosen = one_in(9) ? nullptr : &choice;
    const tt_sink to = one_in(20) ? nullptr : take;
    const std::vector<float> before = state;
    const int64_t written =
        tt_generate(model, where, one_in(20) ? nullptr : prompt.data(), count, tokens, chosen, to, &sink);
    if (failed(written < 0)) return;
    EXPECT(model && where && chosen && to && count > 0 && tokens >= 0);
    EXPECT(written == sink.calls && written <= tokens);
    for (const int64_t id : prompt) EXPECT(id >= 0 && id < V);
    EXPECT(std::isfinite(choice.temperature) && choice.temperature >= 0 && choice.top_k >= 0);
    EXPECT(choice.top_p > 0 && choice.top_p <= 1 && choice.min_p >= 0 && choice.min_p <= 1);
    EXPECT(std::isfinite(choice.repetition_penalty) && choice.repetition_penalty > 0);
}

void use(const tt_model* model) {
    ask_pieces(model);
    for (int i = 0; i < 3; i++) encode(model), write(model);
}

// What is no file of a model.
void load_others(const std::string& folder) {
    const std::string pipe = folder + "/pipe", empty = folder + "/empty";
    unlink(pipe.c_str());
    EXPECT(mkfifo(pipe.c_str(), 0600) == 0);
    std::ofstream(empty.c_str()).close();
    for (const char* path :
         {(const char*)nullptr, "", "/nonexistent", "/", "/dev/zero", "/dev/null", pipe.c_str(), empty.c_str()})
        EXPECT(failed(!tt_load(path, 1, nullptr, 0)));
}

}  // namespace

int main(int count, char** arguments) {
    const long inputs = count > 3 ? atol(arguments[1]) : 0;
    if (inputs < 1) return fprintf(stderr, "usage: %s COUNT FOLDER FILE...\n", arguments[0]), 2;
    const std::string folder = arguments[2], path = folder + "/damaged.bin";
    std::vector<Bytes> models;
    for (int i = 3; i < count; i++) {
        std::ifstream file(arguments[i], std::ios::binary);
        models.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
        EXPECT(models.back().size() > HEADER);
    }
    load_others(folder);
    long loaded = 0;
    for (long i = 0; i < inputs; i++) {
        random_number.seed((uint64_t)i);
        Bytes content = models[i % models.size()];
        const bool whole = one_in(4);
        for (size_t times = whole ? 0 : 1 + below(3); times; times--) damage(content);
        if (!whole && !one_in(8)) sign(content);
        std::ofstream(path, std::ios::binary)
            .write(reinterpret_cast<const char*>(content.data()), (long)content.size());
        tt_model* model = load(path.c_str(), whole);
        loaded += model != nullptr;
        use(model);
        tt_free(model);
    }
    printf("%ld inputs, %ld of them loaded\n", inputs, loaded);
    return loaded > 0 && loaded < inputs ? 0 : 1;
}
