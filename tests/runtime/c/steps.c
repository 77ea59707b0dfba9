/* The logits after each of the tokens, a line for each: steps FILE TOKEN... */
#include <stdio.h>
#include <stdlib.h>
#include <throughtime.h>

int main(int count, char** arguments) {
    char error[300];
    tt_model* model = tt_load(arguments[1], 1, error, sizeof error);
    if (!model) return fprintf(stderr, "%s\n", error), 1;
    float *state = calloc(tt_state_size(model), sizeof *state), *logits = calloc(tt_vocabulary(model), sizeof *logits);
    for (int i = 2; i < count; i++) {
        if (tt_step(model, atoll(arguments[i]), state, logits)) return fprintf(stderr, "%s\n", tt_error()), 1;
        for (int64_t token = 0; token < tt_vocabulary(model); token++) printf("%.9g ", logits[token]);
        printf("\n");
    }
    free(logits);
    free(state);
    tt_free(model);
    return 0;
}
