/* kernels_scalar.c: the specification, in C that runs anywhere.  The integer kernels are the plainest loops; the float
 * kernels are kernels_body.h with registers of four floats, which every compiler can emulate. */
#define VL 4
#define GEMM_TOKENS 6
#define GEMM_STEP 2
#define SUM_COLUMNS 2

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "backend/cpu/kernels.h"
#include "backend/cpu/kernels_plain.h"
#include "base/half.h"

typedef float vf __attribute__((vector_size(VL * 4)));
typedef int32_t vi __attribute__((vector_size(VL * 4)));

static inline vi load_u8(const uint8_t *p) { return (vi){p[0], p[1], p[2], p[3]}; }
static inline vi load_u16(const uint16_t *p) { return (vi){p[0], p[1], p[2], p[3]}; }
static inline void store_i8(int8_t *p, vi v) {
    for (int l = 0; l < VL; l++) p[l] = (int8_t)v[l];
}
static inline void store_i16(int16_t *p, vi v) {
    for (int l = 0; l < VL; l++) p[l] = (int16_t)v[l];
}
static inline vf load_f16(const uint16_t *p) {
    return (vf){tq_f16_f32(p[0]), tq_f16_f32(p[1]), tq_f16_f32(p[2]), tq_f16_f32(p[3])};
}
static inline float sum_lanes(vf v) { return (v[0] + v[1]) + (v[2] + v[3]); }
static inline vf sum_registers(const vf *v) {
    return (vf){sum_lanes(v[0]), sum_lanes(v[1]), sum_lanes(v[2]), sum_lanes(v[3])};
}

static inline vf max_vf(vf a, vf b) {
    for (int l = 0; l < VL; l++) a[l] = a[l] > b[l] ? a[l] : b[l];
    return a;
}

static inline vf max_magnitude(vf a, vf b) { return max_vf((vf)((vi)a & 0x7fffffff), (vf)((vi)b & 0x7fffffff)); }

static inline float max_lanes(vf v) {
    float a = v[0] > v[1] ? v[0] : v[1], b = v[2] > v[3] ? v[2] : v[3];
    return a > b ? a : b;
}

typedef int16_t vw __attribute__((vector_size(VL * 4)));

static inline vw load_words(const uint8_t *p) { return (vw){p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]}; }
static inline vi pair_sums(vi sum, vw a, vw b) {
    vi odd = ((vi)a >> 16) * ((vi)b >> 16), even = ((vi)a << 16 >> 16) * ((vi)b << 16 >> 16);
    /* halves of a lane: which is first does not matter to their sum */
    return sum + even + odd;
}
static inline vf spread_scales(const float *p, int lanes) {
    vf v;
    for (int l = 0; l < VL; l++) v[l] = p[l / lanes];
    return v;
}
static inline vf lookup(vi codes) { return __builtin_convertvector(codes & 15, vf); }
static inline void transpose(vi m[VL]) {
    for (int i = 0; i < VL; i++)
        for (int j = 0; j < i; j++) {
            int32_t other = m[i][j];
            m[i][j] = m[j][i];
            m[j][i] = other;
        }
}

/* The code of (vector v, place) in a tile: codec/page.h. */
static unsigned code_at(int bits, const uint8_t *tile, int n_vectors, int v, int place) {
    switch (bits) {
    case 8: return tile[v * 64 + place];
    case 4: return tile[v / 2 * 64 + place] >> v % 2 * 4 & 15;
    case 2: return tile[v / 4 * 64 + place] >> v % 4 * 2 & 3;
    default: {
        const uint8_t *group = tile + v / 8 * 192;
        const uint8_t *high = group + (v / 8 * 8 + 8 <= n_vectors ? 128 : 64);
        return (group[v % 8 / 4 * 64 + place] >> v % 4 * 2 & 3u) | (high[place] >> v % 8 & 1u) << 2;
    }
    }
}

static void unpack_tile(int bits, const uint8_t *levels, const uint8_t *tile, int n_vectors, uint8_t *dst) {
    for (int v = 0; v < n_vectors; v++)
        for (int place = 0; place < 64; place++) dst[v * 64 + place] = levels[code_at(bits, tile, n_vectors, v, place)];
}

static void dot_tile(const uint8_t *unpacked, int n_vectors, const tq_int_vectors *q, int first_q, int n_q,
                     int32_t *out) {
    for (int i = 0; i < n_q; i++) {
        const int16_t *wide = q->wide + (size_t)(first_q + i) * (size_t)q->stride;
        for (int lane = 0; lane < 16; lane++) {
            int32_t sum = 0;
            for (int v = 0; v < n_vectors; v++)
                for (int j = 0; j < 4; j++) sum += ((int)unpacked[64 * v + 4 * lane + j] - 128) * wide[4 * v + j];
            out[i * 16 + lane] = sum;
        }
    }
}

#include "backend/cpu/page_dots_tiles.h"

/* ---- look-ups and sums of bytes for trellis codes */
#define VB 16
typedef uint8_t vb __attribute__((vector_size(VB)));
typedef const uint8_t *byte_table, *mix_table;
static inline byte_table load_table(const uint8_t *p) { return p; }
static inline vb look_up(byte_table table, vb index) {
    uint8_t bytes[VB]; /* lane by lane in memory: compilers take a register apart badly */
    memcpy(bytes, &index, sizeof bytes);
    for (int i = 0; i < VB; i++) bytes[i] = table[bytes[i]];
    memcpy(&index, bytes, sizeof bytes);
    return index;
}
static inline mix_table load_mix(const uint8_t *p) { return p; }
static inline vb look_up_mix(mix_table table, vb index) { return look_up(table, index & 63); }
static inline vb add_capped(vb a, vb b) {
    vb sum = a + b;
    return sum | (vb)(sum < a);
}
static inline vb min_u8(vb a, vb b) {
    vb less = (vb)(a < b);
    return (a & less) | (b & ~less);
}
static inline vb distance_u8(vb a, vb b) {
    vb less = (vb)(a < b);
    return ((a - b) ^ less) - less;
}
static inline vb choose_bits(uint8_t mask, vb a, vb b) { return (a & mask) | (b & (uint8_t)~mask); }
static inline vb exclusive_or_bits(vb a, vb b, uint8_t mask) { return a ^ (b & mask); }
static inline void next_lanes(vb v[4]) {
    uint8_t bytes[64], last[4];
    memcpy(bytes, v, 64);
    memcpy(last, bytes + 60, 4);
    memmove(bytes + 4, bytes, 60);
    memcpy(bytes, last, 4);
    memcpy(v, bytes, 64);
}

/* ---- and for codes of pairs */
typedef const uint8_t *pair_table;
static inline pair_table load_pairs(const uint8_t *p) { return p; }
static inline vb look_up_pair(pair_table table, vb index) { return look_up(table, index); }
#define exchange_halves(a, b) ((void)0) /* registers are smaller than halves */

#include "backend/cpu/kernels_body.h"

static bool runs_here(void) { return true; }

const tq_kernels tq_kernels_scalar = KERNEL_TABLE("scalar", runs_here);
