/* kernels_blocks.h: rows of GGUF blocks into floats.  A part of kernels_body.h: the same vector extensions, once for each
 * instruction set.  The common types have loops of their own; the others go through tq_block_unpack. */

#include "backend/cpu/block_rows.h"

INLINE float half_at(const uint8_t *at) { return tq_f16_f32((uint16_t)(at[0] | at[1] << 8)); }

/* Which of GGUF's types are multiplied as codes: elements of a scale; 0: none. */
static int block_group(tq_dtype type) {
    switch (type) {
    case TQ_Q4_0:
    case TQ_Q8_0:
    case TQ_Q4_K:
    case TQ_Q5_K: return 32;
    case TQ_Q6_K: return 16;
    default: return 0;
    }
}

/* Codes at + 0..VL of the 128 elements of half a block, 0..63. */
INLINE vi codes_q6_k(const uint8_t *low, const uint8_t *high, int at) {
    vi four = load_u8(low + at % 64), two = load_u8(high + at % 32);
    four = at < 64 ? four & 15 : four >> 4;
    return four | (two >> (at / 32 * 2) & 3) << 4;
}

/* ---- unpacking: the values of tq_block_unpack ----------------------------------------------------------------------------- */

static void unpack_q8_0(const uint8_t *b, int n, float *dst) {
    for (int i = 0; i < n; i += 32, b += 34) {
        float d = half_at(b);
        for (int j = 0; j < 32; j += VL) store(dst + i + j, to_float((load_u8(b + 2 + j) ^ 128) - 128) * d);
    }
}

static void unpack_q4_0(const uint8_t *b, int n, float *dst) {
    for (int i = 0; i < n; i += 32, b += 18) {
        float d = half_at(b);
        for (int j = 0; j < 16; j += VL) {
            vi pair = load_u8(b + 2 + j);
            store(dst + i + j, to_float((pair & 15) - 8) * d);
            store(dst + i + 16 + j, to_float((pair >> 4) - 8) * d);
        }
    }
}

/* A fused step * code - offset would round once less than the specification: within the kernels' tolerance. */
static void unpack_q4_k(const uint8_t *b, int n, float *dst) {
    for (int i = 0; i < n; i += 256, b += 144) {
        float d = half_at(b), dmin = half_at(b + 2);
        for (int group = 0; group < 8; group++) {
            int scale, min;
            tq_block_scale_min(b + 4, group, &scale, &min);
            float step = d * (float)scale, offset = dmin * (float)min;
            for (int j = 0; j < 32; j += VL) {
                vi two = load_u8(b + 16 + group / 2 * 32 + j);
                store(dst + i + group * 32 + j, to_float(group % 2 ? two >> 4 : two & 15) * step - offset);
            }
        }
    }
}

static void unpack_q6_k(const uint8_t *b, int n, float *dst) {
    for (int i = 0; i < n; i += 256, b += 210) {
        float d = half_at(b + 208);
        for (int g = 0; g < 16; g++) {
            float step = d * (float)(int8_t)b[192 + g];
            for (int j = 0; j < 16; j += VL) {
                vi code = codes_q6_k(b + g / 8 * 64, b + 128 + g / 8 * 32, g % 8 * 16 + j);
                store(dst + i + g * 16 + j, to_float(code - 32) * step);
            }
        }
    }
}

/* Columns col0..col0+n, whole blocks, of a row. */
static void unpack_blocks(const tq_matrix *w, int row, int col0, int n, float *dst) {
    size_t block = (size_t)tq_dtype_block(w->block_type), bytes = tq_dtype_bytes(w->block_type);
    const uint8_t *at = (const uint8_t *)w->data + ((size_t)row * (size_t)w->cols + (size_t)col0) / block * bytes;
    switch (w->block_type) {
    case TQ_Q8_0: unpack_q8_0(at, n, dst); return;
    case TQ_Q4_0: unpack_q4_0(at, n, dst); return;
    case TQ_Q4_K: unpack_q4_k(at, n, dst); return;
    case TQ_Q6_K: unpack_q6_k(at, n, dst); return;
    default: tq_block_unpack(w->block_type, at, n, dst);
    }
}
