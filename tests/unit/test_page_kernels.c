/* test_page_kernels.c: the kernels that take whole pages, with every table that runs here: integers against plain sums bit
 * for bit, floats against double, guard bytes around what they write. */
#include "kernel_testing.h"

#include "base/half.h"

enum { PAGE = 128, DOTS = TQ_PAGE_QUERIES * 16 };

typedef struct integers {
    tq_int_vectors v;
    guarded wide, bytes, step, sum;
} integers;

static void integers_new(integers *x, int n) {
    size_t places = (size_t)n * TQ_INT_STRIDE;
    x->wide = guarded_new(2 * places, 0);
    x->bytes = guarded_new(2 * places, 0);
    x->step = guarded_new((size_t)n * 4, 0);
    x->sum = guarded_new((size_t)n * 4, 0);
    int8_t *bytes = (int8_t *)x->bytes.data;
    x->v = (tq_int_vectors){(int16_t *)(void *)x->wide.data, bytes, bytes + TQ_INT_STRIDE, floats(&x->step),
                            (int32_t *)(void *)x->sum.data,  TQ_INT_STRIDE};
}

static void integers_free(integers *x) {
    guarded_free(&x->wide, "wide integers");
    guarded_free(&x->bytes, "high and low bytes");
    guarded_free(&x->step, "steps");
    guarded_free(&x->sum, "sums");
}

static int32_t *words(guarded *g) { return (int32_t *)(void *)g->data; }

/* ---- products of codes --------------------------------------------------------------------------------------------- */

static void integers_fill(integers *q, int i, int n, tq_rng *rng, bool extreme) {
    int32_t sum = 0;
    for (int j = 0; j < n; j++) {
        int wide = extreme ? (j % 3 ? 32512 : -32512) : (int)test_below(rng, 65025) - 32512, at = i * TQ_INT_STRIDE + j;
        q->v.wide[at] = (int16_t)wide;
        q->v.high[at + i * TQ_INT_STRIDE] = (int8_t)((wide + 128) >> 8);
        q->v.low[at + i * TQ_INT_STRIDE] = (int8_t)(wide - 256 * ((wide + 128) >> 8));
        sum += wide;
    }
    q->v.sum[i] = sum;
}

static void check_page_dots(const tq_kernels *k, int bits, int vectors, int n_tiles, int n_q, tq_rng *rng) {
    int first = n_q % 3, n = 1 << bits;
    uint8_t levels[256];
    for (int i = 0; i < 256; i++) levels[i] = i < n ? (uint8_t)(bits == 8 ? i : 1 + (int)test_below(rng, 255)) : levels[i % n];
    integers q;
    integers_new(&q, first + n_q);
    for (int i = 0; i < first + n_q; i++) integers_fill(&q, i, 4 * vectors, rng, i == 1);
    size_t bytes = tile_bytes(bits, vectors);
    guarded codes = guarded_new(bytes * (size_t)n_tiles, 0), out = guarded_new((size_t)n_tiles * DOTS * 4, 0);
    for (size_t i = 0; i < codes.bytes; i++) codes.data[i] = (uint8_t)(1 + test_below(rng, 255));
    tq_page_codes side = {.codes = codes.data, .levels = levels, .next = codes.data, .next_bytes = codes.bytes, .bits = bits,
                          .n_tiles = n_tiles, .n_vectors = vectors, .tile_bytes = bytes};
    if (n_q % 2) side.next = NULL, side.next_bytes = 0;
    k->page_dots(&side, &q.v, first, n_q, words(&out));
    for (int t = 0; t < n_tiles; t++)
        for (int i = 0; i < n_q; i++)
            for (int lane = 0; lane < 16; lane++) {
                int64_t want = 0;
                for (int v = 0; v < vectors; v++)
                    for (int j = 0; j < 4; j++) {
                        unsigned code = code_of(bits, codes.data + (size_t)t * bytes, vectors, v, 4 * lane + j);
                        want += ((int64_t)levels[code] - 128) * q.v.wide[(first + i) * TQ_INT_STRIDE + 4 * v + j];
                    }
                int32_t got = words(&out)[t * DOTS + 16 * i + lane];
                if (got != want)
                    fail_msg("%s: %d bits, tile %d of %d, %d vectors, query %d of %d, lane %d: %d, want %lld", k->name, bits, t,
                             n_tiles, vectors, i, n_q, lane, got, (long long)want);
            }
    guarded_free(&out, "page_dots");
    guarded_free(&codes, "the codes");
    integers_free(&q);
}

static void check_dots(const tq_kernels *k) {
    static const int bits_of[] = {2, 3, 4, 8}, vectors_of[] = {4, 8, 12, 20, 32, 128};
    tq_rng rng = {21};
    for (int b = 0; b < 4; b++)
        for (int v = 0; v < 6; v++)
            for (int n_q = 1; n_q <= TQ_PAGE_QUERIES; n_q++) check_page_dots(k, bits_of[b], vectors_of[v], 1 + (v + n_q) % 4, n_q, &rng);
}

static void products_of_a_page_are_exact(void **state) {
    (void)state;
    each_table(check_dots);
}

/* 512 places of 127 * 32512: 2.114e9, below 2^31 = 2.147e9; and with signs by which a half could overflow first. */
static void check_extremes(const tq_kernels *k) {
    static const int extremes[] = {32512, -32512, 127, -128, 32385, -32385};
    for (int pattern = 0; pattern < 4; pattern++) {
        integers q;
        integers_new(&q, 6);
        guarded codes = guarded_new(128 * 64, 0), out = guarded_new(DOTS * 4, 0);
        for (int i = 0; i < 128 * 64; i++) codes.data[i] = pattern == 0 || (pattern == 2 && i % 2) || (pattern == 3 && i % 4 == 0) ? 255 : 1;
        for (int i = 0; i < 6; i++) {
            q.v.sum[i] = 0;
            for (int j = 0; j < 512; j++) {
                int wide = i < 2 ? extremes[i] : i == 2 ? extremes[j % 2] : i == 3 ? extremes[2 + j % 2] : extremes[(j + i) % 6];
                q.v.wide[i * TQ_INT_STRIDE + j] = (int16_t)wide;
                q.v.high[i * 2 * TQ_INT_STRIDE + j] = (int8_t)((wide + 128) >> 8);
                q.v.low[i * 2 * TQ_INT_STRIDE + j] = (int8_t)(wide - 256 * ((wide + 128) >> 8));
                q.v.sum[i] += wide;
            }
        }
        uint8_t levels[256] = {0};
        tq_page_codes side = {.codes = codes.data, .levels = levels, .bits = 8, .n_tiles = 1, .n_vectors = 128, .tile_bytes = 8192};
        k->page_dots(&side, &q.v, 0, 6, words(&out));
        for (int i = 0; i < 6; i++)
            for (int lane = 0; lane < 16; lane++) {
                int64_t want = 0;
                for (int j = 0; j < 512; j++)
                    want += (codes.data[j / 4 * 64 + 4 * lane + j % 4] - 128) * (int64_t)q.v.wide[i * TQ_INT_STRIDE + j];
                assert_int_equal(words(&out)[16 * i + lane], want);
            }
        if (pattern == 0) assert_int_equal(words(&out)[0], 2114060288); /* it was that large */
        guarded_free(&out, "page_dots");
        guarded_free(&codes, "the codes");
        integers_free(&q);
    }
}

static void the_largest_products_do_not_overflow(void **state) {
    (void)state;
    each_table(check_extremes);
}

/* ---- scores ---------------------------------------------------------------------------------------------------------- */

static void check_scores(const tq_kernels *k) {
    tq_rng rng = {22};
    for (int dim = 16; dim <= 512; dim += 48)
        for (int n_q = 1; n_q <= TQ_PAGE_QUERIES; n_q++) {
            float q[8 * 515], unit[8];
            uint16_t centre[512], scales[PAGE];
            int32_t dots[8 * DOTS];
            test_normals(&rng, q, 8 * 515);
            for (int i = 0; i < 512; i++) centre[i] = tq_f32_f16((float)(100 * test_normal(&rng)));
            for (int i = 0; i < PAGE; i++) scales[i] = tq_f32_f16((float)test_normal(&rng));
            for (int i = 0; i < 8 * DOTS; i++) dots[i] = (int32_t)tq_rng_u64(&rng) / 2;
            for (int i = 0; i < 8; i++) unit[i] = (float)(1e-5 * (1 + tq_rng_uniform(&rng)));
            guarded offsets = guarded_new((size_t)n_q * 4, 0), scores = guarded_new((size_t)n_q * PAGE * 4, 0);
            k->page_offsets(centre, dim, q, dim + 3, unit, n_q, floats(&offsets));
            for (int i = 0; i < n_q; i++) {
                double want = 0, size = 0;
                for (int j = 0; j < dim; j++) {
                    double product = (double)q[i * (dim + 3) + j] * tq_f16_f32(centre[j]);
                    want += product, size += fabs(product);
                }
                check_close(floats(&offsets)[i], want / unit[i], sum_bound(dim, size) / unit[i], k->name, "page_offsets", dim, i);
            }
            int tiles = 1 + n_q % 8;
            k->page_scores(dots, scales, floats(&offsets), n_q, tiles, floats(&scores));
            for (int i = 0; i < n_q; i++)
                for (int r = 0; r < 16 * tiles; r++) {
                    double product = (double)dots[r / 16 * DOTS + 16 * i + r % 16] * tq_f16_f32(scales[r]);
                    double offset = floats(&offsets)[i];
                    check_close(floats(&scores)[i * PAGE + r], product + offset, 3 * 0x1p-24 * (fabs(product) + fabs(offset)),
                                k->name, "page_scores", i, r);
                }
            guarded_free(&scores, "page_scores");
            guarded_free(&offsets, "page_offsets");
        }
}

static void scores_come_from_integers_scales_and_centres(void **state) {
    (void)state;
    each_table(check_scores);
}

/* ---- weights --------------------------------------------------------------------------------------------------------- */

static int wide_of(const tq_kernels *k, const tq_int_vectors *w, int row, int at) {
    static const char *const of_bytes[] = {"avx512", "amx", "neon-dotprod"}; /* each writes what its page_dots reads */
    bool bytes = false;
    for (size_t i = 0; i < sizeof of_bytes / sizeof *of_bytes; i++) bytes |= strcmp(k->name, of_bytes[i]) == 0;
    int split = 256 * w->high[row * 2 * TQ_INT_STRIDE + at] + w->low[row * 2 * TQ_INT_STRIDE + at];
    return bytes ? split : w->wide[row * TQ_INT_STRIDE + at];
}

/* One page after another, with rows of which some see nothing.  exp: 3e-7, and scores up to 60 times their own rounding. */
static void check_weights(const tq_kernels *k) {
    tq_rng rng = {23};
    for (int whole = 0; whole < 2; whole++) /* integers, floats */
        for (int n_q = 1; n_q <= TQ_PAGE_QUERIES; n_q++) {
            float max[8], sum[8], unit[8];
            double true_max[8], true_sum[8];
            for (int i = 0; i < 8; i++) max[i] = -INFINITY, sum[i] = 0, true_max[i] = -INFINITY, true_sum[i] = 0;
            for (int page = 0; page < 6; page++) {
                guarded scores = guarded_new((size_t)n_q * PAGE * 4, 0);
                integers w;
                integers_new(&w, n_q);
                tq_key_range seen[8];
                uint16_t scales[PAGE];
                float factors[PAGE];
                double before[8 * PAGE];
                for (int i = 0; i < n_q; i++) {
                    unit[i] = (float)(.5 + tq_rng_uniform(&rng));
                    seen[i] = page == 3 ? (tq_key_range){i, PAGE - i} : page == 4 ? (tq_key_range){5, 5} : (tq_key_range){0, PAGE};
                    if (page == 5) seen[i].to = 1 + i;
                    for (int r = 0; r < PAGE; r++) {
                        float s = (float)(test_normal(&rng) * (page == 1 ? 20 : 1) + page % 3 * 5);
                        if (r < seen[i].from || r >= seen[i].to) s = NAN; /* whatever was there */
                        floats(&scores)[i * PAGE + r] = s;
                        before[i * PAGE + r] = (double)s * unit[i];
                    }
                }
                int n = page == 5 ? 20 : PAGE;
                for (int r = 0; r < PAGE; r++) scales[r] = r < n ? tq_f32_f16((float)(1 + tq_rng_uniform(&rng))) : 0x7e00;
                assert_true(k->page_factors(scales, n, factors) == 0);
                for (int r = 0; r < PAGE; r++) assert_true(factors[r] == (r < n ? tq_f16_f32(scales[r]) : 0));
                tq_page_softmax soft = {.max = max, .sum = sum};
                k->page_weights(floats(&scores), unit, seen, n_q, whole ? NULL : factors, &w.v, &soft);
                for (int i = 0; i < n_q; i++) {
                    double top = -INFINITY, largest = 0, total = 0;
                    for (int r = seen[i].from; r < seen[i].to; r++) top = fmax(top, before[i * PAGE + r]);
                    double now = fmax(top, true_max[i]), reference = whole ? now : top;
                    for (int r = seen[i].from; r < seen[i].to; r++) {
                        total += exp(before[i * PAGE + r] - now);
                        largest = fmax(largest, exp(before[i * PAGE + r] - reference) * factors[r]);
                    }
                    int64_t all = 0;
                    for (int r = 0; r < PAGE; r++) {
                        bool is_seen = r >= seen[i].from && r < seen[i].to;
                        double want = is_seen ? exp(before[i * PAGE + r] - reference) : 0;
                        if (whole) {
                            check_close(floats(&scores)[i * PAGE + r], want, 1e-5 * want + 0x1p-100, k->name, "a weight", page, r);
                        } else {
                            int wide = wide_of(k, &w.v, i, r);
                            want *= factors[r];
                            check_close(wide * (double)w.v.step[i], want, 1e-5 * want + largest / 32512 * .502, k->name,
                                        "an integer weight", page, r);
                            all += wide;
                        }
                    }
                    if (!whole) assert_int_equal(all, w.v.sum[i]);
                    double keep = true_max[i] == -INFINITY ? 0 : exp(true_max[i] - now);
                    check_close(soft.keep[i], keep, 1e-5 * keep + 1e-37, k->name, "keep", page, i);
                    if (!whole) check_close(soft.bring[i], exp(top - now), 1e-5 * exp(top - now), k->name, "bring", page, i);
                    true_sum[i] = true_sum[i] * keep + total;
                    true_max[i] = now;
                    check_close(max[i], now, 1e-6 * fabs(now), k->name, "the maximum", page, i);
                    check_close(sum[i], true_sum[i], 1e-5 * true_sum[i], k->name, "the sum", page, i);
                }
                guarded_free(&scores, "page_weights");
                integers_free(&w);
            }
        }
}

static void weights_are_exponentials_page_after_page(void **state) {
    (void)state;
    each_table(check_weights);
}

/* A score that is not a number, whatever its bits; a scale that is not finite; weights whose largest is next to nothing. */
static void check_not_finite(const tq_kernels *k) {
    static const uint32_t nans[] = {0x7fc00000, 0x7f800001, 0xffc00000, 0x7fffffff, 0x7fc001ff};
    for (int bad = 0; bad < 5; bad++)
        for (int whole = 0; whole < 2; whole++) {
            float scores[PAGE], factors[PAGE], unit = 1, max = 3, sum = 2;
            integers w;
            integers_new(&w, 1);
            for (int r = 0; r < PAGE; r++) scores[r] = (float)-r, factors[r] = 1;
            memcpy(scores + 7 * bad, nans + bad, 4);
            tq_page_softmax soft = {.max = &max, .sum = &sum};
            k->page_weights(scores, &unit, &(tq_key_range){0, PAGE}, 1, whole ? NULL : factors, &w.v, &soft);
            if (!isnan(sum)) fail_msg("%s: a NaN (%x) among scores is gone", k->name, nans[bad]);
            integers_free(&w);
        }
    uint16_t scales[PAGE] = {0};
    float factors[PAGE];
    for (int i = 0; i < 2; i++) {
        scales[77] = i ? 0x7c00 : 0x7e01;
        assert_true(isnan(k->page_factors(scales, PAGE, factors)));
        assert_true(k->page_factors(scales, 77, factors) == 0);
    }
}

static void what_is_not_finite_is_not_hidden(void **state) {
    (void)state;
    each_table(check_not_finite);
}

/* ---- values ---------------------------------------------------------------------------------------------------------- */

static void check_values(const tq_kernels *k) {
    tq_rng rng = {24};
    for (int tiles = 1; tiles <= 32; tiles += 3)
        for (int n_q = 1; n_q <= TQ_PAGE_QUERIES; n_q++) {
            int stride = 16 * tiles + 1;
            int32_t *dots = test_alloc((size_t)tiles * DOTS * 4);
            float step[8];
            tq_page_softmax soft = {0};
            for (int i = 0; i < tiles * DOTS; i++) dots[i] = (int32_t)tq_rng_u64(&rng) / 2;
            for (int i = 0; i < 8; i++) {
                step[i] = (float)tq_rng_uniform(&rng) * 1e-5f;
                soft.keep[i] = (float)tq_rng_uniform(&rng);
                soft.bring[i] = (float)tq_rng_uniform(&rng);
            }
            guarded acc = guarded_new((size_t)(n_q * stride) * 4, 4);
            float *before = test_floats((size_t)(n_q * stride));
            test_normals(&rng, before, (size_t)(n_q * stride));
            memcpy(acc.data, before, acc.bytes);
            k->page_values(dots, step, &soft, n_q, tiles, floats(&acc), stride);
            for (int i = 0; i < n_q; i++)
                for (int j = 0; j < stride; j++) {
                    double old = before[i * stride + j], brought = 0;
                    if (j < 16 * tiles) {
                        old *= soft.keep[i];
                        brought = (double)dots[j / 16 * DOTS + 16 * i + j % 16] * soft.bring[i] * step[i] / 127;
                    }
                    check_close(floats(&acc)[i * stride + j], old + brought, 6 * 0x1p-24 * (fabs(old) + fabs(brought)), k->name,
                                "page_values", i, j);
                }
            guarded_free(&acc, "page_values");
            free(before), free(dots);
        }
}

static void values_are_gathered_with_what_was_there(void **state) {
    (void)state;
    each_table(check_values);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_of_a_page_are_exact),
        cmocka_unit_test(the_largest_products_do_not_overflow),
        cmocka_unit_test(scores_come_from_integers_scales_and_centres),
        cmocka_unit_test(weights_are_exponentials_page_after_page),
        cmocka_unit_test(what_is_not_finite_is_not_hidden),
        cmocka_unit_test(values_are_gathered_with_what_was_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
