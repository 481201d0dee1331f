/* test_trellis.c: trellis codes: their distortion, and every kernel table against the specification, bit for bit. */
#include "kernel_testing.h"

#include "codec/page.h"

enum { MAX_DIM = 512 };

/* ---- the codes -------------------------------------------------------------------------------------------------------- */

/* codec.md 5.4: .0784, .0206, .0056 at 2, 3, 4 bits for dimension 128, within 3 %; ours may be better. */
static void trellises_have_at_most_the_distortion_of_the_table(void **state) {
    (void)state;
    enum { DIM = 128, VECTORS = 1000 };
    static const double want[] = {.0784, .0206, .0056};
    for (int bits = 2; bits <= 4; bits++) {
        char name[8];
        snprintf(name, sizeof name, "tcq%d", bits);
        tq_codec *codec;
        OK(tq_codec_new(name, DIM, 42, &codec, &e));
        tq_rng rng = {DIM};
        double sum = 0;
        for (int v = 0; v < VECTORS; v++) {
            float x[DIM], y[DIM];
            uint8_t row[2 + DIM / 2];
            test_unit_vector(&rng, x, DIM);
            tq_codec_encode(codec, x, 1, row);
            tq_codec_decode(codec, row, 1, y);
            sum += test_relative_error(x, y, DIM);
        }
        print_message("tcq%d: %.5f\n", bits, sum / VECTORS);
        assert_true(sum / VECTORS <= want[bits - 2] * 1.03 && sum / VECTORS >= want[bits - 2] * .9);
        tq_codec_free(codec);
    }
}

/* What the encoder counts, written down once more. */
static int64_t cost_of(const tq_trellis *t, const int16_t *samples, const int8_t *levels, int n) {
    double unit = t->coarse ? 2 : 1;
    int64_t cost = 0;
    for (int i = 0; i < n; i++) {
        double sample = floor(samples[i] / 16.0 / unit + .5), level = floor(levels[i] / unit + (t->coarse ? .5 : 0));
        int d = (int)fmin(fabs(fmax(-128, fmin(127, sample)) - level), 63), near = d < t->knee ? d : t->knee;
        cost += (near * near * t->near + 128) / 256 + (d - near) * t->far / 16;
    }
    return cost;
}

/* Found by the encoder: no single code of a chain can be changed for the better (its end is the state of its start, so
 * every chain of codes is legal). */
static void no_change_of_one_code_is_nearer(void **state) {
    (void)state;
    enum { N = 64 };
    tq_rng rng = {17};
    for (int bits = 2; bits <= 4; bits++)
        for (int round = 0; round < 20; round++) {
            const tq_trellis *t = tq_trellis_of(bits);
            int16_t samples[N];
            uint8_t codes[N];
            int8_t levels[N];
            for (int i = 0; i < N; i++) samples[i] = (int16_t)lrint(test_normal(&rng) * (double)t->sigma * TQ_TRELLIS_UNIT);
            tq_trellis_encode(t, samples, N, codes);
            int64_t best = -1;
            for (int change = -1; change < N << bits; change++) {
                uint8_t was = change >= 0 ? codes[change >> bits] : 0;
                /* The seam's state was chosen before most of the rest was seen. */
                if (change >= 0 && (change >> bits < 6 || change >> bits >= N - 6)) continue;
                if (change >= 0) codes[change >> bits] = (uint8_t)(change & ((1 << bits) - 1));
                tq_trellis_decode(t, codes, N, levels);
                int64_t error = cost_of(t, samples, levels, N);
                if (change < 0) best = error;
                else codes[change >> bits] = was;
                if (error < best) fail_msg("%d bits, round %d: code %d", bits, round, change >> bits);
            }
        }
}

/* The state before the first sample offers it a share of the levels, and costs of a byte end not far out, so that all of them
 * might cost the same.  The seam's state is one that suits the first sample too. */
static void a_first_sample_far_out_is_not_given_up(void **state) {
    (void)state;
    enum { N = 64 };
    tq_rng rng = {29};
    for (int bits = 2; bits <= 4; bits++)
        for (int round = 0; round < 300; round++) {
            const tq_trellis *t = tq_trellis_of(bits);
            int16_t samples[N];
            uint8_t codes[N];
            int8_t levels[N];
            for (int i = 0; i < N; i++) samples[i] = (int16_t)lrint(test_normal(&rng) * (double)t->sigma * TQ_TRELLIS_UNIT);
            samples[0] = (int16_t)((round % 2 ? 127 : -127) * TQ_TRELLIS_UNIT);
            tq_trellis_encode(t, samples, N, codes);
            tq_trellis_decode(t, codes, N, levels);
            if (round % 2 ? levels[0] <= 0 : levels[0] >= 0)
                fail_msg("%d bits, round %d: %d stands for %d", bits, round, levels[0], samples[0] / TQ_TRELLIS_UNIT);
        }
}

/* ---- the kernels ------------------------------------------------------------------------------------------------------ */

/* A side of a page of `rows` random rows, as page.h puts them, and their levels: (row, dim). */
static void random_block(const tq_codec *codec, tq_side side, int rows, tq_rng *rng, uint8_t *block, int8_t *levels) {
    uint8_t codes[MAX_DIM];
    for (int row = 0; row < rows; row++) {
        for (int i = 0; i < codec->dim; i++) codes[i] = (uint8_t)test_below(rng, 1u << codec->bits);
        tq_block_put(codec, side, block, row, codes, 0);
        tq_planar_levels(codec, tq_side_lanes(side), codes, levels + row * codec->dim);
    }
}

static tq_codec *trellis_codec(int bits, int dim) {
    char name[16];
    tq_codec *codec;
    snprintf(name, sizeof name, "tcq%d", bits);
    OK(tq_codec_new(name, dim, 42, &codec, &e));
    return codec;
}

static void check_keys(const tq_kernels *k, int bits, int dim, tq_rng *rng) {
    tq_codec *codec = trellis_codec(bits, dim);
    size_t tile_bytes = tq_block_tile_bytes(codec, TQ_KEYS);
    uint8_t *block = aligned_alloc(64, (tq_block_bytes(codec, TQ_KEYS) + 63) / 64 * 64);
    int8_t *levels = test_alloc((size_t)(32 * dim));
    assert_non_null(block);
    random_block(codec, TQ_KEYS, 32, rng, block, levels);
    guarded tile = guarded_new(tile_bytes, 0), dst = guarded_new((size_t)dim / 4 * 64, 0);
    memcpy(tile.data, block + tile_bytes, tile_bytes);
    k->unpack_trellis_keys(&codec->weave, tile.data, dim / 4, dst.data);
    for (int row = 0; row < 16; row++)
        for (int i = 0; i < dim; i++)
            if (dst.data[64 * (i / 4) + 4 * row + i % 4] - 128 != levels[(16 + row) * dim + i])
                fail_msg("%s: %d bits, dim %d, key %d, coordinate %d", k->name, bits, dim, row, i);
    guarded_free(&dst, "unpack_trellis_keys");
    guarded_free(&tile, "the tile");
    free(block), free(levels), tq_codec_free(codec);
}

/* Whole numbers of pairs or fours of tiles, which are woven, and others. */
static void check_values(const tq_kernels *k, int bits, int dim, tq_rng *rng) {
    tq_codec *codec = trellis_codec(bits, dim);
    size_t bytes = tq_block_tile_bytes(codec, TQ_VALUES) * (size_t)dim / 16;
    uint8_t *block = aligned_alloc(64, (tq_block_bytes(codec, TQ_VALUES) + 63) / 64 * 64);
    int8_t *levels = test_alloc((size_t)(TQ_PAGE_TOKENS * dim));
    assert_non_null(block);
    random_block(codec, TQ_VALUES, TQ_PAGE_TOKENS, rng, block, levels);
    guarded codes = guarded_new(bytes, 0), dst = guarded_new((size_t)dim / 16 * 2048, 0);
    memcpy(codes.data, block, bytes);
    k->unpack_trellis_values(&codec->weave, codes.data, dim / 16, dst.data);
    for (int row = 0; row < TQ_PAGE_TOKENS; row++)
        for (int i = 0; i < dim; i++)
            if (dst.data[2048 * (i / 16) + 64 * (row / 4) + 4 * (i % 16) + row % 4] - 128 != levels[row * dim + i])
                fail_msg("%s: %d bits, dim %d, value %d, coordinate %d", k->name, bits, dim, row, i);
    guarded_free(&dst, "unpack_trellis_values");
    guarded_free(&codes, "the codes");
    free(block), free(levels), tq_codec_free(codec);
}

/* Where a table multiplies woven codes as they are: the sums of plain loops over the specification's levels; a changed code
 * changes them. */
static void check_woven_dots(const tq_kernels *k, tq_side side, int bits, int dim, int n_q, tq_rng *rng) {
    enum { FIRST = 2 };
    tq_codec *codec = trellis_codec(bits, dim);
    if (!k->woven_dots || !tq_block_is_woven(codec, side)) {
        tq_codec_free(codec);
        return;
    }
    int n_tiles = tq_block_tiles(codec, side), places = side == TQ_KEYS ? dim : TQ_PAGE_TOKENS;
    int fewer = side == TQ_KEYS && dim % 32 ? n_tiles - 1 : n_tiles; /* a page that is not full */
    size_t tile_bytes = tq_block_tile_bytes(codec, side), bytes = tile_bytes * (size_t)n_tiles;
    uint8_t *block = aligned_alloc(64, (tq_block_bytes(codec, side) + 63) / 64 * 64);
    int8_t *levels = test_alloc((size_t)(TQ_PAGE_TOKENS * dim));
    assert_non_null(block);
    random_block(codec, side, TQ_PAGE_TOKENS, rng, block, levels);
    guarded codes = guarded_new(bytes, 0), dots = guarded_new((size_t)n_tiles * TQ_PAGE_QUERIES * 16 * 4, 0);
    memcpy(codes.data, block, bytes);
    enum { ROWS_OF_Q = FIRST + TQ_PAGE_QUERIES };
    guarded wide = guarded_new(ROWS_OF_Q * TQ_INT_STRIDE * 2, 0), planes = guarded_new(ROWS_OF_Q * TQ_INT_STRIDE * 2, 0);
    float step[ROWS_OF_Q], x[TQ_INT_STRIDE];
    int32_t sum[ROWS_OF_Q];
    tq_int_vectors q = {(int16_t *)(void *)wide.data, (int8_t *)planes.data, (int8_t *)planes.data + TQ_INT_STRIDE, step, sum, TQ_INT_STRIDE};
    for (int i = 0; i < FIRST + n_q; i++) {
        for (int j = 0; j < places; j++) x[j] = (float)test_normal(rng);
        k->to_int(x, places, &q, i);
    }
    tq_page_codes c = {.codes = codes.data, .bits = bits, .n_tiles = fewer, .n_vectors = places / 4, .tile_bytes = tile_bytes,
                       .weave = &codec->weave, .values = side == TQ_VALUES, .next = codes.data, .next_bytes = bytes};
    k->woven_dots(&c, &q, FIRST, n_q, (int32_t *)(void *)dots.data);
    const int32_t *got = (const int32_t *)(const void *)dots.data;
    for (int tile = 0; tile < fewer; tile++)
        for (int i = 0; i < n_q; i++)
            for (int lane = 0; lane < 16; lane++) {
                int64_t want = 0;
                for (int j = 0; j < places; j++) {
                    int row = side == TQ_KEYS ? 16 * tile + lane : j, at = side == TQ_KEYS ? j : 16 * tile + lane;
                    want += levels[row * dim + at] * q.wide[(FIRST + i) * TQ_INT_STRIDE + j];
                }
                if (got[(tile * TQ_PAGE_QUERIES + i) * 16 + lane] != want)
                    fail_msg("%s woven_dots: %s, %d bits, dim %d, tile %d, query %d, lane %d: got %d, want %lld", k->name,
                             side == TQ_KEYS ? "keys" : "values", bits, dim, tile, i, lane,
                             got[(tile * TQ_PAGE_QUERIES + i) * 16 + lane], (long long)want);
            }
    guarded before = guarded_new(dots.bytes, 0);
    memcpy(before.data, got, dots.bytes);
    codes.data[0] ^= (uint8_t)(1 << test_below(rng, 6)); /* bits that are a code's at every width */
    k->woven_dots(&c, &q, FIRST, n_q, (int32_t *)(void *)dots.data);
    assert_memory_not_equal(before.data, got, dots.bytes);
    guarded_free(&before, "sums before");
    guarded_free(&planes, "planes"), guarded_free(&wide, "queries");
    guarded_free(&dots, "woven_dots");
    guarded_free(&codes, "the codes");
    free(block), free(levels), tq_codec_free(codec);
}

/* Rows of every kind side by side: normal, flat, spikes, the ends of the range, one that jumps between them. */
static int16_t sample_of(const tq_trellis *t, int row, int i, tq_rng *rng) {
    double normal = test_normal(rng) * (double)t->sigma * TQ_TRELLIS_UNIT;
    switch (row % 8) {
    case 0: return 0;
    case 1: return INT16_MAX;
    case 2: return INT16_MIN;
    case 3: return i % 2 ? INT16_MAX : INT16_MIN;
    case 4: return (int16_t)tq_rng_u64(rng);
    case 5: return (int16_t)(i % 16 == row % 16 ? 127 * 16 : lrint(normal / 16));
    default: return (int16_t)lrint(normal);
    }
}

static void check_encoder(const tq_kernels *k, const tq_trellis *t, int dim, int n_rows, tq_rng *rng) {
    enum { ROWS = TQ_TRELLIS_ROWS };
    size_t n = (size_t)ROWS * (size_t)dim;
    int16_t *samples = test_alloc(n * sizeof *samples);
    guarded codes = guarded_new(n, 0), sums = guarded_new(2 * ROWS * sizeof(int32_t), 0);
    int32_t *product = (int32_t *)(void *)sums.data, *energy = product + ROWS;
    guarded scratch = guarded_new(TQ_TRELLIS_SCRATCH(dim), 0);
    for (size_t i = 0; i < n; i++) samples[i] = sample_of(t, (int)(i % ROWS), (int)(i / ROWS), rng);
    k->trellis_encode(t, samples, n_rows, dim, codes.data, product, energy, scratch.data);
    for (int row = 0; row < n_rows; row++) {
        int16_t one[MAX_DIM];
        uint8_t want[MAX_DIM];
        for (int i = 0; i < dim; i++) one[i] = samples[i * ROWS + row];
        tq_trellis_encode(t, one, dim, want);
        for (int i = 0; i < dim; i++)
            if (want[i] != codes.data[i * ROWS + row])
                fail_msg("%s: %d bits, dim %d, %d rows: row %d is encoded otherwise at %d", k->name, t->bits, dim, n_rows, row, i);
        int32_t want_product, want_energy;
        tq_trellis_sums(t, one, want, dim, &want_product, &want_energy);
        assert_int_equal(product[row], want_product);
        assert_int_equal(energy[row], want_energy);
    }
    guarded_free(&scratch, "scratch of trellis_encode");
    guarded_free(&codes, "trellis_encode");
    guarded_free(&sums, "sums of trellis_encode");
    free(samples);
}

static void check_trellis(const tq_kernels *k) {
    static const int row_counts[] = {TQ_TRELLIS_ROWS, 1, 19, 33}; /* of every register, some left over */
    tq_rng rng = {61};
    for (int bits = 2; bits <= 4; bits++) {
        const tq_trellis *t = tq_trellis_of(bits);
        for (int dim = 16; dim <= MAX_DIM; dim += dim < 128 ? 16 : 128) {
            check_keys(k, bits, dim, &rng);
            check_values(k, bits, dim, &rng);
            check_woven_dots(k, TQ_KEYS, bits, dim, 1 + (dim / 16 + bits) % TQ_PAGE_QUERIES, &rng);
            check_woven_dots(k, TQ_VALUES, bits, dim, 1 + (dim / 32 + bits) % TQ_PAGE_QUERIES, &rng);
            check_encoder(k, t, dim, row_counts[(dim / 16 + bits) % 4], &rng);
        }
    }
}

static void kernels_find_the_codes_and_levels_of_the_specification(void **state) {
    (void)state;
    each_table(check_trellis);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trellises_have_at_most_the_distortion_of_the_table),
        cmocka_unit_test(no_change_of_one_code_is_nearer),
        cmocka_unit_test(a_first_sample_far_out_is_not_given_up),
        cmocka_unit_test(kernels_find_the_codes_and_levels_of_the_specification),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
