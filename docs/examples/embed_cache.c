/* embed_cache.c: the compressed KV cache alone, inside an engine of your own; here one layer with random q, k and v.
 *
 *     cc embed_cache.c $(pkg-config --cflags --libs turboquant) -lm -o embed_cache */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <turboquant/tq_cache.h>

enum { TOKENS = 2048, CHUNK = 128, HEADS = 4, KV_HEADS = 2, DIM = 128 };

static float q[TOKENS][HEADS][DIM], k[TOKENS][KV_HEADS][DIM], v[TOKENS][KV_HEADS][DIM];
static float packed_out[TOKENS][HEADS][DIM], exact_out[TOKENS][HEADS][DIM];

static void fill(float *x, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] = 4 * (float)rand() / (float)RAND_MAX - 2;
}

/* Attend to everything, a chunk at a time, as prefill does; decoding is the same with chunks of one token. */
static int attend(const char *kv, float out[TOKENS][HEADS][DIM], tq_cache_stats *stats) {
    tq_cache_params params = tq_cache_params_default();
    params.n_layers = 1;
    params.n_heads = HEADS;
    params.n_kv_heads = KV_HEADS;
    params.head_dim = DIM;
    params.max_tokens = TOKENS;
    params.config.kv = kv;
    tq_cache *cache;
    tq_error err;
    tq_status status = tq_cache_new(&params, &cache, &err);
    if (status == TQ_OK) {
        for (int t = 0; t < TOKENS && status == TQ_OK; t += CHUNK)
            status = tq_cache_attend(cache, 0, q[t][0], k[t][0], v[t][0], CHUNK, out[t][0], &err);
        tq_cache_get_stats(cache, stats);
        tq_cache_free(cache);
    }
    if (status != TQ_OK) fprintf(stderr, "%s: %s\n", kv, err.text);
    return status == TQ_OK;
}

int main(void) {
    fill(q[0][0], sizeof q / sizeof(float));
    fill(k[0][0], sizeof k / sizeof(float));
    fill(v[0][0], sizeof v / sizeof(float));
    tq_cache_stats exact, packed;
    if (!attend("f32", exact_out, &exact) || !attend("tq3", packed_out, &packed)) return 1;

    double error = 0, energy = 0;
    for (int t = TOKENS / 2; t < TOKENS; t++) /* here most of what is attended to is packed */
        for (int h = 0; h < HEADS; h++)
            for (int d = 0; d < DIM; d++) {
                double difference = (double)packed_out[t][h][d] - exact_out[t][h][d];
                error += difference * difference;
                energy += (double)exact_out[t][h][d] * exact_out[t][h][d];
            }
    printf("tq3: %d tokens packed at %.2f bits a value, %d exact; %zu bytes, as f16 %zu\n", packed.packed_tokens,
           packed.bits_per_value, packed.exact_tokens, packed.bytes, packed.f16_bytes);
    /* Random values nearly cancel out, so this is a hard case: a trained model's queries pick a few rows. */
    printf("relative error of the attention output: %.3f\n", sqrt(error / energy));
    return sqrt(error / energy) < 0.5 ? 0 : 1;
}
