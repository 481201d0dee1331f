/* test_trellis.c: trellis codes: their distortion, and every kernel table against the specification, bit for bit. */
#include "kernel_testing.h"

#include "codec/codec.h"

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

static void fill(guarded *g, tq_rng *rng) {
    for (size_t i = 0; i < g->bytes; i++) g->data[i] = (uint8_t)tq_rng_u64(rng);
}

static void check_keys(const tq_kernels *k, const tq_trellis *t, int dim, tq_rng *rng) {
    int vectors = dim / 4;
    guarded tile = guarded_new(tile_bytes(t->bits, vectors), 0), dst = guarded_new((size_t)vectors * 64, 0);
    fill(&tile, rng);
    k->unpack_trellis_keys(t, tile.data, vectors, dst.data);
    for (int row = 0; row < 16; row++) {
        uint8_t chain[MAX_DIM];
        int8_t levels[MAX_DIM];
        for (int s = 0; s < dim; s++)
            chain[s] = (uint8_t)code_of(t->bits, tile.data, vectors, s % vectors, 4 * row + s / vectors);
        tq_trellis_decode(t, chain, dim, levels);
        for (int s = 0; s < dim; s++)
            if (dst.data[64 * (s % vectors) + 4 * row + s / vectors] - 128 != levels[s])
                fail_msg("%s: %d bits, dim %d, row %d, sample %d", k->name, t->bits, dim, row, s);
    }
    guarded_free(&dst, "unpack_trellis_keys");
    guarded_free(&tile, "the tile");
}

/* One step of 128 rows' chains, from any states. */
static void check_values(const tq_kernels *k, const tq_trellis *t, tq_rng *rng) {
    enum { VECTORS = 32 };
    guarded tile = guarded_new(tile_bytes(t->bits, VECTORS), 0), dst = guarded_new(VECTORS * 64, 0);
    guarded states = guarded_new(VECTORS * 64, 0), silent = guarded_new(VECTORS * 64, 0);
    uint8_t before[VECTORS * 64];
    fill(&tile, rng);
    for (int i = 0; i < VECTORS * 64; i++) before[i] = (uint8_t)(tq_rng_u64(rng) % TQ_TRELLIS_STATES);
    memcpy(states.data, before, sizeof before);
    memcpy(silent.data, before, sizeof before);
    k->unpack_trellis_values(t, tile.data, VECTORS, states.data, dst.data);
    k->unpack_trellis_values(t, tile.data, VECTORS, silent.data, NULL);
    assert_memory_equal(states.data, silent.data, sizeof before);
    for (int v = 0; v < VECTORS; v++)
        for (int place = 0; place < 64; place++) {
            unsigned state = tq_trellis_next(t, before[64 * v + place], code_of(t->bits, tile.data, VECTORS, v, place));
            assert_int_equal(states.data[64 * v + place], state);
            assert_int_equal(dst.data[64 * v + place], t->levels[state ^ t->mix[before[64 * v + place]]]);
        }
    guarded_free(&silent, "states alone");
    guarded_free(&states, "states");
    guarded_free(&dst, "unpack_trellis_values");
    guarded_free(&tile, "the tile");
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
        check_values(k, t, &rng);
        for (int dim = 16; dim <= MAX_DIM; dim += dim < 128 ? 16 : 128) {
            check_keys(k, t, dim, &rng);
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
