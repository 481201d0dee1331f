/* cmd_codecs.c: tq codecs: every codec's bits a value, counted three ways, and the error that theory gives it. */
#include "commands.h"

#include <stdio.h>
#include <stdlib.h>

#include "json_out.h"
#include "options.h"
#include "setup.h"
#include "turboquant/tq_cache.h"
#include "turboquant/tq_codec.h"

static const char *const names[] = {
    "f32", "f16", "q8", "tq4", "tq3.5", "tq3", "tq2.5", "tq2", "tcq4", "tcq3", "tcq2", "vq3.5", "vq3", "vq2.5", "lm4", "lm3", "lm2",
    "uniform:4", "uniform:3", "uniform:2",
    "paper-mse:4", "paper-mse:3", "paper-mse:2", "paper-mse:1", "paper:3.5", "paper:2.5", "paper-prod:4", "paper-prod:3",
    "paper-prod:2", "paper-prod-orth:4", "paper-prod-orth:3", "paper-prod-orth:2", "q8-group", "q4-group", "minmax:4",
    "minmax:2",
};

typedef struct codec_facts {
    double payload, row, cache; /* bits a value: codes; a row with its scales; a page of keys and values, as allocated */
    double distortion;          /* negative: not known */
} codec_facts;

static tq_status learn(const char *name, int dim, codec_facts *out, tq_error *err) {
    tq_codec *codec;
    tq_status status = tq_codec_new(name, dim, 42, &codec, err);
    if (status != TQ_OK) return status;
    *out = (codec_facts){.payload = tq_codec_payload_bits(codec), .distortion = tq_codec_expected_distortion(codec),
                         .row = 8.0 * (double)tq_codec_row_bytes(codec) / dim};
    tq_codec_free(codec);
    tq_cache_params params = tq_cache_params_default();
    params.n_layers = params.n_heads = params.n_kv_heads = params.n_threads = 1;
    params.head_dim = dim, params.max_tokens = TQ_PAGE_TOKENS, params.config.kv = name;
    tq_cache *cache;
    status = tq_cache_new(&params, &cache, err);
    if (status != TQ_OK) return status;
    tq_cache_stats stats;
    tq_cache_get_stats(cache, &stats);
    out->cache = stats.bits_per_value;
    tq_cache_free(cache);
    return TQ_OK;
}

static void print_row(const char *name, const codec_facts *f) {
    printf("%-18s %8.3f %8.3f %8.3f", name, f->payload, f->row, f->cache);
    if (f->distortion >= 0) printf(" %12.6f\n", f->distortion);
    else printf(" %12s\n", "-");
}

static void put_row(jout *j, const char *name, const codec_facts *f) {
    jout_object(j);
    jout_put_string(j, "codec", name);
    jout_put_number(j, "payload_bits", f->payload);
    jout_put_number(j, "row_bits", f->row);
    jout_put_number(j, "cache_bits", f->cache);
    jout_key(j, "distortion");
    if (f->distortion >= 0) jout_number(j, f->distortion);
    else jout_null(j);
    jout_end(j);
}

int cmd_codecs(int argc, char **argv) {
    int dim = 128;
    bool json = false;
    options o;
    options_begin(&o, "tq codecs [OPTIONS]",
                  "List the codecs: bits a value of codes alone (payload), of a row with its scales and norms, and\n"
                  "of a page of the cache as it is allocated; and the relative squared error that theory gives for\n"
                  "a random direction (for paper-prod: dim times the variance of an inner product).");
    options_add(&o, (option_row){.name = "dim", .argument = "N", .type = OPTION_INT, .to = &dim, .min = 4, .max = 1024,
                                 .help = "dimension of a head (default 128)"});
    options_add(&o, (option_row){.name = "json", .type = OPTION_FLAG, .to = &json, .help = "one JSON array on stdout"});
    int code = options_parse(&o, argc, argv, NULL);
    if (code != OPTIONS_RUN) return code;
    jout j = {0};
    if (json) jout_array(&j);
    else printf("%-18s %8s %8s %8s %12s\n", "codec", "payload", "row", "cache", "distortion");
    int n_possible = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        codec_facts facts;
        tq_error err;
        tq_status status = learn(names[i], dim, &facts, &err);
        if (status != TQ_OK && status != TQ_INVALID) return setup_fail("codecs", "%s", err.text);
        n_possible += status == TQ_OK;
        if (status == TQ_OK && json) put_row(&j, names[i], &facts);
        else if (status == TQ_OK) print_row(names[i], &facts);
        else if (!json) printf("%-18s %s\n", names[i], err.text); /* not every codec has every dimension */
    }
    if (json) jout_end(&j);
    if (json ? !jout_print(&j, stdout) : fflush(stdout) != 0) return setup_fail("codecs", "cannot write to stdout");
    return n_possible ? EXIT_SUCCESS : setup_fail("codecs", "no codec has vectors of %d values", dim);
}
