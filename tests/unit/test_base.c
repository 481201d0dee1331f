/* test_base.c: half floats, UTF-8, random numbers, checksums, files.  Every test is named after the failure it guards.
 */
#include "testing.h"

#include <dirent.h>
#include <errno.h>
#include <float.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checksum.h"
#include "base/file_map.h"
#include "base/half.h"
#include "base/utf8.h"

/* ---- half floats: against arithmetic on doubles, which hold every f16 and f32 and every midpoint exactly
 * ------------- */

static double exact_f16(uint16_t h) {
    double sign = h >> 15 ? -1 : 1;
    int exponent = h >> 10 & 31, fraction = h & 1023;
    if (exponent == 0) return sign * ldexp(fraction, -24);
    return sign * ldexp(1024 + fraction, exponent - 25);
}

/* Nearest even by rint() on a multiple of the last place. */
static uint16_t rounded_f16(float value) {
    uint16_t sign = signbit(value) ? 0x8000 : 0;
    double magnitude = fabs((double)value);
    if (magnitude == 0) return sign;
    int exponent;
    frexp(magnitude, &exponent); /* magnitude in [2^(exponent-1), 2^exponent) */
    int place = exponent - 11 < -24 ? -24 : exponent - 11;
    double rounded = ldexp(rint(ldexp(magnitude, -place)), place);
    if (rounded >= 65536) return sign | 0x7c00;
    if (rounded < ldexp(1, -14)) return sign | (uint16_t)ldexp(rounded, 24);
    double fraction = 2 * frexp(rounded, &exponent) - 1;
    return sign | (uint16_t)((exponent - 1 + 15) << 10) | (uint16_t)(fraction * 1024);
}

static void every_f16_value_is_exact_in_f32(void **state) {
    (void)state;
    int nans = 0;
    for (unsigned h = 0; h < 65536; h++) {
        float got = tq_f16_f32((uint16_t)h);
        if ((h >> 10 & 31) == 31) {
            if (h & 1023) {
                assert_true(isnan(got));
                nans++;
            } else {
                assert_true(isinf(got) && !!signbit(got) == (int)(h >> 15));
            }
            continue;
        }
        assert_true(got == exact_f16((uint16_t)h));
        assert_int_equal(!!signbit(got), h >> 15); /* -0 too */
    }
    assert_int_equal(nans, 2 * 1023);
}

static void every_f16_value_survives_the_round_trip(void **state) {
    (void)state;
    for (unsigned h = 0; h < 65536; h++) {
        if ((h >> 10 & 31) == 31 && (h & 1023)) continue;
        assert_int_equal(tq_f32_f16(tq_f16_f32((uint16_t)h)), h);
    }
}

static void check_f16(float value) {
    if (tq_f32_f16(value) != rounded_f16(value))
        fail_msg("%a: got %04x, want %04x", (double)value, tq_f32_f16(value), rounded_f16(value));
}

static void f16_rounds_to_nearest_even(void **state) {
    (void)state;
    for (unsigned h = 0; h < 0x7c00; h++) { /* every midpoint between neighbours, and the floats beside it */
        float middle = (float)((exact_f16((uint16_t)h) + (h + 1 < 0x7c00 ? exact_f16((uint16_t)(h + 1)) : 65536)) / 2);
        for (int sign = 0; sign < 2; sign++, middle = -middle) {
            check_f16(middle);
            check_f16(nextafterf(middle, INFINITY));
            check_f16(nextafterf(middle, -INFINITY));
        }
    }
    tq_rng rng = {1};
    for (int i = 0; i < 2000000; i++) {
        float value = tq_bits_f32((uint32_t)tq_rng_u64(&rng));
        if (isfinite(value)) check_f16(value);
    }
    assert_int_equal(tq_f32_f16(1.0f + 0x1p-11f), 0x3c00);     /* a tie, down to even */
    assert_int_equal(tq_f32_f16(1.0f + 3 * 0x1p-11f), 0x3c02); /* a tie, up to even */
}

static void f16_overflow_is_infinity_and_nan_stays_nan(void **state) {
    (void)state;
    assert_int_equal(tq_f32_f16(65504.0f), 0x7bff);
    assert_int_equal(tq_f32_f16(nextafterf(65520.0f, 0)), 0x7bff);
    assert_int_equal(tq_f32_f16(65520.0f), 0x7c00);
    assert_int_equal(tq_f32_f16(-65520.0f), 0xfc00);
    assert_int_equal(tq_f32_f16(FLT_MAX), 0x7c00);
    assert_int_equal(tq_f32_f16(INFINITY), 0x7c00);
    assert_int_equal(tq_f32_f16(-INFINITY), 0xfc00);
    static const uint32_t nans[] = {0x7fc00000u, 0xffc00000u, 0x7f800001u, 0x7fffffffu, 0xff800001u};
    for (size_t i = 0; i < sizeof nans / sizeof *nans; i++) {
        uint16_t h = tq_f32_f16(tq_bits_f32(nans[i]));
        assert_true((h & 0x7c00) == 0x7c00 && (h & 0x3ff));
    }
}

static void f16_underflow_is_gradual(void **state) {
    (void)state;
    assert_int_equal(tq_f32_f16(0x1p-14f), 0x0400);
    assert_int_equal(tq_f32_f16(nextafterf(0x1p-14f, 0)), 0x0400); /* rounds up into the normals */
    assert_int_equal(tq_f32_f16(0x1p-24f), 1);
    assert_int_equal(tq_f32_f16(0x1p-25f), 0); /* a tie with zero */
    assert_int_equal(tq_f32_f16(nextafterf(0x1p-25f, 1)), 1);
    assert_int_equal(tq_f32_f16(-FLT_MIN), 0x8000);
    assert_int_equal(tq_f32_f16(tq_bits_f32(1)), 0);
}

static void check_bf16(float value) {
    uint32_t bits = tq_f32_bits(value);
    uint16_t down = (uint16_t)(bits >> 16), up = (uint16_t)(down + 1), got = tq_f32_bf16(value);
    /* Where `up` is infinity, its distance is that of 2^128. */
    double low = tq_bf16_f32(down), high = (up & 0x7fff) == 0x7f80 ? copysign(ldexp(1, 128), value) : tq_bf16_f32(up);
    double below = fabs((double)value - low), above = fabs(high - (double)value);
    uint16_t want = below < above || (below == above && down % 2 == 0) ? down : up;
    if (got != want) fail_msg("%a: got %04x, want %04x", (double)value, got, want);
}

static void bf16_rounds_to_nearest_even(void **state) {
    (void)state;
    tq_rng rng = {2};
    for (int i = 0; i < 1000000; i++) {
        float value = tq_bits_f32((uint32_t)tq_rng_u64(&rng));
        if (isfinite(value)) check_bf16(value);
    }
    for (uint32_t h = 0; h < 0x7f80; h++)
        for (int d = -1; d <= 1; d++) {
            check_bf16(tq_bits_f32((h << 16) + 0x8000u + (uint32_t)d));
            check_bf16(-tq_bits_f32((h << 16) + 0x8000u + (uint32_t)d));
        }
    assert_int_equal(tq_f32_bf16(FLT_MAX), 0x7f80);
    assert_int_equal(tq_f32_bf16(-INFINITY), 0xff80);
    assert_true(isnan(tq_bf16_f32(tq_f32_bf16(NAN))));
    assert_true(isnan(tq_bf16_f32(tq_f32_bf16(tq_bits_f32(0x7f800001u))))); /* its payload is all in the lost bits */
    for (unsigned h = 0; h < 65536; h++) {
        float value = tq_bf16_f32((uint16_t)h);
        assert_int_equal(tq_f32_bits(value), h << 16);
        if (!isnan(value)) assert_int_equal(tq_f32_bf16(value), h);
    }
}

/* ---- UTF-8 ------------------------------------------------------------------------------------------------------- */

/* By decoding first and asking afterwards: bytes of the character at p, or 0. */
static size_t decoded_length(const uint8_t *p, size_t n) {
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    size_t length = p[0] < 0x80 ? 1 : p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : p[0] >> 3 == 30 ? 4 : 0;
    if (length == 0 || length > n) return 0;
    uint32_t code = length == 1 ? p[0] : p[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if (p[i] >> 6 != 2) return 0;
        code = code << 6 | (p[i] & 63u);
    }
    return code < least[length] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff) ? 0 : length;
}

static size_t encode(uint32_t code, char *out) {
    if (code < 0x80) return out[0] = (char)code, 1;
    size_t n = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; code >>= 6) out[i] = (char)(0x80 | (code & 63));
    out[0] = (char)((0xf00u >> n & 0xff) | code);
    return n;
}

static void every_character_is_valid_and_no_surrogate_is(void **state) {
    (void)state;
    for (uint32_t code = 0; code < 0x110000; code++) {
        char text[8] = {0};
        size_t n = encode(code, text);
        bool surrogate = code >= 0xd800 && code <= 0xdfff;
        if (tq_utf8_valid_prefix(text, n) != (surrogate ? 0 : n)) fail_msg("U+%04X", code);
        for (size_t cut = 1; cut < n; cut++) assert_int_equal(tq_utf8_valid_prefix(text, cut), 0);
    }
}

static void overlong_and_impossible_forms_are_refused(void **state) {
    (void)state;
    static const uint8_t edges[] = {0x00, 0x28, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc2, 0xed, 0xff};
    enum { N = sizeof edges };
    int valid = 0, invalid = 0;
    for (int a = 0; a < 256; a++)
        for (int b = 0; b < N; b++)
            for (int c = 0; c < N; c++)
                for (int d = 0; d < N; d++) {
                    uint8_t text[4] = {(uint8_t)a, edges[b], edges[c], edges[d]};
                    size_t want = 0, length;
                    while (want < 4 && (length = decoded_length(text + want, 4 - want)) > 0) want += length;
                    if (tq_utf8_valid_prefix((const char *)text, 4) != want)
                        fail_msg("%02x %02x %02x %02x: want %zu", a, text[1], text[2], text[3], want);
                    if (want == 4) valid++;
                    else invalid++;
                }
    assert_true(valid > 1000 && invalid > 1000);
    assert_int_equal(tq_utf8_valid_prefix("", 0), 0);
    assert_int_equal(tq_utf8_valid_prefix("ab\xc0\xaf", 4), 2);
}

static const char MIXED[] = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\xa6\x8a\xe0\xa4\xa8z\xf4\x8f\xbf\xbf\xed\x9f\xbf";

static void a_character_is_never_cut(void **state) {
    (void)state;
    size_t n = sizeof MIXED - 1, whole = 0;
    assert_int_equal(tq_utf8_valid_prefix(MIXED, n), n);
    for (size_t cut = 0; cut <= n; cut++) {
        size_t length = whole < n ? decoded_length((const uint8_t *)MIXED + whole, n - whole) : 0;
        if (length && whole + length == cut) whole = cut;
        if (tq_utf8_complete_prefix(MIXED, cut) != whole)
            fail_msg("cut at %zu: got %zu, want %zu", cut, tq_utf8_complete_prefix(MIXED, cut), whole);
    }
    assert_int_equal(whole, n);
}

static void bytes_that_can_become_nothing_are_not_held_back(void **state) {
    (void)state;
    static const char *const hopeless[] = {"a\xff",
                                           "a\xc0",
                                           "a\xc1",
                                           "a\xf5",
                                           "a\xe0\x80",
                                           "a\xed\xa0",
                                           "a\xf0\x80",
                                           "a\xf4\x90\x80",
                                           "a\xe2\x28",
                                           "a\x80",
                                           "\x80\x80\x80\x80\x80",
                                           "a\xf8\x88",
                                           "a\xf0\x9f\x28"};
    for (size_t i = 0; i < sizeof hopeless / sizeof *hopeless; i++)
        assert_int_equal(tq_utf8_complete_prefix(hopeless[i], strlen(hopeless[i])), strlen(hopeless[i]));
    static const char *const hopeful[] = {"a\xc2",         "a\xe0",     "a\xe0\xa0", "a\xed\x9f",
                                          "a\xf0\x90\x80", "a\xf4\x8f", "a\xff\xe2"};
    static const size_t want[] = {1, 1, 1, 1, 1, 1, 2};
    for (size_t i = 0; i < sizeof hopeful / sizeof *hopeful; i++)
        assert_int_equal(tq_utf8_complete_prefix(hopeful[i], strlen(hopeful[i])), want[i]);
}

/* ---- random numbers ------------------------------------------------------------------------------------------------
 */

/* numpy 2.4.6: np.random.RandomState(seed).randn(200000)[i].  log and sqrt may differ in the last place: 1e-15. */
static void normals_are_those_of_numpy(void **state) {
    (void)state;
    static const struct {
        uint32_t seed;
        int index;
        double value;
    } known[] = {
        {42, 0, 0.49671415301123270},
        {42, 1, -0.13826430117118466},
        {42, 2, 0.64768853810069470},
        {42, 3, 1.5230298564080254},
        {42, 4, -0.23415337472333597},
        {42, 623, 1.3454200461549777},
        {42, 624, 1.593186626639397},
        {42, 1247, -0.7699732310586418},
        {42, 99999, 0.12006294082414522},
        {42, 199999, -1.0649479678840703},
        {0, 0, 1.764052345967664},
        {0, 1, 0.4001572083672233},
        {0, 2, 0.9787379841057392},
        {1042, 0, -0.8526478029093212},
        {1042, 2, -0.38431140041545075},
        {4294967295u, 0, 0.6484086742306527},
        {4294967295u, 2, -1.0805437227474493},
    };
    tq_mt19937 *mt = test_alloc(sizeof *mt);
    for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
        tq_mt19937_seed(mt, known[k].seed);
        double value = 0;
        for (int i = 0; i <= known[k].index; i++) value = tq_mt19937_normal(mt);
        if (fabs(value - known[k].value) > 1e-14)
            fail_msg("seed %u, index %d: got %.17g, want %.17g", known[k].seed, known[k].index, value, known[k].value);
    }
    free(mt);
}

static void uniform_numbers_fill_the_unit_interval(void **state) {
    (void)state;
    tq_rng rng = {7};
    double sum = 0, squares = 0, least = 1, most = 0;
    enum { N = 1000000 };
    for (int i = 0; i < N; i++) {
        double u = tq_rng_uniform(&rng);
        assert_true(u >= 0 && u < 1);
        sum += u, squares += u * u;
        least = u < least ? u : least, most = u > most ? u : most;
    }
    assert_true(fabs(sum / N - 0.5) < 4 * 0.2887 / 1000); /* four standard errors */
    assert_true(fabs(squares / N - 1.0 / 3) < 4 * 0.2981 / 1000);
    assert_true(least < 1e-4 && most > 1 - 1e-4);
    tq_rng zero = {0}; /* splitmix64 of seed 0, from its author's program */
    assert_true(tq_rng_u64(&zero) == 0xe220a8397b1dcdafu);
    assert_true(tq_rng_u64(&zero) == 0x6e789e6aa1b965f4u);
}

/* ---- checksum ---------------------------------------------------------------------------------------------------- */

static void every_flipped_bit_and_every_length_changes_the_checksum(void **state) {
    (void)state;
    uint8_t data[67] = {0};
    for (size_t n = 0; n < sizeof data; n++) {
        uint64_t whole = tq_checksum(TQ_CHECKSUM_START, data, n);
        if (n > 0) assert_true(whole != tq_checksum(TQ_CHECKSUM_START, data, n - 1)); /* zeros count */
        for (size_t bit = 0; bit < 8 * n; bit++) {
            data[bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_true(whole != tq_checksum(TQ_CHECKSUM_START, data, n));
            assert_true(whole >> 32 != tq_checksum(TQ_CHECKSUM_START, data, n) >> 32); /* in its upper half already */
            data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
    }
}

/* ---- status ------------------------------------------------------------------------------------------------------ */

static void a_long_error_text_is_cut_and_terminated(void **state) {
    (void)state;
    char text[2000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    tq_error err = {0};
    assert_int_equal(tq_fail(&err, TQ_FORMAT, "%s", text), TQ_FORMAT);
    assert_int_equal(err.code, TQ_FORMAT);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    assert_int_equal(tq_fail(NULL, TQ_IO, "%s", text), TQ_IO);
    assert_int_equal(tq_fail_memory(&err, 123456, "a thing"), TQ_NO_MEMORY);
    assert_non_null(strstr(err.text, "a thing"));
    for (int s = TQ_OK; s <= TQ_BUSY; s++)
        for (int t = TQ_OK; t < s; t++)
            assert_string_not_equal(tq_status_name((tq_status)s), tq_status_name((tq_status)t));
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static char directory[64];

static int make_directory(void **state) {
    (void)state;
    snprintf(directory, sizeof directory, "/tmp/test_base.XXXXXX");
    return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state) {
    (void)state;
    return rmdir(directory); /* fails where a test left something */
}

static int files_in_directory(void) {
    DIR *d = opendir(directory);
    assert_non_null(d);
    int n = 0;
    for (struct dirent *entry; (entry = readdir(d));) n += entry->d_name[0] != '.';
    closedir(d);
    return n;
}

static void expect_content(const char *path, const char *want) {
    size_t n;
    uint8_t *data = test_read(path, &n);
    assert_non_null(data);
    assert_int_equal(n, strlen(want));
    assert_memory_equal(data, want, n);
    free(data);
}

static void an_abandoned_file_leaves_nothing(void **state) {
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/file", directory);
    tq_atomic_file file;
    OK(tq_atomic_file_open(path, &file, &e));
    assert_int_equal(files_in_directory(), 1); /* the temporary */
    assert_false(test_exists(path));
    fputs("half", file.stream);
    tq_atomic_file_abandon(&file);
    assert_int_equal(files_in_directory(), 0);
    tq_atomic_file_abandon(&file); /* twice is fine */
}

static void a_committed_file_replaces_the_old_one_whole(void **state) {
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/file", directory);
    test_write(path, "old and longer", 14);
    tq_atomic_file file;
    OK(tq_atomic_file_open(path, &file, &e));
    fputs("new", file.stream);
    fflush(file.stream);
    expect_content(path, "old and longer"); /* until the commit */
    OK(tq_atomic_file_commit(&file, &e));
    expect_content(path, "new");
    assert_int_equal(files_in_directory(), 1);
    tq_atomic_file_abandon(&file); /* fine after a commit */
    expect_content(path, "new");
    unlink(path);
}

static void a_failed_write_leaves_the_old_file(void **state) {
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/file", directory);
    test_write(path, "old", 3);
    tq_atomic_file file;
    OK(tq_atomic_file_open(path, &file, &e));
    /* A stream onto /dev/full: everything fails when it is flushed. */
    FILE *full = freopen("/dev/full", "wb", file.stream);
    if (!full) {
        print_message("skipped: no /dev/full\n");
        unlink(file.temporary);
        unlink(path);
        skip();
    }
    fputs("new", file.stream);
    FAILS(tq_atomic_file_commit(&file, &e), TQ_IO, strerror(ENOSPC));
    expect_content(path, "old");
    assert_int_equal(files_in_directory(), 1);
    unlink(path);

    snprintf(path, sizeof path, "%s/missing/file", directory);
    FAILS(tq_atomic_file_open(path, &file, &e), TQ_IO, "missing/file");

    char occupied[128]; /* a directory stands where the file should go: the rename fails */
    snprintf(occupied, sizeof occupied, "%s/taken", directory);
    assert_int_equal(mkdir(occupied, 0700), 0);
    OK(tq_atomic_file_open(occupied, &file, &e));
    fputs("new", file.stream);
    FAILS(tq_atomic_file_commit(&file, &e), TQ_IO, "taken");
    assert_int_equal(files_in_directory(), 1);
    assert_int_equal(rmdir(occupied), 0);
}

static void what_cannot_be_mapped_says_why(void **state) {
    (void)state;
    tq_file_map map;
    FAILS(tq_file_map_open("/tmp/test_base.no such file", &map, &e), TQ_NOT_FOUND, "no such file");
    FAILS(tq_file_map_open(directory, &map, &e), TQ_INVALID, "regular file");
    FAILS(tq_file_map_open("/dev/null", &map, &e), TQ_INVALID, "regular file");
    char path[128];
    snprintf(path, sizeof path, "%s/file", directory);
    test_write(path, "", 0);
    OK(tq_file_map_open(path, &map, &e));
    assert_null(map.data);
    assert_int_equal(map.bytes, 0);
    tq_file_map_close(&map);
    test_write(path, "abc", 3);
    OK(tq_file_map_open(path, &map, &e));
    assert_int_equal(map.bytes, 3);
    assert_memory_equal(map.data, "abc", 3);
    tq_file_map_close(&map);
    assert_null(map.data);
    tq_file_map_close(&map);
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_f16_value_is_exact_in_f32),
        cmocka_unit_test(every_f16_value_survives_the_round_trip),
        cmocka_unit_test(f16_rounds_to_nearest_even),
        cmocka_unit_test(f16_overflow_is_infinity_and_nan_stays_nan),
        cmocka_unit_test(f16_underflow_is_gradual),
        cmocka_unit_test(bf16_rounds_to_nearest_even),
        cmocka_unit_test(every_character_is_valid_and_no_surrogate_is),
        cmocka_unit_test(overlong_and_impossible_forms_are_refused),
        cmocka_unit_test(a_character_is_never_cut),
        cmocka_unit_test(bytes_that_can_become_nothing_are_not_held_back),
        cmocka_unit_test(normals_are_those_of_numpy),
        cmocka_unit_test(uniform_numbers_fill_the_unit_interval),
        cmocka_unit_test(every_flipped_bit_and_every_length_changes_the_checksum),
        cmocka_unit_test(a_long_error_text_is_cut_and_terminated),
        cmocka_unit_test(an_abandoned_file_leaves_nothing),
        cmocka_unit_test(a_committed_file_replaces_the_old_one_whole),
        cmocka_unit_test(a_failed_write_leaves_the_old_file),
        cmocka_unit_test(what_cannot_be_mapped_says_why),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
