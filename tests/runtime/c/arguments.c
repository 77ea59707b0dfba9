/* Wrong arguments for every function of the C library, for a model of characters: arguments FILE. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <throughtime.h>

#define EXPECT(holds)                                                                                \
    do {                                                                                             \
        if (!(holds)) return fprintf(stderr, "line %d: %s (%s)\n", __LINE__, #holds, tt_error()), 1; \
    } while (0)
/* Refused, with a reason that has these words. */
#define REFUSED(result, words) EXPECT((result) && strstr(tt_error(), words))

static int calls;

static int count_calls(void* user, const char* bytes, size_t length) {
    (void)user, (void)bytes, (void)length;
    calls++;
    return 0;
}

/* Ends the text at a token that is never to be written. */
static int find_unknown(void* user, const char* bytes, size_t length) {
    (void)user;
    return length == 5 && !memcmp(bytes, "<unk>", 5);
}

int main(int count, char** arguments) {
    char error[200] = "";
    if (count != 2) return 2;
    const char* path = arguments[1];
    REFUSED(!tt_load(NULL, 1, error, sizeof error), "no file is named");
    EXPECT(!strcmp(error, "no file is named"));
    REFUSED(!tt_load(path, -1, error, sizeof error), "threads must not be negative");
    EXPECT(strstr(error, path) == error && !tt_load("/nonexistent", 1, NULL, 9) &&
           !tt_load("/nonexistent", 1, error, 0));
    EXPECT(!tt_load("/nonexistent", 1, error, 1) && !*error);
    tt_model* model = tt_load(path, 0, error, sizeof error);
    EXPECT(model && !*tt_error());
    tt_free(NULL);

    int64_t V = tt_vocabulary(model), ids[8];
    float *state = calloc(tt_state_size(model), sizeof *state), *logits = calloc(V, sizeof *logits);
    size_t length;
    REFUSED(tt_vocabulary(NULL) == -1, "the model is null");
    REFUSED(tt_state_size(NULL) == 0, "the model is null");
    REFUSED(!tt_piece(NULL, 0, &length), "the model is null");
    REFUSED(!tt_piece(model, 0, NULL), "length is null");
    REFUSED(!tt_piece(model, V, &length), "is not in a vocabulary of");
    REFUSED(!tt_piece(model, INT64_MIN, &length), "is not in a vocabulary of");
    EXPECT(tt_piece(model, V - 1, &length) && length && !*tt_error());

    EXPECT(tt_encode(model, "the", 3, ids, 8) == 3 && tt_encode(model, NULL, 0, NULL, 0) == 0);
    EXPECT(tt_encode(model, "the", 3, ids, 1) == 3 && tt_encode(model, "the", 3, NULL, 0) == 3);
    REFUSED(tt_encode(NULL, "the", 3, ids, 8) == -3, "the model is null");
    REFUSED(tt_encode(model, NULL, 3, ids, 8) == -3, "the text is null");
    REFUSED(tt_encode(model, "the", 3, NULL, 8) == -3, "tokens is null");
    REFUSED(tt_encode(model, "the", 3, ids, -1) == -3, "room must not be negative");
    REFUSED(tt_encode(model, "the Z", 5, ids, 8) == -2, "the vocabulary lacks a character");
    const char* wrong[] = {"\xc3",         "t\xc3", "\x80", "\xc0\x80", "\xed\xa0\x80", "\xf5\x80\x80\x80",
                           "\xe0\x80\x80", "\xff"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        REFUSED(tt_encode(model, wrong[i], strlen(wrong[i]), ids, 8) == -3, "not UTF-8");

    REFUSED(tt_step(NULL, 0, state, logits) == -1, "the model is null");
    REFUSED(tt_step(model, -1, state, logits) == -1, "is not in a vocabulary of");
    REFUSED(tt_step(model, V, state, logits) == -1, "is not in a vocabulary of");
    REFUSED(tt_step(model, 0, NULL, logits) == -1, "is null");
    REFUSED(tt_step(model, 0, state, NULL) == -1, "is null");

    const tt_choice usual = tt_usual();
    ids[0] = 1, ids[1] = V;
#define WRITE(model, state, ids, count, tokens, choice, sink) \
    tt_generate(model, state, ids, count, tokens, choice, sink, 0)
    REFUSED(WRITE(NULL, state, ids, 1, 5, &usual, count_calls) == -1, "the model is null");
    REFUSED(WRITE(model, NULL, ids, 1, 5, &usual, count_calls) == -1, "is null");
    REFUSED(WRITE(model, state, NULL, 1, 5, &usual, count_calls) == -1, "is null");
    REFUSED(WRITE(model, state, ids, 1, 5, NULL, count_calls) == -1, "choice is null");
    REFUSED(WRITE(model, state, ids, 1, 5, &usual, NULL) == -1, "is null");
    REFUSED(WRITE(model, state, ids, 0, 5, &usual, count_calls) == -1, "at least one token");
    REFUSED(WRITE(model, state, ids, -1, 5, &usual, count_calls) == -1, "at least one token");
    REFUSED(WRITE(model, state, ids, 2, 5, &usual, count_calls) == -1, "is not in a vocabulary of");
    REFUSED(WRITE(model, state, ids, 1, -1, &usual, count_calls) == -1, "tokens must not be negative");
    REFUSED(WRITE(model, state, ids, 1, INT64_MIN, &usual, count_calls) == -1, "tokens must not be negative");
    const double none = NAN, never = INFINITY;
    const struct {
        tt_choice choice;
        const char* setting;
    } refused[] = {
        {{never, 0, 1, 0, 1, 0}, "temperature"},
        {{none, 0, 1, 0, 1, 0}, "temperature"},
        {{-1, 0, 1, 0, 1, 0}, "temperature"},
        {{1, -1, 1, 0, 1, 0}, "top_k"},
        {{1, INT64_MIN, 1, 0, 1, 0}, "top_k"},
        {{1, 0, 0, 0, 1, 0}, "top_p"},
        {{1, 0, 1.5, 0, 1, 0}, "top_p"},
        {{1, 0, none, 0, 1, 0}, "top_p"},
        {{1, 0, 1, 1.5, 1, 0}, "min_p"},
        {{1, 0, 1, -1, 1, 0}, "min_p"},
        {{1, 0, 1, none, 1, 0}, "min_p"},
        {{1, 0, 1, 0, 0, 0}, "repetition_penalty"},
        {{1, 0, 1, 0, never, 0}, "repetition_penalty"},
        {{1, 0, 1, 0, none, 0}, "repetition_penalty"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        REFUSED(WRITE(model, state, ids, 1, 5, &refused[i].choice, count_calls) == -1, refused[i].setting);
    for (size_t i = 0; i < tt_state_size(model); i++) EXPECT(state[i] == 0);
    const float wrong_ends[] = {-1, 0.5f, 1e9f, NAN, INFINITY};
    for (size_t i = 0; i < sizeof wrong_ends / sizeof *wrong_ends; i++) {
        state[tt_state_size(model) - 1] = wrong_ends[i];
        REFUSED(tt_step(model, 0, state, logits) == -1, "the state is none");
        REFUSED(WRITE(model, state, ids, 1, 5, &usual, count_calls) == -1, "the state is none");
    }
    state[tt_state_size(model) - 1] = 0;
    EXPECT(calls == 0);
    EXPECT(WRITE(model, state, ids, 1, 5, &usual, count_calls) == 5 && calls == 5 && !*tt_error());
    EXPECT(WRITE(model, state, ids, 1, 0, &usual, count_calls) == 0 && calls == 5);
    const double temperatures[] = {0, 5e-324, 1e-300, 1e30, 1e300, 1.7976931348623157e308};
    for (size_t i = 0; i < sizeof temperatures / sizeof *temperatures; i++) {
        const tt_choice hot = {temperatures[i], 0, i % 2 ? 0.9 : 1, 0, 1, i};
        EXPECT(WRITE(model, state, ids, 1, 500, &hot, find_unknown) == 500);
    }
    free(logits);
    free(state);
    tt_free(model);
    return 0;
}
