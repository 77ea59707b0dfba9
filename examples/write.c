/* Writes text with a model, a token at a time:
 *
 *     throughtime embed runs/mine mine.bin
 *     cc -I$PACKAGE/include examples/write.c $PACKAGE/lib/libthroughtime.a -lstdc++ -lm -lpthread -ldl -o write
 *     ./write mine.bin "In the " 200 1
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <throughtime.h>

static int print(void *user, const char *bytes, size_t length) {
    (void)user;
    return fwrite(bytes, 1, length, stdout) != length;
}

int main(int count, char **arguments) {
    char error[256];
    if (count != 5) return fprintf(stderr, "usage: %s FILE PROMPT TOKENS SEED\n", arguments[0]), 2;
    tt_model *model = tt_load(arguments[1], 1, error, sizeof error);
    if (!model) return fprintf(stderr, "%s\n", error), 1;

    const char *prompt = arguments[2];
    int64_t ids[4096], known = tt_encode(model, prompt, strlen(prompt), ids, 4096);
    if (known < 1 || known > 4096) return fprintf(stderr, "the prompt cannot be read\n"), 1;

    tt_choice choice = tt_usual();
    choice.seed = strtoull(arguments[4], NULL, 10);
    float *state = calloc(tt_state_size(model), sizeof *state);
    int64_t written = tt_generate(model, state, ids, known, atoll(arguments[3]), &choice, print, NULL);

    /* What would it read next? The state went on with the text. */
    float *logits = calloc(tt_vocabulary(model), sizeof *logits);
    tt_step(model, ids[0], state, logits);
    fprintf(stderr, "%lld tokens written, first logit %.6f\n", (long long)written, logits[0]);
    free(logits);
    free(state);
    tt_free(model);
    return written < 0;
}
