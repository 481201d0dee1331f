/* test_encode.c: rows on their way into a page, many at a time, against what src/codec does with one: bit for bit. */
#include "kernel_testing.h"

#include "base/half.h"
#include "codec/page.h"

enum { ROWS = TQ_TRELLIS_ROWS };

/* Rows of every kind side by side: normal, nothing, too short for a scale, subnormal, large, beyond f32, not finite, a spike. */
static void fill_row(float *x, int dim, int row, tq_rng *rng) {
    static const float sizes[] = {1, 1, 0, 1e-30f, 1e-42f, 1e30f, 3e4f, 1, 1, -0.0f};
    for (int i = 0; i < dim; i++) x[i] = (float)test_normal(rng) * sizes[row % 10];
    if (row % 10 == 7) x[row % dim] = row % 20 == 7 ? NAN : -INFINITY;
    if (row % 10 == 8) memset(x, 0, (size_t)dim * sizeof *x), x[row % dim] = 77;
}

static tq_codec *codec_of(int bits, int dim) {
    char name[16];
    tq_codec *codec;
    snprintf(name, sizeof name, "tcq%d", bits);
    OK(tq_codec_new(name, dim, 5, &codec, &e));
    return codec;
}

static void check_begin(const tq_kernels *k, const tq_codec *codec, tq_side side, int n_rows, tq_rng *rng) {
    int dim = codec->dim, lanes = tq_side_lanes(side);
    size_t places = (size_t)dim * ROWS;
    uint8_t *block = aligned_alloc(64, (tq_block_bytes(codec, side) + 63) / 64 * 64);
    float *rows = test_floats(places), mean[TQ_MAX_PLANAR_DIM];
    uint16_t *halves = test_alloc(places * sizeof *halves);
    tq_exact_row from[ROWS];
    assert_non_null(block);
    for (int r = 0; r < n_rows; r++) { /* some have been in the window */
        float *x = rows + r * dim;
        fill_row(x, dim, r, rng);
        from[r] = (tq_exact_row){x, r % 3 == 0};
        for (int i = 0; r % 3 == 0 && i < dim; i++) {
            halves[r * dim + i] = tq_f32_f16(x[i]);
            x[i] = tq_f16_f32(halves[r * dim + i]);
        }
        if (r % 3 == 0) from[r].x = halves + r * dim;
    }
    test_normals(rng, mean, (size_t)dim);
    if (side == TQ_KEYS) tq_block_set_centre(codec, block, mean);
    guarded samples = guarded_new(places * sizeof(int16_t), 0), scratch = guarded_new(TQ_ENCODE_SCRATCH(dim), 0);
    float inverse[ROWS];
    uint16_t scale[ROWS];
    k->encoder->trellis_begin(codec, side, block, from, n_rows, (int16_t *)(void *)samples.data, inverse, scale, scratch.data);
    int chosen = 0;
    for (int r = 0; r < n_rows; r++) {
        float y[TQ_MAX_PLANAR_DIM];
        int16_t want[TQ_MAX_PLANAR_DIM];
        uint16_t want_scale;
        tq_block_rotate(codec, side, block, rows + r * dim, y);
        float want_inverse = tq_trellis_begin(codec, lanes, y, want, 1, &want_scale);
        if (memcmp(&want_inverse, &inverse[r], sizeof want_inverse) != 0 || want_scale != scale[r])
            fail_msg("%s: dim %d, row %d: inverse %.9g, scale %#x, want %.9g, %#x", k->name, dim, r, inverse[r], scale[r],
                     want_inverse, want_scale);
        for (int i = 0; want_inverse != 0 && i < dim; i++) {
            int16_t got;
            memcpy(&got, samples.data + ((size_t)i * ROWS + (size_t)r) * sizeof got, sizeof got);
            if (got != want[i]) fail_msg("%s: dim %d, row %d, sample %d: got %d, want %d", k->name, dim, r, i, got, want[i]);
        }
        chosen += want_inverse != 0;
    }
    assert_true(chosen > 0 && (n_rows < 10 || chosen < n_rows));
    guarded_free(&samples, "trellis_begin"), guarded_free(&scratch, "scratch of trellis_begin");
    free(block), free(rows), free(halves);
}

static void check_tables(const tq_kernels *k) {
    static const int dims[] = {16, 32, 48, 64, 80, 96, 128, 192, 240, 256, 496, 512}; /* 2^k m of every kind */
    static const int row_counts[] = {ROWS, 1, 19, 33};
    tq_rng rng = {62};
    for (size_t d = 0; d < sizeof dims / sizeof *dims; d++) {
        tq_codec *codec = codec_of(2 + (int)d % 3, dims[d]);
        for (int n = 0; n < 4; n++) {
            check_begin(k, codec, TQ_KEYS, row_counts[n], &rng);
            check_begin(k, codec, TQ_VALUES, row_counts[n], &rng);
        }
        tq_codec_free(codec);
    }
}

static void rows_side_by_side_are_samples_of_each(void **state) {
    (void)state;
    each_table(check_tables);
}

/* Into a block that is full of other bits, of which those of other rows stay. */
static void check_put(const tq_codec *codec, tq_side side, int row, int n, tq_rng *rng) {
    int dim = codec->dim, lanes = tq_side_lanes(side);
    size_t bytes = (tq_block_bytes(codec, side) + 63) / 64 * 64;
    guarded got = guarded_new(bytes, 0), want = guarded_new(bytes, 0), chains = guarded_new((size_t)dim * ROWS, 0);
    uint16_t scales[ROWS];
    for (size_t i = 0; i < bytes; i++) got.data[i] = want.data[i] = (uint8_t)tq_rng_u64(rng);
    for (size_t i = 0; i < chains.bytes; i++) chains.data[i] = (uint8_t)test_below(rng, 1 << codec->bits);
    for (int r = 0; r < n; r++) scales[r] = (uint16_t)tq_rng_u64(rng);
    tq_block_put_chains(codec, side, got.data, row, n, chains.data, scales);
    for (int r = 0; r < n; r++) {
        uint8_t codes[TQ_MAX_PLANAR_DIM];
        for (int t = 0; t < dim; t++) codes[tq_chain_place(t, dim, lanes)] = chains.data[t * ROWS + r];
        tq_block_put(codec, side, want.data, row + r, codes, scales[r]);
    }
    for (size_t i = 0; i < bytes; i++)
        if (got.data[i] != want.data[i])
            fail_msg("%d bits, dim %d, %s, %d rows from %d: byte %zu is %#x, want %#x", codec->bits, dim,
                     side == TQ_KEYS ? "keys" : "values", n, row, i, got.data[i], want.data[i]);
    guarded_free(&got, "put_chains"), guarded_free(&want, "put"), guarded_free(&chains, "codes");
}

static void chains_are_put_where_rows_are(void **state) {
    (void)state;
    static const int runs[][2] = {{0, 64}, {64, 64}, {0, 16}, {5, 1}, {7, 40}, {96, 32}, {48, 29}, {127, 1}};
    tq_rng rng = {63};
    for (int bits = 2; bits <= 4; bits++)
        for (int dim = 16; dim <= TQ_MAX_PLANAR_DIM; dim += dim < 256 ? 16 : 128) {
            tq_codec *codec = codec_of(bits, dim);
            for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
                check_put(codec, TQ_KEYS, runs[i][0], runs[i][1], &rng);
                check_put(codec, TQ_VALUES, runs[i][0], runs[i][1], &rng);
            }
            tq_codec_free(codec);
        }
}

static void check_halves(const tq_kernels *k) {
    enum { N = 4096 };
    static uint16_t half[N], got[N + 1];
    static float x[N];
    for (int base = 0; base < 65536; base += N) { /* every f16: -0 and a row is the row */
        for (int i = 0; i < N; i++) half[i] = (uint16_t)(base + i), x[i] = -0.0f;
        tq_exact_row row = {half, true};
        k->encoder->add_rows(&row, 1, N, x);
        for (int i = 0; i < N; i++) {
            float want = tq_f16_f32(half[i]);
            if (isnan(want) ? !isnan(x[i]) : memcmp(&want, &x[i], sizeof want) != 0)
                fail_msg("%s: f16 %#x is %.9g, want %.9g", k->name, half[i], x[i], want);
        }
    }
    tq_rng rng = {64};
    for (int round = 0; round < 512; round++) { /* every exponent, ties and what is beside them */
        int n = N - round % 17;
        for (int i = 0; i < n; i++) {
            uint32_t bits = (uint32_t)tq_rng_u64(&rng) << 23 | (uint32_t)tq_rng_u64(&rng) % (1u << 23);
            if (i % 2) bits = (bits & ~0x1fffu) | (0x1000u + (uint32_t)test_below(&rng, 3) - 1);
            x[i] = tq_bits_f32(bits);
        }
        got[n] = 0x1234;
        k->encoder->to_half(x, n, got);
        assert_int_equal(got[n], 0x1234);
        for (int i = 0; i < n; i++)
            if (got[i] != tq_f32_f16(x[i])) fail_msg("%s: %.9g is f16 %#x, want %#x", k->name, x[i], got[i], tq_f32_f16(x[i]));
    }
}

static void halves_are_those_of_half_h(void **state) {
    (void)state;
    each_table(check_halves);
}

static void check_sums(const tq_kernels *k) {
    enum { N = 128, DIM = 80 };
    static float rows[N][DIM];
    tq_exact_row from[N];
    float got[DIM] = {0}, want[DIM] = {0};
    tq_rng rng = {65};
    test_normals(&rng, rows[0], N * DIM);
    for (int r = 0; r < N; r++) {
        from[r] = (tq_exact_row){rows[r], false};
        for (int i = 0; i < DIM; i++) want[i] += rows[r][i];
    }
    k->encoder->add_rows(from, N, DIM, got);
    assert_memory_equal(got, want, sizeof want);
}

static void rows_are_added_one_after_the_other(void **state) {
    (void)state;
    each_table(check_sums);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_side_by_side_are_samples_of_each),
        cmocka_unit_test(chains_are_put_where_rows_are),
        cmocka_unit_test(halves_are_those_of_half_h),
        cmocka_unit_test(rows_are_added_one_after_the_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
