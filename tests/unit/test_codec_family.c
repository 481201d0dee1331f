/* test_codec_family.c: the paper's outlier splits, the orthogonal sketch, the uniform grid and MLX's groups: what theory
 * and published tables say of their errors, and which channels a split chooses. */
#include "testing.h"

#include "base/half.h"
#include "cache/kv_cache.h"
#include "codec/codec.h"
#include "codec/outlier_split.h"
#include "codec/page.h"

static tq_codec *codec_of(const char *name, int dim, uint64_t seed) {
    tq_codec *codec = NULL;
    OK(tq_codec_new(name, dim, seed, &codec, &e));
    return codec;
}

/* E|x - x~|^2 / |x|^2 over n normal vectors. */
static double distortion_of(const char *name, int dim, int n) {
    tq_codec *codec = codec_of(name, dim, 42);
    float *x = test_floats((size_t)dim), *y = test_floats((size_t)dim);
    uint8_t *row = test_alloc(tq_codec_row_bytes(codec));
    tq_rng rng = {(uint64_t)(977 * dim)};
    double sum = 0;
    for (int i = 0; i < n; i++) {
        test_normals(&rng, x, (size_t)dim);
        tq_codec_encode(codec, x, 1, row);
        tq_codec_decode(codec, row, 1, y);
        sum += test_relative_error(x, y, (size_t)dim);
    }
    free(x), free(y), free(row);
    tq_codec_free(codec);
    return sum / n;
}

/* Parts by their share of the energy: n1/d D(n1, b+1) + n2/d D(n2, b), D from codec.md 5.4: .0947 and .0275 at d 128. */
static void a_split_has_the_distortion_of_its_parts(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int dim;
        double want;
    } known[] = {
        {"paper:2.5", 128, (32 * .032261 + 96 * .115508) / 128},
        {"paper:3.5", 128, (32 * .008774 + 96 * .033773) / 128},
        {"paper:2.5", 256, (64 * .033391 + 192 * .116493) / 256},
        {"paper:3.5", 256, (64 * .009132 + 192 * .034159) / 256},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        double got = distortion_of(known[i].name, known[i].dim, 4000);
        print_message("%s, d %d: %.5f, theory %.5f\n", known[i].name, known[i].dim, got, known[i].want);
        assert_true(fabs(got / known[i].want - 1) < .01);
        tq_codec *codec = codec_of(known[i].name, known[i].dim, 0);
        assert_true(fabs(tq_codec_expected_distortion(codec) / known[i].want - 1) < 1e-3);
        tq_codec_free(codec);
    }
}

static void a_split_counts_its_bits_both_ways(void **state) {
    (void)state;
    static const struct {
        const char *name;
        double payload, total;
    } known[] = {{"paper:2.5", 2.25, 2.5}, {"paper:3.5", 3.25, 3.5}, {"lm3", 3, 3.125}, {"q4-group", 4, 4.5}};
    for (size_t i = 0; i < 4; i++) {
        tq_codec *codec = codec_of(known[i].name, 128, 0);
        assert_true(tq_codec_payload_bits(codec) == known[i].payload);
        assert_true((double)tq_codec_row_bytes(codec) * 8 / 128 == known[i].total);
        tq_codec_free(codec);
    }
}

/* Channels of ten times the size: chosen, they cost their bits and nothing else; left among the rest, they would. */
static void outliers_are_the_largest_channels(void **state) {
    (void)state;
    enum { DIM = 128, N = 64 };
    tq_codec *plain = codec_of("paper:2.5", DIM, 1), *chosen = codec_of("paper:2.5", DIM, 1);
    float x[N][DIM], y[DIM];
    uint8_t row[64];
    tq_rng rng = {4};
    for (int r = 0; r < N; r++)
        for (int i = 0; i < DIM; i++) x[r][i] = (float)test_normal(&rng) * (i % 4 == 3 ? 10 : 1);
    OK(tq_codec_choose_outliers(chosen, x[0], N, &e));
    for (int i = 0; i < DIM; i++) assert_int_equal(chosen->channels[i / 8] >> i % 8 & 1, i % 4 == 3);
    double errors[2] = {0};
    for (int c = 0; c < 2; c++)
        for (int r = 0; r < N; r++) {
            tq_codec *codec = c ? chosen : plain;
            assert_int_equal(tq_codec_row_bytes(codec), 40);
            tq_codec_encode(codec, x[r], 1, row);
            tq_codec_decode(codec, row, 1, y);
            errors[c] += test_relative_error(x[r], y, DIM) / N;
        }
    /* all but 3 % of the energy is the outliers', at 3 bits */
    double want = .97 * .032261 + .03 * .115508;
    assert_true(fabs(errors[1] / want - 1) < .05);
    assert_true(errors[0] > 2 * errors[1]);
    FAILS(tq_codec_choose_outliers(chosen, x[0], 0, &e), TQ_INVALID, "got 0");
    tq_codec_free(plain), tq_codec_free(chosen);
    plain = codec_of("lm3", DIM, 0);
    FAILS(tq_codec_choose_outliers(plain, x[0], N, &e), TQ_INVALID, "'lm3' has no outlier channels");
    tq_codec_free(plain);
}

static void equal_channels_are_taken_in_order(void **state) {
    (void)state;
    double energy[20] = {0};
    uint8_t mask[3];
    tq_split_choose(energy, 20, 5, mask);
    assert_int_equal(mask[0], 0x1f);
    assert_int_equal(mask[1] | mask[2], 0);
    energy[19] = 2, energy[7] = 1, energy[3] = NAN;
    tq_split_choose(energy, 20, 3, mask);
    int bits = __builtin_popcount(mask[0]) + __builtin_popcount(mask[1]) + __builtin_popcount(mask[2]);
    assert_int_equal(bits, 3);
    assert_true(mask[2] & 8); /* 19 */
}

/* A cache chooses by each head's and each side's first page, and keeps to it. */
static void pages_of_a_sequence_have_the_channels_of_its_first(void **state) {
    (void)state;
    enum { DIM = 64, HEADS = 2, N = 500 };
    tq_cache_params p = tq_cache_params_default();
    p.n_layers = 1, p.n_heads = HEADS, p.n_kv_heads = HEADS, p.head_dim = DIM, p.max_tokens = 600, p.n_threads = 1;
    p.config = (tq_cache_config){.kv = "paper:2.5", .buffer_size = 16, .sinks = 0, .flush_batch_size = 8};
    tq_cache *cache;
    OK(tq_cache_new(&p, &cache, &e));
    float *k = test_floats(N * HEADS * DIM), *v = test_floats(N * HEADS * DIM), *out = test_floats(N * HEADS * DIM);
    tq_rng rng = {5};
    for (int t = 0; t < N; t++)
        for (int h = 0; h < HEADS; h++)
            for (int i = 0; i < DIM; i++) {
                size_t at = (size_t)((t * HEADS + h) * DIM + i);
                /* from the third page on others are large */
                int large = t < 256 ? 4 * h + 1 : 30;
                k[at] = (float)test_normal(&rng) * (i >= large && i < large + 16 ? 8 : 1);
                v[at] = (float)test_normal(&rng) * (i >= large + 20 && i < large + 36 ? 8 : 1);
            }
    OK(tq_cache_attend(cache, 0, k, k, v, N, out, &e));
    const tq_kv_store *s = &cache->layers[0].store;
    assert_true(cache->layers[0].n_pages == 4);
    for (int page = 0; page < 4; page++)
        for (int h = 0; h < HEADS; h++) {
            uint8_t *block = s->pages[page] + (size_t)h * s->page_bytes;
            const uint8_t *keys = tq_block_channels(s->key, block),
                          *values = tq_block_channels(s->value, block + s->value_at);
            for (int i = 0; i < DIM; i++) {
                assert_int_equal(keys[i / 8] >> i % 8 & 1, i >= 4 * h + 1 && i < 4 * h + 17);
                assert_int_equal(values[i / 8] >> i % 8 & 1, i >= 4 * h + 21 && i < 4 * h + 37);
            }
        }
    free(k), free(v), free(out);
    tq_cache_free(cache);
}

/* d * Var<q, x~> = (pi/2 - 1) D(b-1), 3 %, once d is large; with E|u|^2 = 2/(pi d) (1 + 1/(2d)) for a coordinate of a
 * unit vector it is (pi/2 (1 - 1/(2d)) - 1) D(b-1), 2 % less at d 64.  Unbiased, too: a vector with itself. */
static void an_orthogonal_sketch_has_a_third_of_the_variance(void **state) {
    (void)state;
    static const double table[3][3] = {{.358387, .114526, .033391}, {.360889, .116000, .033966}, {.362136, .116740, .034256}};
    for (int d = 0; d < 3; d++)
        for (int bits = 2; bits <= 4; bits++) {
            int dim = 64 << d, sketches = d == 2 ? 8 : 20, vectors = 100, queries = 16;
            double errors = 0, bias = 0, want = (1.5707963267948966 * (1 - .5 / dim) - 1) * table[d][bits - 2];
            float x[256], q[256], prepared[512], score;
            uint8_t row[300];
            char name[32];
            snprintf(name, sizeof name, "paper-prod-orth:%d", bits);
            for (int s = 0; s < sketches; s++) {
                tq_codec *codec = codec_of(name, dim, (uint64_t)(500 + s));
                tq_rng rng = {(uint64_t)(dim + s)};
                for (int i = 0; i < vectors; i++) {
                    test_unit_vector(&rng, x, dim);
                    tq_codec_encode(codec, x, 1, row);
                    tq_codec_query(codec, x, prepared);
                    tq_codec_score(codec, prepared, row, 1, &score);
                    bias += (score - test_dot(x, x, (size_t)dim)) / (sketches * vectors);
                    for (int j = 0; j < queries; j++) {
                        test_unit_vector(&rng, q, dim);
                        tq_codec_query(codec, q, prepared);
                        tq_codec_score(codec, prepared, row, 1, &score);
                        double error = score - test_dot(q, x, (size_t)dim);
                        errors += error * error / ((double)sketches * vectors * queries);
                    }
                }
                if (s == 0) assert_true(fabs(tq_codec_expected_distortion(codec) / want - 1) < 1e-3);
                tq_codec_free(codec);
            }
            print_message("%s, d %d: d*Var %.5f, theory %.5f (%+.1f %%), bias %+.5f\n", name, dim, dim * errors, want,
                          100 * (dim * errors / want - 1), bias);
            assert_true(fabs(dim * errors / want - 1) < .03);
            assert_true(fabs(bias) < .005);
        }
}

/* codec.md 2.11 and 5.4, least-squares scale: of d 64 and d 128.  Also .5 to 8 % behind Lloyd-Max with the same scale. */
static void a_uniform_grid_is_close_behind_lloyd_max(void **state) {
    (void)state;
    static const double known[2][3] = {{.1128, .0330, .0088}, {.1158, .0350, .00987}};
    for (int d = 0; d < 2; d++)
        for (int bits = 2; bits <= 4; bits++) {
            char name[16], other[16];
            snprintf(name, sizeof name, "uniform:%d", bits), snprintf(other, sizeof other, "lm%d", bits);
            double got = distortion_of(name, 64 << d, 5000), behind = got / distortion_of(other, 64 << d, 5000);
            print_message("%s, d %d: %.5f, table %.5f; %.3f of lm%d\n", name, 64 << d, got, known[d][bits - 2], behind, bits);
            assert_true(fabs(got / known[d][bits - 2] - 1) < .02);
            assert_true(behind < 1.1);
        }
}

/* Levels evenly spaced, and none of 200 steps around does better than the chosen one by more than the grid's worth. */
static void the_step_of_a_row_is_the_best_there_is(void **state) {
    (void)state;
    tq_rng rng = {14};
    for (int bits = 2; bits <= 4; bits++) {
        char name[16];
        snprintf(name, sizeof name, "uniform:%d", bits);
        tq_codec *codec = codec_of(name, 128, 1);
        int n = 1 << bits;
        for (int c = 1; c < n; c++) assert_int_equal(codec->levels[c] - codec->levels[c - 1], codec->levels[1] - codec->levels[0]);
        assert_int_equal(codec->levels[0] - 128, 128 - codec->levels[n - 1]);
        double ours = 0, best = 0;
        for (int round = 0; round < 200; round++) {
            float y[128];
            uint8_t codes[128];
            test_normals(&rng, y, 128);
            double scale = tq_f16_f32(tq_planar_quantize(codec, 1, y, codes)) / 127.0, least = INFINITY;
            for (int i = 0; i < 128; i++) {
                double difference = y[i] - scale * (codec->levels[codes[i]] - 128);
                ours += difference * difference;
            }
            for (int s = 0; s < 400; s++) {
                double step = (.2 + s * .003), product = 0, squares = 0, size = 0;
                for (int i = 0; i < 128; i++) {
                    double level = fmin(floor(fabs((double)y[i]) / step), n / 2 - 1) + .5;
                    product += fabs((double)y[i]) * level, squares += level * level, size += (double)y[i] * y[i];
                }
                least = fmin(least, size - product * product / squares);
            }
            best += least;
        }
        print_message("uniform:%d: %.4f of the error of the best of 400 steps\n", bits, ours / best);
        assert_true(ours / best < 1.01 && ours / best > .98);
        tq_codec_free(codec);
    }
}

/* MLX stretches a group's step so that 0 is a level: what is 0 stays 0, and no value errs by more than a
 * step. */
static void zero_is_a_level_of_mlx_groups(void **state) {
    (void)state;
    static const char *const names[] = {"q4-group:32", "q8-group:32"};
    tq_rng rng = {15};
    for (int c = 0; c < 2; c++) {
        tq_codec *codec = codec_of(names[c], 128, 0);
        int top = c ? 255 : 15;
        for (int round = 0; round < 200; round++) {
            float x[128], y[128];
            uint8_t row[200];
            test_normals(&rng, x, 128);
            for (int i = 0; i < 128; i += 5) x[i] = 0;
            if (round % 3 == 0)
                for (int i = 64; i < 128; i++) x[i] = fabsf(x[i]);
            tq_codec_encode(codec, x, 1, row);
            tq_codec_decode(codec, row, 1, y);
            for (int g = 0; g < 128; g += 32) {
                float low = INFINITY, high = -INFINITY;
                for (int i = g; i < g + 32; i++) low = fminf(low, x[i]), high = fmaxf(high, x[i]);
                double step = (high - low) / top, rounding = fmax(fabs((double)low), fabs((double)high)) * 0x1p-9;
                for (int i = g; i < g + 32; i++) {
                    if (x[i] == 0) assert_true(fabs((double)y[i]) <= rounding);
                    assert_true(fabs((double)y[i] - x[i]) <= step + rounding);
                }
            }
        }
        tq_codec_free(codec);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_split_has_the_distortion_of_its_parts),
        cmocka_unit_test(a_split_counts_its_bits_both_ways),
        cmocka_unit_test(outliers_are_the_largest_channels),
        cmocka_unit_test(equal_channels_are_taken_in_order),
        cmocka_unit_test(pages_of_a_sequence_have_the_channels_of_its_first),
        cmocka_unit_test(an_orthogonal_sketch_has_a_third_of_the_variance),
        cmocka_unit_test(a_uniform_grid_is_close_behind_lloyd_max),
        cmocka_unit_test(the_step_of_a_row_is_the_best_there_is),
        cmocka_unit_test(zero_is_a_level_of_mlx_groups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
