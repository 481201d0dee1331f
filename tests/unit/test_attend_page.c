/* test_attend_page.c: runs of pages attended to in one step, against softmax in double over what their codes say.  For tables that
 * have such a step; every other table's steps have tests of their own (test_page_kernels.c). */
#include "kernel_testing.h"

#include "base/half.h"
#include "codec/page.h"

enum { PAGE = 128, MAX_DIM = 512, N_PAGES = 5, MAX_ROWS = 70 };

typedef struct setup {
    const tq_kernels *k;
    int dim, key_bits, value_bits, rows;
    bool sliding, woven;
    int run; /* pages of a run */
} setup;

typedef struct sides {
    uint8_t *codes[2];
    uint16_t scales[2][PAGE], centre[MAX_DIM];
    int n;
    tq_key_range seen[MAX_ROWS];
} sides;

static void levels_of(int bits, tq_rng *rng, uint8_t *levels) {
    for (int i = 0; i < 256; i++)
        levels[i] = i < 1 << bits ? (uint8_t)(bits == 8 ? (i ? i : 1) : 1 + (int)test_below(rng, 255)) : levels[i % (1 << bits)];
}

/* Trellis codes are woven where a cache would have them so. */
static tq_page_codes side_of(const setup *s, bool values, const uint8_t *codes, const uint8_t *levels, const tq_trellis_weave *weave) {
    int bits = values ? s->value_bits : s->key_bits, n_tiles = values ? s->dim / 16 : 8, n_vectors = values ? 32 : s->dim / 4;
    bool woven = s->woven && bits < 8 && (!values || tq_values_are_woven(bits, n_tiles));
    return (tq_page_codes){.codes = codes, .levels = levels, .bits = bits, .n_tiles = n_tiles, .n_vectors = n_vectors,
                           .tile_bytes = tile_bytes(bits, n_vectors), .values = values, .weave = woven ? weave : NULL};
}

/* The levels of a side, + 128, vector after vector. */
static uint8_t *levels_in(const tq_page_codes *side) {
    const tq_kernels *scalar;
    OK(tq_kernels_select("scalar", &scalar, &e));
    uint8_t *all = test_alloc((size_t)(side->n_tiles * side->n_vectors * 64));
    if (side->weave && side->values) scalar->unpack_trellis_values(side->weave, side->codes, side->n_tiles, all);
    for (int t = 0; t < side->n_tiles; t++) {
        const uint8_t *tile = side->codes + (size_t)t * side->tile_bytes;
        uint8_t *to = all + t * side->n_vectors * 64;
        if (side->weave && !side->values) scalar->unpack_trellis_keys(side->weave, tile, side->n_vectors, to);
        for (int i = 0; !side->weave && i < side->n_vectors * 64; i++) to[i] = side->levels[code_of(side->bits, tile, side->n_vectors, i / 64, i % 64)];
    }
    return all;
}

/* The third page's keys lie where every query scores e^80 times as much as before, the fourth's far below. */
static void sides_new(const setup *s, int page, const float *q, tq_rng *rng, sides *p) {
    size_t bytes[2] = {8 * tile_bytes(s->key_bits, s->dim / 4), (size_t)s->dim / 16 * tile_bytes(s->value_bits, 32)};
    double squares = 0;
    for (int i = 0; i < s->dim; i++) squares += (double)q[i] * q[i];
    double reach = page == 2 ? 80 : page == 3 ? -150 : 3;
    for (int i = 0; i < s->dim; i++) p->centre[i] = tq_f32_f16((float)(reach * q[i] / squares));
    p->n = page == N_PAGES - 1 ? 37 : PAGE;
    for (int side = 0; side < 2; side++) {
        p->codes[side] = aligned_alloc(64, bytes[side]);
        assert_non_null(p->codes[side]);
        for (size_t i = 0; i < bytes[side]; i++) p->codes[side][i] = (uint8_t)(1 + test_below(rng, 255));
        for (int r = 0; r < PAGE; r++)
            p->scales[side][r] = r < p->n ? tq_f32_f16((float)((side ? 1 : .3) * (.5 + tq_rng_uniform(rng)))) : 0x7e00;
    }
    for (int i = 0; i < s->rows; i++) {
        p->seen[i] = (tq_key_range){0, p->n};
        if (s->sliding && page == 0) p->seen[i] = i % 3 == 0 ? (tq_key_range){PAGE, PAGE} : (tq_key_range){7 * i % 128, PAGE};
    }
}

static void check_setup(const setup *s, uint64_t seed) {
    tq_rng rng = {seed};
    const tq_kernels *k = s->k;
    int dim = s->dim, rows = s->rows;
    size_t floats_q = (size_t)rows * (size_t)dim;
    float *q = test_floats(floats_q);
    for (int j = 0; j < dim; j++) q[j] = (float)test_normal(&rng);
    for (size_t i = (size_t)dim; i < floats_q; i++) q[i] = q[i % (size_t)dim] * .95f + .05f * (float)test_normal(&rng);
    int padded = (rows + 7) / 8 * 8;
    guarded wide = guarded_new((size_t)padded * TQ_INT_STRIDE * 2, 0), bytes = guarded_new((size_t)padded * TQ_INT_STRIDE * 2, 0);
    size_t acc_rows = rows <= TQ_PAGE_QUERIES ? (size_t)rows : (size_t)(rows + TQ_MANY_ROWS - 1) / TQ_MANY_ROWS * TQ_MANY_ROWS;
    guarded max = guarded_new((size_t)rows * 4, 0), sum = guarded_new((size_t)rows * 4, 0), acc = guarded_new(acc_rows * (size_t)dim * 4, 0);
    guarded scratch = guarded_new(tq_page_rows_bytes(rows, dim), 0);
    float step[MAX_ROWS + 8] = {0};
    int32_t int_sum[MAX_ROWS + 8];
    tq_page_rows r = {.n = rows, .dim = dim, .q = q, .max = floats(&max), .sum = floats(&sum), .acc = floats(&acc), .scratch = scratch.data,
                      .q_int = {(int16_t *)(void *)wide.data, (int8_t *)bytes.data, (int8_t *)bytes.data + TQ_INT_STRIDE, step,
                                int_sum, TQ_INT_STRIDE}};
    memset(acc.data, 0, acc.bytes), memset(sum.data, 0, sum.bytes), memset(bytes.data, 0, bytes.bytes);
    for (int i = 0; i < rows; i++) r.max[i] = -INFINITY, k->to_int(q + i * dim, dim, &r.q_int, i);

    uint8_t key_levels[256], value_levels[256];
    levels_of(s->key_bits, &rng, key_levels);
    levels_of(s->value_bits, &rng, value_levels);
    if (s->key_bits == s->value_bits) memcpy(value_levels, key_levels, 256);
    const uint8_t *same = s->key_bits == s->value_bits ? key_levels : value_levels;
    tq_trellis_weave weaves[2];
    if (s->key_bits < 8) tq_trellis_weave_make(tq_trellis_of(s->key_bits), weaves);
    if (s->value_bits < 8) tq_trellis_weave_make(tq_trellis_of(s->value_bits), weaves + 1);
    sides pages[N_PAGES];
    uint8_t *levels[N_PAGES][2];
    tq_planar_page planar[N_PAGES];
    double *score = test_alloc(N_PAGES * PAGE * sizeof *score), *want = test_alloc(floats_q * sizeof *want);
    double *slack = test_alloc(floats_q * sizeof *slack), log_sum[MAX_ROWS];
    float max_after[N_PAGES];
    for (int page = 0; page < N_PAGES; page++) {
        sides *p = pages + page;
        sides_new(s, page, q, &rng, p);
        planar[page] = (tq_planar_page){
            .keys = side_of(s, false, p->codes[0], key_levels, weaves), .values = side_of(s, true, p->codes[1], same, weaves + 1),
            .key_scales = p->scales[0], .centre = p->centre, .value_scales = p->scales[1], .dim = dim, .n = p->n,
            .seen = s->sliding && page == 0 ? p->seen : NULL, .block = p->codes[0], .block_bytes = 64};
        levels[page][0] = levels_in(&planar[page].keys), levels[page][1] = levels_in(&planar[page].values);
    }
    k->begin_pages(&r);
    for (int page = 0; page < N_PAGES; page += s->run) {
        k->attend_pages(planar + page, page + s->run <= N_PAGES ? s->run : N_PAGES - page, &r);
        max_after[page] = r.max[1 % rows];
    }
    k->end_pages(&r);
    if (s->run == 1) {
        assert_true(max_after[2] > max_after[1] + 40); /* the third page moved what weights are relative to, */
        assert_true(max_after[3] == max_after[2]);     /* the fourth did not */
    }

    for (int i = 0; i < rows; i++) {
        double top = -INFINITY, total = 0, *out = want + i * dim, *loose = slack + i * dim;
        for (int page = 0; page < N_PAGES; page++) {
            sides *p = pages + page;
            for (int t = p->seen[i].from; t < p->seen[i].to; t++) {
                double dot = 0, centre = 0;
                for (int j = 0; j < dim; j++) {
                    double level = levels[page][0][(t / 16 * dim / 4 + j / 4) * 64 + 4 * (t % 16) + j % 4] - 128.0;
                    dot += level * (rows <= TQ_PAGE_QUERIES ? (double)step[i] * r.q_int.wide[i * TQ_INT_STRIDE + j] : (double)q[i * dim + j]);
                    centre += (double)q[i * dim + j] * tq_f16_f32(p->centre[j]);
                }
                double value = dot * tq_f16_f32(p->scales[0][t]) / 127 + centre;
                score[page * PAGE + t] = value;
                top = fmax(top, value);
            }
        }
        memset(out, 0, (size_t)dim * sizeof *out), memset(loose, 0, (size_t)dim * sizeof *loose);
        for (int page = 0; page < N_PAGES; page++) {
            sides *p = pages + page;
            double most = 0;
            for (int t = p->seen[i].from; t < p->seen[i].to; t++)
                most = fmax(most, exp(score[page * PAGE + t] - top) * tq_f16_f32(p->scales[1][t]));
            for (int t = p->seen[i].from; t < p->seen[i].to; t++) {
                double e = exp(score[page * PAGE + t] - top), w = e * tq_f16_f32(p->scales[1][t]) / 127;
                total += e;
                for (int j = 0; j < dim; j++) {
                    double level = levels[page][1][(j / 16 * 32 + t / 4) * 64 + 4 * (j % 16) + t % 4] - 128.0;
                    out[j] += w * level;
                    /* rounding to 15 bits and a sign; the exponential and the scores' own rounding */
                    loose[j] += fabs(level) * (most / 127 / 32512 * .51 + 3e-5 * w);
                }
            }
        }
        log_sum[i] = top + log(total);
        check_close(r.max[i] + log((double)r.sum[i]), log_sum[i], 3e-5, k->name, "the logarithm of the sum", i, dim);
        for (int j = 0; j < dim; j++)
            check_close(r.acc[i * dim + j] / r.sum[i], out[j] / total, (loose[j] + 3e-5 * fabs(out[j])) / total, k->name, "an output",
                        i, j);
    }
    for (int page = 0; page < N_PAGES; page++)
        for (int side = 0; side < 2; side++) free(pages[page].codes[side]), free(levels[page][side]);
    guarded_free(&scratch, "scratch of rows");
    guarded_free(&acc, "sums of values"), guarded_free(&sum, "sums"), guarded_free(&max, "maxima");
    guarded_free(&bytes, "bytes of queries"), guarded_free(&wide, "queries");
    free(q), free(score), free(want), free(slack);
}

static void check_table(const tq_kernels *k) {
    static const int dims[] = {16, 48, 64, 80, 128, 192, 512}, bits[] = {2, 3, 4, 8}, rows[] = {1, 7, 9, 8, 20, 70};
    static const int runs[] = {1, 2, 3, 5};
    if (!k->attend_pages) return;
    for (int d = 0; d < 7; d++)
        for (int b = 0; b < 8; b++) {
            setup s = {.k = k, .dim = dims[d], .key_bits = bits[b % 4], .value_bits = d % 2 ? bits[(b + 1) % 4] : bits[b % 4],
                       .rows = rows[(5 * d + b) % 6], .sliding = b % 2 == 1, .woven = b >= 4, .run = runs[(d + b / 2) % 4]};
            check_setup(&s, (uint64_t)(100 + 8 * d + b));
        }
}

static void pages_in_one_step_are_softmax_over_their_codes(void **state) {
    (void)state;
    each_table(check_table);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_in_one_step_are_softmax_over_their_codes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
