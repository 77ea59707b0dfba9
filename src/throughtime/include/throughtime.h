/* A trained language model in a C program. The file comes from `throughtime embed RUN FILE`.
 *
 * Every function checks its arguments: a null pointer, a token that is not in the vocabulary or a number out of range is
 * refused, and changes nothing. What a function returns then stands beside it; tt_error() says why, in a line. No C++
 * exception leaves a function. A model may be used by several threads at once; a state belongs to one call at a time.
 * Link with libthroughtime.a, the C++ library, pthreads and dl. */
#ifndef THROUGHTIME_H
#define THROUGHTIME_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tt_model tt_model;

/* How tokens are drawn; `throughtime generate --help` says what each setting means. */
typedef struct {
    double temperature;        /* finite, not negative; 0: the likeliest token */
    int64_t top_k;             /* not negative; 0: all */
    double top_p;              /* above 0, at most 1; 1: all */
    double min_p;              /* 0 to 1; 0: all */
    double repetition_penalty; /* finite, above 0; 1: none */
    uint64_t seed;
} tt_choice;

/* Takes the bytes of a token; anything but 0 ends the text. */
typedef int (*tt_sink)(void *user, const char *bytes, size_t length);

/* Loads a model: a regular file of at most 4 GiB, in which every size is checked before memory is taken for it.
 * threads: how many to use at most; 0: one for each processor. Null where the file cannot be used: why is then in
 * `error`, at most `room` bytes with the 0 at their end (both may be 0). */
tt_model *tt_load(const char *file, int threads, char *error, size_t room);
void tt_free(tt_model *model); /* null: nothing happens */

/* Why the last call of this thread failed; empty where it did not. It lasts until the thread's next call. */
const char *tt_error(void);

/* The tokens there are; -1 without a model. */
int64_t tt_vocabulary(const tt_model *model);
/* The floats of a state; 0 without a model. All of them 0: nothing was read. To keep a state, copy it. The last one says
 * how many bytes of the separator between documents were read: after all of them a document begins, as in training. */
size_t tt_state_size(const tt_model *model);

/* The bytes of a token, with a 0 behind them; null where there is no such token, or an argument is null. */
const char *tt_piece(const tt_model *model, int64_t token, size_t *length);
/* The tokens of a text, at most `room` of them; how many there are. -1: the model's tokens are words or byte pairs, which
 * need its tokeniser; -2: the vocabulary lacks a character; -3: an argument is wrong, or the text of a character model is
 * not UTF-8. */
int64_t tt_encode(const tt_model *model, const char *text, size_t length, int64_t *tokens, int64_t room);

/* Reads a token: the state moves on, and `logits`, as many as the vocabulary, tell of the token that follows. 0, or -1
 * where an argument is wrong or memory runs out. */
int tt_step(const tt_model *model, int64_t token, float *state, float *logits);

/* The usual choice: draw from all tokens as they are likely. */
tt_choice tt_usual(void);
/* Reads `count` tokens, at least one, and writes up to `tokens` more into the sink. How many were written. -1 where an
 * argument is wrong, memory runs out, or no token that is allowed can follow; in the last two cases the state has moved,
 * and the sink may have taken tokens. */
int64_t tt_generate(const tt_model *model, float *state, const int64_t *prompt, int64_t count, int64_t tokens,
                    const tt_choice *choice, tt_sink sink, void *user);

#ifdef __cplusplus
}
#endif

#endif
