/* dump_logits.c: logits of a document, for tests that compute from them what `tq eval` says.
 *
 *     dump_logits MODEL KV IDS HEAD CHUNK OUT
 *
 * IDS: int32 token ids.  The first HEAD tokens are prefilled; the rest is evaluated CHUNK tokens at a time, and OUT gets
 * the logits after each of them: float32 (n - HEAD, vocab).  Prints the bits a value and the packed tokens. */
#include <stdio.h>
#include <stdlib.h>

#include <turboquant/tq.h>

static FILE *out;
static int vocab;

static void write_row(void *ctx, int i, const float *logits) {
    (void)ctx;
    (void)i;
    if (fwrite(logits, sizeof *logits, (size_t)vocab, out) != (size_t)vocab) exit(3);
}

static int die(const char *what) {
    fprintf(stderr, "dump_logits: %s\n", what);
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 7) return die("want MODEL KV IDS HEAD CHUNK OUT");
    static int32_t ids[1 << 16];
    FILE *in = fopen(argv[3], "rb");
    if (!in) return die(argv[3]);
    int n = (int)fread(ids, sizeof *ids, sizeof ids / sizeof *ids, in), head = atoi(argv[4]), chunk = atoi(argv[5]);
    fclose(in);
    if (head < 0 || head >= n || chunk < 1) return die("want HEAD within the document and CHUNK of 1 or more");
    tq_error err;
    tq_model *m;
    tq_session *s;
    if (tq_model_open(argv[1], NULL, &m, &err) != TQ_OK) return die(err.text);
    vocab = tq_model_get_info(m)->vocab;
    tq_session_params params = tq_session_params_default();
    params.ctx = n;
    params.cache.kv = argv[2];
    if (tq_session_new(m, &params, &s, &err) != TQ_OK) return die(err.text);
    out = fopen(argv[6], "wb");
    if (!out) return die(argv[6]);
    if (tq_session_eval(s, ids, head, &err) != TQ_OK) return die(err.text);
    for (int at = head; at < n; at += chunk)
        if (tq_session_eval_all(s, ids + at, n - at < chunk ? n - at : chunk, write_row, NULL, &err) != TQ_OK)
            return die(err.text);
    if (fclose(out) != 0) return die(argv[6]);
    tq_cache_stats stats;
    tq_session_get_cache_stats(s, &stats);
    printf("%.9g %d\n", stats.bits_per_value, stats.packed_tokens);
    tq_session_free(s);
    tq_model_free(m);
    return 0;
}
