/* The emulated tiles that the AMX kernels are tested on: products against plain loops over other indices, what the manual says of
 * rounding, and that every misuse ends the program. */
#include "testing.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/emulated_tiles.h"

typedef struct shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} shapes;

/* Sums (tile 0) of 5 x 7, of 12 dwords: left (1) 5 x 12, right (2) 12 x 7; tile 3 is whole. */
enum { M = 5, N = 7, K = 12 };
static const shapes small = {.palette = 1, .row_bytes = {4 * N, 4 * K, 4 * N, 64}, .rows = {M, M, K, 16}};

static void integer_products(void **state) {
    (void)state;
    tq_rng rng = {7};
    for (int kind = 0; kind < 4; kind++) {
        uint8_t left[M][80], right[K][4 * N];
        int32_t before[M][N], sums[M][N];
        for (size_t i = 0; i < sizeof left; i++) left[i / 80][i % 80] = (uint8_t)tq_rng_u64(&rng);
        for (size_t i = 0; i < sizeof right; i++) right[i / (4 * N)][i % (4 * N)] = (uint8_t)tq_rng_u64(&rng);
        for (int i = 0; i < M * N; i++) before[i / N][i % N] = i % 3 ? INT32_MAX - i : (int32_t)tq_rng_u64(&rng);
        _tile_loadconfig(&small);
        _tile_loadd(0, before, 4 * N);
        _tile_loadd(1, left, 80);
        _tile_stream_loadd(2, right, 4 * N);
        if (kind == 0) _tile_dpbssd(0, 1, 2);
        else if (kind == 1) _tile_dpbsud(0, 1, 2);
        else if (kind == 2) _tile_dpbusd(0, 1, 2);
        else _tile_dpbuud(0, 1, 2);
        _tile_stored(0, sums, 4 * N);
        for (int m = 0; m < M; m++)
            for (int n = 0; n < N; n++) {
                int64_t sum = before[m][n];
                for (int i = 0; i < 4 * K; i++) {
                    int a = left[m][i], b = right[i / 4][4 * n + i % 4];
                    if (kind < 2 && a > 127) a -= 256;
                    if (kind % 2 == 0 && b > 127) b -= 256;
                    sum += a * b;
                }
                assert_int_equal((uint32_t)sums[m][n], (uint32_t)sum);
            }
    }
    _tile_release();
}

static uint16_t bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    assert_int_equal(bits & 0xffff, 0);
    return (uint16_t)(bits >> 16);
}

/* One sum of up to four products of a and b, added to `before`. */
static float bf16_sum(float before, const float *a, const float *b) {
    static const shapes one = {.palette = 1, .row_bytes = {4, 8, 4}, .rows = {1, 1, 2}};
    uint16_t left[4], right[4];
    for (int i = 0; i < 4; i++) left[i] = bf16(a[i]), right[i] = bf16(b[i]);
    _tile_loadconfig(&one);
    _tile_loadd(0, &before, 4);
    _tile_loadd(1, left, 8);
    _tile_loadd(2, right, 4);
    _tile_dpbf16ps(0, 1, 2);
    _tile_stored(0, &before, 4);
    _tile_release();
    return before;
}

static void bf16_products(void **state) {
    (void)state;
    const float ones[4] = {1, 1, 1, 1};
    assert_true(bf16_sum(0.5f, (float[]){1, 2, 3, 4}, (float[]){5, 6, 7, 8}) == 70.5f);
    /* first and third product are one sum, second and fourth another: 1 would be lost beside 2^24 */
    assert_true(bf16_sum(0, (float[]){0x1p24f, 1, -0x1p24f, 1}, ones) == 2.0f);
    assert_true(bf16_sum(0, (float[]){0x1p24f, -0x1p24f, 1, 1}, ones) == 1.0f); /* 2^24 + 1 is 2^24, 2^24 - 1 is itself */
    /* they are added before the tile is */
    assert_true(bf16_sum(0x1p24f, (float[]){1, 1, 0, 0}, ones) == 0x1p24f + 2);
    /* one rounding, to even */
    assert_true(bf16_sum(0, (float[]){0x1p24f, 0, 1, 0}, ones) == 0x1p24f);
    assert_true(bf16_sum(0, (float[]){0x1p24f, 0, 3, 0}, ones) == 0x1p24f + 4);
    /* denormal numbers are 0: factors, sums, what was in the tile */
    assert_true(bf16_sum(0, (float[]){0x1p-130f, 0, 0, 0}, (float[]){0x1p100f, 0, 0, 0}) == 0);
    assert_true(bf16_sum(0, (float[]){0x1p-70f, 0, 0, 0}, (float[]){0x1p-60f, 0, 0, 0}) == 0);
    assert_true(bf16_sum(0x1p-130f, (float[]){0x1p-126f, 0, 0, 0}, ones) == 0x1p-126f);
}

static void not_configured(void) { _tile_zero(4); }
static void released(void) {
    _tile_release();
    _tile_zero(3);
}
static void shapes_apart(void) { _tile_dpbssd(0, 2, 1); }
static void rows_apart(void) { _tile_dpbssd(0, 3, 2); }
static void same_tile(void) { _tile_dpbssd(0, 1, 1); }
static void too_many_rows(void) {
    shapes s = small;
    s.rows[3] = 17;
    _tile_loadconfig(&s);
}
static void too_wide(void) {
    shapes s = small;
    s.row_bytes[0] = 68;
    _tile_loadconfig(&s);
}
static void no_rows(void) {
    shapes s = small;
    s.rows[1] = 0;
    _tile_loadconfig(&s);
}
static void ninth_tile(void) {
    shapes s = small;
    s.rows[8] = 16, s.row_bytes[8] = 64;
    _tile_loadconfig(&s);
}

static void misuse_ends_the_program(void **state) {
    (void)state;
    void (*const misuse[])(void) = {not_configured, released, shapes_apart, rows_apart, same_tile, too_many_rows, too_wide, no_rows, ninth_tile};
    for (size_t i = 0; i < sizeof misuse / sizeof misuse[0]; i++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            signal(SIGABRT, SIG_DFL);
            if (!freopen("/dev/null", "w", stderr)) _exit(1);
            _tile_loadconfig(&small);
            misuse[i]();
            _exit(0);
        }
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT) fail_msg("misuse %zu was not refused", i);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integer_products),
        cmocka_unit_test(bf16_products),
        cmocka_unit_test(misuse_ends_the_program),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
