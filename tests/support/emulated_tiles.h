/* emulated_tiles.h: the tile instructions of AMX in plain C, so that kernels_amx.c is tested where the processor has none.
 *
 * The compiler is told to read this file before kernels_amx.c (tests/CMakeLists.txt, TQ_EMULATE_AMX).  Tiles are a thread's own.
 * What the processor would refuse ends the program, and says why: a configuration that is none, a tile that was not configured,
 * shapes that do not fit each other.  Loads and stores are ordinary ones, which sanitizers see.
 *
 * Integer products are exact and wrap.  TDPBF16PS is what Intel's manual says: a dword's two products are summed apart over all
 * dwords of a row, by fused multiply-adds from 0 on, then added to each other and to the tile; rounding to nearest even,
 * denormal numbers are 0 wherever they come or go. */
#ifndef EMULATED_TILES_H
#define EMULATED_TILES_H

#if defined(__x86_64__)
#include <immintrin.h> /* whose names are defined anew below */
#endif
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TQ_EMULATED_TILES 1

enum { EMULATED_TILES = 8, EMULATED_ROWS = 16, EMULATED_ROW_BYTES = 64 };

typedef struct emulated_tile {
    int rows, row_bytes; /* 0: not configured */
    _Alignas(64) uint8_t data[EMULATED_ROWS][EMULATED_ROW_BYTES];
} emulated_tile;

static _Thread_local emulated_tile emulated_tiles[EMULATED_TILES];

static inline void emulated_want(int holds, const char *instruction, const char *what) {
    if (holds) return;
    fprintf(stderr, "emulated %s: %s\n", instruction, what);
    abort();
}

static inline emulated_tile *emulated_at(int tile, const char *instruction) {
    emulated_want(tile >= 0 && tile < EMULATED_TILES, instruction, "want a tile of 0 to 7");
    emulated_want(emulated_tiles[tile].rows > 0, instruction, "the tile is not configured");
    return &emulated_tiles[tile];
}

/* LDTILECFG: 64 bytes.  Palette 0 sets everything up as TILERELEASE does. */
static inline void emulated_loadconfig(const void *from) {
    const char *name = "LDTILECFG";
    uint8_t config[64];
    memcpy(config, from, sizeof config);
    emulated_want(config[0] <= 1, name, "want palette 0 or 1");
    emulated_want(config[0] || !config[1], name, "palette 0 has no start row");
    memset(emulated_tiles, 0, sizeof emulated_tiles);
    for (int i = 2; i < 16; i++) emulated_want(!config[i], name, "bytes 2 to 15 are reserved");
    for (int i = 0; i < 16; i++) {
        int row_bytes = config[16 + 2 * i] | config[17 + 2 * i] << 8, rows = config[48 + i];
        emulated_want((i < EMULATED_TILES && config[0]) || (!rows && !row_bytes), name, "a tile that the palette has not");
        emulated_want(rows <= EMULATED_ROWS && row_bytes <= EMULATED_ROW_BYTES, name, "want at most 16 rows of 64 bytes");
        emulated_want(row_bytes % 4 == 0, name, "want rows of whole dwords");
        emulated_want(!rows == !row_bytes, name, "a tile of rows without bytes, or of bytes without rows");
        if (i < EMULATED_TILES) emulated_tiles[i].rows = rows, emulated_tiles[i].row_bytes = row_bytes;
    }
}

static inline void emulated_release(void) { memset(emulated_tiles, 0, sizeof emulated_tiles); }

static inline void emulated_zero(int tile) {
    emulated_tile *t = emulated_at(tile, "TILEZERO");
    memset(t->data, 0, sizeof t->data);
}

static inline void emulated_loadd(int tile, const void *from, ptrdiff_t stride) {
    emulated_tile *t = emulated_at(tile, "TILELOADD");
    memset(t->data, 0, sizeof t->data);
    for (int r = 0; r < t->rows; r++) memcpy(t->data[r], (const uint8_t *)from + r * stride, (size_t)t->row_bytes);
}

static inline void emulated_stored(int tile, void *to, ptrdiff_t stride) {
    emulated_tile *t = emulated_at(tile, "TILESTORED");
    for (int r = 0; r < t->rows; r++) memcpy((uint8_t *)to + r * stride, t->data[r], (size_t)t->row_bytes);
}

/* c (rows of a, columns of b) += a b: the shapes that the processor wants. */
static inline void emulated_want_product(int c, int a, int b, const char *name) {
    emulated_want(c != a && c != b && a != b, name, "want three different tiles");
    emulated_tile *to = emulated_at(c, name), *left = emulated_at(a, name), *right = emulated_at(b, name);
    emulated_want(to->rows == left->rows, name, "want as many rows of sums as the left tile has");
    emulated_want(to->row_bytes == right->row_bytes, name, "want sums as wide as the right tile");
    emulated_want(left->row_bytes == 4 * right->rows, name, "want a dword in the left tile's rows for every row of the right one");
}

/* Byte `byte` of a dword, with a sign or without. */
static inline int32_t emulated_byte(const uint8_t *dword, int byte, int is_signed) {
    return is_signed ? (int8_t)dword[byte] : dword[byte];
}

static inline void emulated_dpb(int c, int a, int b, int signed_a, int signed_b, const char *name) {
    emulated_want_product(c, a, b, name);
    emulated_tile *to = &emulated_tiles[c], *left = &emulated_tiles[a], *right = &emulated_tiles[b];
    uint32_t sums[EMULATED_ROWS][EMULATED_ROW_BYTES / 4];
    memcpy(sums, to->data, sizeof sums);
    for (int k = 0; k < right->rows; k++)
        for (int byte = 0; byte < 4; byte++) {
            int32_t row[EMULATED_ROW_BYTES / 4];
            for (int n = 0; n < EMULATED_ROW_BYTES / 4; n++) row[n] = emulated_byte(right->data[k] + 4 * n, byte, signed_b);
            for (int m = 0; m < to->rows; m++) {
                int32_t by = emulated_byte(left->data[m] + 4 * k, byte, signed_a);
                for (int n = 0; n < EMULATED_ROW_BYTES / 4; n++) sums[m][n] += (uint32_t)(by * row[n]);
            }
        }
    memcpy(to->data, sums, sizeof sums); /* columns beyond the right tile's are 0 times something */
}

static inline float emulated_flushed(uint32_t bits) {
    float x;
    bits = bits & 0x7f800000 ? bits : bits & 0x80000000;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline float emulated_flush(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return emulated_flushed(bits);
}

/* Half `half` of a dword, a bf16. */
static inline float emulated_bf16(const uint8_t *dword, int half) {
    uint32_t bits;
    memcpy(&bits, dword, sizeof bits);
    return emulated_flushed(half ? bits & 0xffff0000 : bits << 16);
}

static inline void emulated_dpbf16ps(int c, int a, int b) {
    enum { WIDE = EMULATED_ROW_BYTES / 4 };
    emulated_want_product(c, a, b, "TDPBF16PS");
    emulated_tile *to = &emulated_tiles[c], *left = &emulated_tiles[a], *right = &emulated_tiles[b];
    float sums[2][EMULATED_ROWS][WIDE] = {{{0}}};
    for (int k = 0; k < right->rows; k++)
        for (int half = 0; half < 2; half++) {
            float row[WIDE];
            for (int n = 0; n < WIDE; n++) row[n] = emulated_bf16(right->data[k] + 4 * n, half);
            for (int m = 0; m < to->rows; m++) {
                float by = emulated_bf16(left->data[m] + 4 * k, half), *sum = sums[half][m];
                for (int n = 0; n < WIDE; n++) sum[n] = emulated_flush(__builtin_fmaf(by, row[n], sum[n]));
            }
        }
    for (int m = 0; m < to->rows; m++)
        for (int n = 0; n < to->row_bytes / 4; n++) {
            float was;
            memcpy(&was, to->data[m] + 4 * n, sizeof was);
            float sum = emulated_flush(emulated_flush(was) + emulated_flush(sums[0][m][n] + sums[1][m][n]));
            memcpy(to->data[m] + 4 * n, &sum, sizeof sum);
        }
}

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stream_loadd
#undef _tile_stored
#undef _tile_dpbssd
#undef _tile_dpbsud
#undef _tile_dpbusd
#undef _tile_dpbuud
#undef _tile_dpbf16ps
#define _tile_loadconfig(from) emulated_loadconfig(from)
#define _tile_release() emulated_release()
#define _tile_zero(tile) emulated_zero(tile)
#define _tile_loadd(tile, from, stride) emulated_loadd(tile, from, stride)
#define _tile_stream_loadd(tile, from, stride) emulated_loadd(tile, from, stride)
#define _tile_stored(tile, to, stride) emulated_stored(tile, to, stride)
#define _tile_dpbssd(c, a, b) emulated_dpb(c, a, b, 1, 1, "TDPBSSD")
#define _tile_dpbsud(c, a, b) emulated_dpb(c, a, b, 1, 0, "TDPBSUD")
#define _tile_dpbusd(c, a, b) emulated_dpb(c, a, b, 0, 1, "TDPBUSD")
#define _tile_dpbuud(c, a, b) emulated_dpb(c, a, b, 0, 0, "TDPBUUD")
#define _tile_dpbf16ps(c, a, b) emulated_dpbf16ps(c, a, b)

#endif
