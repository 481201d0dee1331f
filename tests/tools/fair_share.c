/* fair_share.c: how long those that decode wait for their next token while another prompt is read.
 *
 *     fair_share [MODEL [PROMPT_TOKENS [DECODERS]]]      (models/bookworm 16384 4)
 *
 * A turn of the scheduler is a decode step, of all that decode, or one layer of one chunk.  The fair share of a wait: a step
 * and as much time of the prompt, but a whole layer, since that is the unit.  Both are measured alone first: the step as the
 * median of waits, the layer in the prompt's last eighth, where chunks take longest.  Then both at once.  Prints what share of
 * its fair share a wait is: mean, 99 and 99.9 of a hundred, worst.  Exit status 0 if the worst is below 2.  Wants a machine with
 * nothing else to do: a wait in which the system ran something else counts, too. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <turboquant/tq_scheduler.h>

enum { CHUNK = 256, DECODERS_CAP = 16, WAITS_CAP = 1 << 20, CHUNKS_CAP = 4096, ALONE = 400 };

typedef struct decoder {
    double last; /* when its newest token came */
} decoder;

static double waits[WAITS_CAP], chunk_at[CHUNKS_CAP];
static volatile int n_waits, n_chunks, n_begun, n_done; /* written on the scheduler's thread */
static volatile int counting;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void pause_briefly(void) { nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL); }

static void on_token(void *ctx, tq_request *request, const tq_event *e) {
    (void)request;
    decoder *d = ctx;
    if (e->kind == TQ_EVENT_DONE) n_done++;
    if (e->kind != TQ_EVENT_TOKEN) return;
    double at = now();
    if (d->last == 0) n_begun++;
    else if (counting && n_waits < WAITS_CAP) waits[n_waits++] = at - d->last;
    d->last = at;
}

static void on_chunk(void *ctx, tq_request *request, const tq_event *e) {
    (void)ctx;
    (void)request;
    if ((e->kind == TQ_EVENT_START || e->kind == TQ_EVENT_PREFILL) && n_chunks < CHUNKS_CAP) chunk_at[n_chunks++] = now();
    if (e->kind == TQ_EVENT_DONE) n_done++;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double part(double share) { return waits[(int)(share * (n_waits - 1))]; }

static void die(const char *what) {
    fprintf(stderr, "fair_share: %s\n", what);
    exit(2);
}

static tq_request *ask(tq_scheduler *s, const int32_t *ids, int n, int max_tokens, tq_event_fn on_event, void *ctx) {
    tq_request_params p = tq_request_params_default();
    p.ids = ids;
    p.n_ids = n;
    p.max_tokens = max_tokens;
    p.ignore_eos = true;
    p.use_cache = false; /* each reads its prompt itself */
    p.on_event = on_event;
    p.ctx = ctx;
    tq_request *r;
    tq_error err;
    if (tq_scheduler_submit(s, &p, &r, &err) != TQ_OK) die(err.text);
    return r;
}

/* The prompt; seconds of a layer in its last eighth. */
static double read_prompt(tq_scheduler *s, const int32_t *ids, int n, int n_layers) {
    int done = n_done;
    n_chunks = 0;
    tq_request *r = ask(s, ids, n, 1, on_chunk, NULL);
    while (n_done == done) pause_briefly();
    tq_request_release(r);
    int tail = n_chunks / 8 > 0 ? n_chunks / 8 : 1;
    return (chunk_at[n_chunks - 1] - chunk_at[n_chunks - 1 - tail]) / tail / n_layers;
}

int main(int argc, char **argv) {
    const char *path = argc > 1 ? argv[1] : "models/bookworm";
    int n = argc > 2 ? atoi(argv[2]) : 16384, n_decoders = argc > 3 ? atoi(argv[3]) : 4;
    if (argc > 4 || n < 8 * CHUNK || n > CHUNK * (CHUNKS_CAP - 2) || n_decoders < 1 || n_decoders > DECODERS_CAP)
        die("want [MODEL [PROMPT_TOKENS [DECODERS]]], 2048 tokens or more, 1 to 16 that decode");
    tq_error err;
    tq_model *model;
    tq_scheduler *s;
    if (tq_model_open(path, NULL, &model, &err) != TQ_OK) die(err.text);
    const tq_model_info *info = tq_model_get_info(model);
    tq_scheduler_params p = tq_scheduler_params_default();
    p.parallel = n_decoders + 1;
    p.prefill_chunk = CHUNK;
    if (tq_scheduler_new(model, &p, &s, &err) != TQ_OK) die(err.text);
    int32_t *ids = malloc((size_t)n * sizeof *ids);
    if (!ids) die("out of memory");
    for (int i = 0; i < n; i++) ids[i] = 3 + (int32_t)((unsigned)i * 2654435761u % (unsigned)(info->vocab - 3));

    double layer = read_prompt(s, ids, n, info->n_layers);

    static decoder decoders[DECODERS_CAP];
    tq_request *requests[DECODERS_CAP];
    for (int i = 0; i < n_decoders; i++) requests[i] = ask(s, ids + i, 64, 0, on_token, &decoders[i]);
    while (n_begun < n_decoders) pause_briefly();
    counting = 1;
    while (n_waits < ALONE * n_decoders) pause_briefly();
    counting = 0;
    qsort(waits, (size_t)n_waits, sizeof *waits, compare);
    double step = part(.5);

    n_waits = 0;
    counting = 1;
    double began = now();
    read_prompt(s, ids, n, info->n_layers);
    double took = now() - began;
    counting = 0;
    int finished = n_done - 2;
    for (int i = 0; i < n_decoders; i++) tq_request_cancel(requests[i]), tq_request_release(requests[i]);
    tq_scheduler_free(s);
    if (finished) die("one that decodes came to the end of its context: want a shorter prompt");

    double fair = step + (layer > step ? layer : step), sum = 0;
    for (int i = 0; i < n_waits; i++) sum += waits[i];
    qsort(waits, (size_t)n_waits, sizeof *waits, compare);
    printf("%d decode, %d tokens are read in %.2f s: a step alone %.2f ms, a layer of a chunk %.2f ms, fair share %.2f ms\n", n_decoders, n,
           took, step * 1e3, layer * 1e3, fair * 1e3);
    printf("waits: %d, in fair shares: mean %.2f, 99%% %.2f, 99.9%% %.2f, worst %.2f; mean in steps alone: %.2f\n", n_waits,
           sum / n_waits / fair, part(.99) / fair, part(.999) / fair, part(1) / fair, sum / n_waits / step);
    double worst = part(1);
    free(ids);
    tq_model_free(model);
    return worst < 2 * fair ? 0 : 1;
}
