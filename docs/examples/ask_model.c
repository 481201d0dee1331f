/* ask_model.c: load a model, ask one question, print the answer as it is produced.
 *
 *     cc ask_model.c $(pkg-config --cflags --libs turboquant) -o ask_model
 *     ./ask_model models/bookworm "Clara Webb lives in Lisbon. Where does Clara Webb live?" */
#include <stdio.h>
#include <turboquant/tq.h>

static bool print(void *ctx, const char *text, size_t text_len) {
    (void)ctx;
    fwrite(text, 1, text_len, stdout);
    return fflush(stdout) == 0; /* false would stop the reply */
}

/* Everything that can fail, in order; what was made is released by the caller. */
static tq_status answer(const char *path, const char *question, tq_model **model, tq_session **session, int32_t **ids,
                        tq_generate_result *result, tq_error *err) {
    tq_status status = tq_model_open(path, NULL, model, err);
    if (status != TQ_OK) return status;

    tq_session_params params = tq_session_params_default();
    params.ctx = 4096;
    params.cache.kv = "tq3"; /* keys and values at 3 bits; "f16" for an ordinary cache */
    status = tq_session_new(*model, &params, session, err);
    if (status != TQ_OK) return status;

    tq_message message = {"user", question};
    size_t n_ids;
    status = tq_chat_tokens(*model, &message, 1, TQ_CHAT_ADD_GENERATION_PROMPT, ids, &n_ids, err);
    if (status != TQ_OK) return status;
    status = tq_session_eval(*session, *ids, (int)n_ids, err);
    if (status != TQ_OK) return status;

    tq_generate_params how = tq_generate_params_default();
    how.max_tokens = 64;
    how.on_text = print;
    return tq_generate(*session, &how, result, err);
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "Usage: ask_model MODEL_DIRECTORY QUESTION\n");
        return 2;
    }
    tq_model *model = NULL;
    tq_session *session = NULL;
    int32_t *ids = NULL;
    tq_generate_result result = {0};
    tq_error err;
    tq_status status = answer(argv[1], argv[2], &model, &session, &ids, &result, &err);
    if (status != TQ_OK)
        fprintf(stderr, "%s\n", err.text);
    else
        printf("\n(%d tokens, %.2f s)\n", result.n_ids, result.decode_seconds);
    tq_generate_result_free(&result);
    tq_free(ids);
    tq_session_free(session);
    tq_model_free(model);
    return status == TQ_OK ? 0 : 1;
}
