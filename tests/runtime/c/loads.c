/* Loads the file that each line of its input names, and uses it; says in a line what came of it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <throughtime.h>

static int take(void* user, const char* bytes, size_t length) {
    unsigned* sum = user;
    for (size_t i = 0; i < length; i++) *sum = *sum * 31 + (unsigned char)bytes[i];
    return 0;
}

int main(void) {
    char path[4096], error[4500];
    while (fgets(path, sizeof path, stdin)) {
        path[strcspn(path, "\n")] = 0;
        tt_model* model = tt_load(path, 1, error, sizeof error);
        if (model) {
            const tt_choice choice = tt_usual();
            const int64_t prompt = tt_vocabulary(model) - 1;
            float* state = calloc(tt_state_size(model), sizeof *state);
            unsigned sum = 0;
            const int64_t written = tt_generate(model, state, &prompt, 1, 20, &choice, take, &sum);
            printf("loaded %lld %u\n", (long long)written, sum);
            free(state);
            tt_free(model);
        } else {
            printf("%s\n", error);
        }
        fflush(stdout);
    }
    return 0;
}
