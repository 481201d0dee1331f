/* call_kernel.c KERNELS WHAT BITS COUNT CALLS: one kernel, called CALLS times and nothing else between: what a run with one call
 * more takes is what a call takes (scripts/count_instructions).
 *
 *     dots            page_dots of COUNT queries against 128 keys of 64          8,192 codes
 *     keys, values    unpack_trellis_keys of a tile of 128 dims; ..._values of a page of 128      2,048; 16,384 codes
 *     gemv            32 rows of 1,024 weights in groups of 64 times COUNT tokens        32,768 weights a token */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/kernels.h"
#include "codec/codec.h"

enum { ROWS = 32, COLS = 1024, GROUP = 64, VECTORS = 16, TILES = 8 };

static void *filled(size_t bytes) {
    size_t rounded = (bytes + 63) / 64 * 64;
    void *p = aligned_alloc(64, rounded);
    if (!p) exit(1);
    return memset(p, 1, rounded);
}

static void call_dots(const tq_kernels *k, int bits, int n, int calls) {
    size_t tile = (size_t)VECTORS * 8 * (size_t)bits;
    tq_page_codes side = {.codes = filled(tile * TILES), .levels = filled(256), .bits = bits, .n_tiles = TILES, .n_vectors = VECTORS, .tile_bytes = tile};
    size_t places = (size_t)TQ_PAGE_QUERIES * TQ_INT_STRIDE;
    tq_int_vectors q = {.wide = filled(2 * places), .high = filled(2 * places), .sum = filled(64), .stride = TQ_INT_STRIDE};
    q.low = q.high + TQ_INT_STRIDE;
    int32_t *dots = filled(TILES * TQ_PAGE_QUERIES * 16 * sizeof *dots);
    while (calls-- > 0) k->page_dots(&side, &q, 0, n, dots);
}

static void call_unpack(const tq_kernels *k, bool values, int bits, int calls) {
    tq_codec *codec;
    tq_error err;
    if (tq_codec_new(bits == 2 ? "tcq2" : bits == 3 ? "tcq3" : "tcq4", 128, 1, &codec, &err)) exit(1);
    uint8_t *codes = filled(128 * 128), *levels = filled(128 * 128);
    while (calls-- > 0) {
        if (values) k->unpack_trellis_values(&codec->weave, codes, 8, levels);
        else k->unpack_trellis_keys(&codec->weave, codes, 32, levels);
    }
}

static void call_gemv(const tq_kernels *k, int bits, int n, int calls) {
    size_t weights = 2 * ROWS * COLS; /* the next rows are fetched */
    tq_matrix w = {.kind = TQ_MATRIX_AFFINE, .rows = 2 * ROWS, .cols = COLS, .bits = bits, .group_size = GROUP, .scale_dtype = TQ_BF16};
    w.data = filled(weights * (size_t)bits / 8), w.scales = filled(weights / GROUP * 2), w.biases = filled(weights / GROUP * 2);
    tq_matmul_input in = {filled((size_t)n * COLS * sizeof(float)),
                          n,
                          COLS,
                          filled(tq_matmul_input_count(COLS) * sizeof(float)),
                          filled(tq_matmul_step_count(COLS) * sizeof(float)),
                          filled(tq_matmul_step_count(COLS) * sizeof(float))};
    for (int t = 0; t < n; t++) k->matmul_prepare(&w, &in, t);
    float *y = filled((size_t)n * ROWS * sizeof *y), *scratch = filled(tq_matmul_scratch(COLS) * sizeof *scratch);
    while (calls-- > 0) k->gemv(&w, 0, ROWS, &in, y, ROWS, scratch);
}

int main(int argc, char **argv) {
    const tq_kernels *k;
    tq_error err;
    int bits = argc == 6 ? atoi(argv[3]) : 0, n = argc == 6 ? atoi(argv[4]) : 0, calls = argc == 6 ? atoi(argv[5]) : 0;
    if (calls < 1 || bits < 2 || bits > 8 || n < 1 || n > TQ_PAGE_QUERIES * 2) {
        fprintf(stderr, "Usage: call_kernel KERNELS dots|keys|values|gemv BITS COUNT CALLS\n");
        return 2;
    }
    if (tq_kernels_select(argv[1], &k, &err)) {
        fprintf(stderr, "call_kernel: %s\n", err.text);
        return 1;
    }
    if (strcmp(argv[2], "dots") == 0 && n <= TQ_PAGE_QUERIES) call_dots(k, bits, n, calls);
    else if (strcmp(argv[2], "gemv") == 0) call_gemv(k, bits, n, calls);
    else if (bits <= 4) call_unpack(k, strcmp(argv[2], "values") == 0, bits, calls);
    return 0;
}
