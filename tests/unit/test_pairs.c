/* test_pairs.c: codebooks of the plane: their distortion, the nearest point by another way, and every kernel table against
 * the layout that page.h draws. */
#include "kernel_testing.h"

#include "codec/codec.h"

static const char *const names[] = {"vq2.5", "vq3", "vq3.5"};

/* codec.md 3.3 and 5.4: .0572, .0299, .0154 at 2.5, 3, 3.5 bits for dimension 128, within 2 %; a fitted scale may do
 * better, as trellises' does. */
static void pairs_have_at_most_the_distortion_of_the_table(void **state) {
    (void)state;
    enum { DIM = 128, VECTORS = 4000 };
    static const double want[] = {.0572, .0299, .0154};
    for (int c = 0; c < 3; c++) {
        tq_codec *codec;
        OK(tq_codec_new(names[c], DIM, 42, &codec, &e));
        assert_true(tq_codec_payload_bits(codec) == 2.5 + .5 * c);
        assert_int_equal(tq_codec_row_bytes(codec), 2 + 40 + 8 * c);
        tq_rng rng = {DIM};
        double sum = 0;
        for (int v = 0; v < VECTORS; v++) {
            float x[DIM], y[DIM];
            uint8_t row[64];
            test_unit_vector(&rng, x, DIM);
            tq_codec_encode(codec, x, 1, row);
            tq_codec_decode(codec, row, 1, y);
            sum += test_relative_error(x, y, DIM);
        }
        print_message("%s: %.5f\n", names[c], sum / VECTORS);
        assert_true(sum / VECTORS <= want[c] * 1.02 && sum / VECTORS >= want[c] * .96);
        tq_codec_free(codec);
    }
}

/* By distance in floating point, against the encoder's integers. */
static void codes_are_the_nearest_points(void **state) {
    (void)state;
    enum { N = 150 };
    tq_rng rng = {5};
    for (int bits = 5; bits <= 7; bits++) {
        const tq_pair_codebook *book = tq_pair_codebook_of(bits);
        for (int c = 0; c < TQ_PAIR_POINTS; c++) { /* the tables repeat */
            assert_int_equal(book->first[c], book->first[c % (1 << bits)]);
            assert_int_equal(book->second[c], book->second[c % (1 << bits)]);
        }
        int16_t samples[2 * N];
        uint8_t codes[N];
        int used[TQ_PAIR_POINTS] = {0};
        for (int round = 0; round < 40; round++) {
            for (int i = 0; i < 2 * N; i++) samples[i] = (int16_t)lrint(test_normal(&rng) * (double)book->sigma * TQ_PAIR_UNIT);
            if (round == 0) samples[0] = 8192, samples[1] = -8192;
            tq_pairs_encode(book, samples, N, codes);
            for (int i = 0; i < N; i++) {
                double least = 1e18, got = -1;
                for (int c = 0; c < 1 << bits; c++) {
                    double distance = hypot(samples[2 * i] / 2.0 - (book->first[c] - 128.0), samples[2 * i + 1] / 2.0 - (book->second[c] - 128.0));
                    if (distance < least) least = distance;
                    if (c == codes[i]) got = distance;
                }
                assert_true(got >= 0 && got <= least + 1e-9);
                used[codes[i]]++;
            }
        }
        for (int c = 0; c < 1 << bits; c++) assert_true(used[c] > 0);
    }
    assert_null(tq_pair_codebook_of(4));
}

/* page.h, once more: the code at a place of a vector of codes. */
static unsigned pair_of(int bits, const uint8_t *tile, int n, int w, int place) {
    unsigned code = tile[64 * (w / 2) + place] >> (w % 2 ? 4 : 0) & 15u;
    const uint8_t *at = tile + 64 * (n / 2);
    if (bits > 5) {
        code += (at[64 * (w / 4) + place] >> 2 * (w % 4) & 3u) * 16;
        at += 64 * ((n + 3) / 4);
    }
    if (bits != 6) code += (at[64 * (w / 8) + place] >> w % 8 & 1u) << (bits - 1);
    return code;
}

static void check_unpacking(const tq_kernels *k) {
    tq_rng rng = {62};
    for (int bits = 5; bits <= 7; bits++)
        for (int vectors = 4; vectors <= 128; vectors += vectors < 40 ? 4 : 44)
            for (int values = 0; values < 2; values++) {
                const tq_pair_codebook *book = tq_pair_codebook_of(bits);
                int n = vectors / 2, units = n / 2 + (bits > 5 ? (n + 3) / 4 : 0) + (bits != 6 ? (n + 7) / 8 : 0);
                guarded tile = guarded_new((size_t)units * 64, 0), dst = guarded_new((size_t)vectors * 64, 0);
                for (size_t i = 0; i < tile.bytes; i++) tile.data[i] = (uint8_t)tq_rng_u64(&rng);
                k->unpack_pairs(book, tile.data, vectors, values, dst.data);
                for (int w = 0; w < n; w++)
                    for (int place = 0; place < 64; place++) {
                        unsigned code = pair_of(bits, tile.data, n, w, place);
                        int first = 128 * w + (values ? place / 32 * 64 + place % 32 : place);
                        int second = first + (values ? 32 : 64);
                        if (dst.data[first] != book->first[code] || dst.data[second] != book->second[code])
                            fail_msg("%s: %d bits, %d vectors, %s: vector %d, place %d", k->name, bits, vectors,
                                     values ? "values" : "keys", w, place);
                    }
                guarded_free(&dst, "unpack_pairs");
                guarded_free(&tile, "the tile");
            }
}

static void kernels_unpack_what_the_layout_says(void **state) {
    (void)state;
    each_table(check_unpacking);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pairs_have_at_most_the_distortion_of_the_table),
        cmocka_unit_test(codes_are_the_nearest_points),
        cmocka_unit_test(kernels_unpack_what_the_layout_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
