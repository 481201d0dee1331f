/* matmul_words_blocks.h: rows of GGUF's blocks as bytes and constants.  Part of matmul_words.h.
 *
 * Codes are unsigned here, and what was taken off them is part of the group's bias: the value is scale * code + bias.  They come
 * out in natural order; a block's own is in block_rows.c. */

typedef uint8_t vbytes __attribute__((vector_size(BYTES)));
typedef vbytes vbytes_unaligned __attribute__((aligned(1), may_alias));

INLINE vbytes load_bytes(const uint8_t *p) { return *(const vbytes_unaligned *)p; }
INLINE void store_bytes(uint8_t *p, vbytes v) { *(vbytes_unaligned *)p = v; }

/* VL halves to floats. */
INLINE vf halves_at(const uint8_t *p) {
    uint16_t halves[VL];
    memcpy(halves, p, sizeof halves);
    return load_f16(halves);
}

/* ---- a row's constants ------------------------------------------------------------------------------------------------ */

/* A scale in front of each block of `step` bytes; what is taken off codes is `offset`. */
INLINE void scales_in_front(const uint8_t *b, int n, const size_t step, const float offset, float *scales, float *biases) {
    for (int i = 0; i < n; i++, b += step) scales[i] = halves_at(b)[0];
    for (int i = 0; i < n; i += VL) store(biases + i, load(scales + i) * -offset);
}

/* Of q4_k and q5_k: eight scales and minima of 6 bits. */
INLINE void scales_k(const uint8_t *b, float *scales, float *biases) {
    vf halves = halves_at(b);
    float d = halves[0], dmin = -halves[1];
    uint32_t low, minima, high;
    memcpy(&low, b + 4, sizeof low);
    memcpy(&minima, b + 8, sizeof minima);
    memcpy(&high, b + 12, sizeof high);
    uint64_t last_scales = (high & 0x0f0f0f0f) | (low >> 2 & 0x30303030), last_minima = (high >> 4 & 0x0f0f0f0f) | (minima >> 2 & 0x30303030);
    uint64_t eight[2] = {(low & 0x3f3f3f3f) | last_scales << 32, (minima & 0x3f3f3f3f) | last_minima << 32};
    const uint8_t *bytes = (const uint8_t *)eight;
    for (int g = 0; g < 8; g += VL) {
        store(scales + g, to_float(load_u8(bytes + g)) * d);
        store(biases + g, to_float(load_u8(bytes + 8 + g)) * dmin);
    }
}

INLINE void scales_q6_k(const uint8_t *b, float *scales, float *biases) {
    float d = halves_at(b + 210 - 2 * VL)[VL - 1];
    for (int g = 0; g < 16; g += VL) {
        vf scale = to_float((load_u8(b + 192 + g) ^ 128) - 128) * d;
        store(scales + g, scale);
        store(biases + g, scale * -32.0f);
    }
}

/* Scales and biases of a row's groups; both are filled up to whole registers. */
static __attribute__((noinline)) void block_row_scales(tq_dtype type, const uint8_t *row, int cols, float *scales, float *biases) {
    switch (type) {
    case TQ_Q4_0: scales_in_front(row, cols / 32, 18, 8.0f, scales, biases); return;
    case TQ_Q8_0: scales_in_front(row, cols / 32, 34, 128.0f, scales, biases); return;
    case TQ_Q4_K:
        for (int i = 0; i < cols; i += 256, row += 144) scales_k(row, scales + i / 32, biases + i / 32);
        return;
    case TQ_Q5_K:
        for (int i = 0; i < cols; i += 256, row += 176) scales_k(row, scales + i / 32, biases + i / 32);
        return;
    default:
        for (int i = 0; i < cols; i += 256, row += 210) scales_q6_k(row, scales + i / 16, biases + i / 16);
    }
}

/* ---- a row's codes as bytes ---------------------------------------------------------------------------------------------- */

INLINE void codes_q8_0(const uint8_t *b, uint8_t *codes) {
    for (int j = 0; j < 32; j += BYTES) store_bytes(codes + j, load_bytes(b + 2 + j) ^ 128);
}

INLINE void codes_q4_0(const uint8_t *b, uint8_t *codes) {
    typedef uint8_t sixteen __attribute__((vector_size(16)));
    sixteen two;
    memcpy(&two, b + 2, sizeof two);
    sixteen low = two & 15, high = two >> 4;
    memcpy(codes, &low, sizeof low);
    memcpy(codes + 16, &high, sizeof high);
}

INLINE void codes_q4_k(const uint8_t *b, uint8_t *codes) {
    for (int pair = 0; pair < 4; pair++)
        for (int j = 0; j < 32; j += BYTES) {
            vbytes two = load_bytes(b + 16 + pair * 32 + j);
            store_bytes(codes + pair * 64 + j, two & 15);
            store_bytes(codes + pair * 64 + 32 + j, two >> 4);
        }
}

INLINE void codes_q5_k(const uint8_t *b, uint8_t *codes) {
    for (int j = 0; j < 32; j += BYTES) {
        vbytes fifth = load_bytes(b + 16 + j);
        for (int pair = 0; pair < 4; pair++, fifth >>= 2) {
            vbytes two = load_bytes(b + 48 + pair * 32 + j);
            store_bytes(codes + pair * 64 + j, (two & 15) | (fifth << 4 & 16));
            store_bytes(codes + pair * 64 + 32 + j, two >> 4 | (fifth << 3 & 16));
        }
    }
}

INLINE void codes_of_q6_k(const uint8_t *b, uint8_t *codes) {
    for (int half = 0; half < 2; half++)
        for (int j = 0; j < 32; j += BYTES) {
            vbytes high = load_bytes(b + 128 + half * 32 + j);
            vbytes first = load_bytes(b + half * 64 + j), second = load_bytes(b + half * 64 + 32 + j);
            uint8_t *to = codes + half * 128 + j;
            store_bytes(to, (first & 15) | (high << 4 & 48));
            store_bytes(to + 32, (second & 15) | (high << 2 & 48));
            store_bytes(to + 64, first >> 4 | (high & 48));
            store_bytes(to + 96, second >> 4 | (high >> 2 & 48));
        }
}

static __attribute__((noinline)) void block_row_codes(tq_dtype type, const uint8_t *row, int cols, uint8_t *codes) {
    switch (type) {
    case TQ_Q4_0:
        for (int i = 0; i < cols; i += 32, row += 18) codes_q4_0(row, codes + i);
        return;
    case TQ_Q8_0:
        for (int i = 0; i < cols; i += 32, row += 34) codes_q8_0(row, codes + i);
        return;
    case TQ_Q4_K:
        for (int i = 0; i < cols; i += 256, row += 144) codes_q4_k(row, codes + i);
        return;
    case TQ_Q5_K:
        for (int i = 0; i < cols; i += 256, row += 176) codes_q5_k(row, codes + i);
        return;
    default:
        for (int i = 0; i < cols; i += 256, row += 210) codes_of_q6_k(row, codes + i);
    }
}

/* ---- one token: codes become words at once ------------------------------------------------------------------------------------
 * Two rows at a time, because a row's sum waits for itself.  The sums that dot_row8 has of the bytes, bit for bit: the same lanes,
 * in the same order. */

enum { GROUP_WORDS = 32 / (2 * VL), PAIR = 2 }; /* registers of a group of 32; rows */

/* A group of n registers. */
INLINE void dot_words(vf sum[PAIR], const vw words[PAIR][GROUP_WORDS], const int16_t *wide, const float *products, size_t stride,
                      const int n, const int n_rows) {
    vi high[PAIR] = {{0}, {0}}, low[PAIR] = {{0}, {0}};
    for (int i = 0; i < n; i++) {
        vw upper = load_wide(wide + i * 4 * VL), lower = load_wide(wide + i * 4 * VL + 2 * VL);
        for (int r = 0; r < n_rows; r++) {
            high[r] = pair_sums(high[r], words[r][i], upper);
            low[r] = pair_sums(low[r], words[r][i], lower);
        }
    }
    for (int r = 0; r < n_rows; r++) sum[r] += (to_float(low[r]) * 0x1p-16f + to_float(high[r])) * products[(size_t)r * stride];
}

/* One block of 32 or 256 of each row: words to the sums.  wide, products: at the block's first column. */
INLINE void dot_block_q8_0(vf sum[PAIR], const uint8_t *b, size_t row_bytes, const int16_t *wide, const float *products, size_t stride,
                           const int n_rows) {
    vw words[PAIR][GROUP_WORDS];
    for (int r = 0; r < n_rows; r++)
        for (int j = 0; j < GROUP_WORDS; j++) words[r][j] = load_words(b + (size_t)r * row_bytes + 2 + j * 2 * VL) ^ 128;
    dot_words(sum, words, wide, products, stride, GROUP_WORDS, n_rows);
}

INLINE void dot_block_q4_0(vf sum[PAIR], const uint8_t *b, size_t row_bytes, const int16_t *wide, const float *products, size_t stride,
                           const int n_rows) {
    vw words[PAIR][GROUP_WORDS];
    for (int r = 0; r < n_rows; r++)
        for (int j = 0; j < GROUP_WORDS / 2; j++) {
            vw two = load_words(b + (size_t)r * row_bytes + 2 + j * 2 * VL);
            words[r][j] = two & 15;
            words[r][GROUP_WORDS / 2 + j] = (vw)((vuw)two >> 4);
        }
    dot_words(sum, words, wide, products, stride, GROUP_WORDS, n_rows);
}

INLINE void dot_block_q4_k(vf sum[PAIR], const uint8_t *b, size_t row_bytes, const int16_t *wide, const float *products, size_t stride,
                           const int n_rows) {
    for (int pair = 0; pair < 4; pair++) {
        vw low[PAIR][GROUP_WORDS], high[PAIR][GROUP_WORDS];
        for (int r = 0; r < n_rows; r++)
            for (int j = 0; j < GROUP_WORDS; j++) {
                vw two = load_words(b + (size_t)r * row_bytes + 16 + pair * 32 + j * 2 * VL);
                low[r][j] = two & 15;
                high[r][j] = (vw)((vuw)two >> 4);
            }
        dot_words(sum, low, wide + 2 * (pair * 64), products + 2 * pair, stride, GROUP_WORDS, n_rows);
        dot_words(sum, high, wide + 2 * (pair * 64 + 32), products + 2 * pair + 1, stride, GROUP_WORDS, n_rows);
    }
}

/* Columns 32 quarter on of half a block: two groups. */
INLINE void dot_quarter_q6_k(vf sum[PAIR], const uint8_t *low, const uint8_t *high, size_t row_bytes, const int16_t *wide,
                             const float *products, size_t stride, const int quarter, const int n_rows) {
    const int column = 32 * quarter;
    for (int g = 0; g < 2; g++) {
        vw words[PAIR][GROUP_WORDS];
        for (int r = 0; r < n_rows; r++)
            for (int j = 0; j < GROUP_WORDS / 2; j++) {
                size_t at = (size_t)r * row_bytes + (size_t)(16 * g + j * 2 * VL);
                vuw four = (vuw)load_words(low + column % 64 + at), two = (vuw)load_words(high + at);
                words[r][j] = (vw)((four >> quarter / 2 * 4 & 15) | (two << 4 >> 2 * quarter & 48));
            }
        dot_words(sum, words, wide + 2 * (column + 16 * g), products + 2 * quarter + g, stride, GROUP_WORDS / 2, n_rows);
    }
}

INLINE void dot_block_q6_k(vf sum[PAIR], const uint8_t *b, size_t row_bytes, const int16_t *wide, const float *products, size_t stride,
                           const int n_rows) {
    for (int half = 0; half < 2; half++, wide += 256, products += 8) {
        const uint8_t *low = b + half * 64, *high = b + 128 + half * 32;
        dot_quarter_q6_k(sum, low, high, row_bytes, wide, products, stride, 0, n_rows);
        dot_quarter_q6_k(sum, low, high, row_bytes, wide, products, stride, 1, n_rows);
        dot_quarter_q6_k(sum, low, high, row_bytes, wide, products, stride, 2, n_rows);
        dot_quarter_q6_k(sum, low, high, row_bytes, wide, products, stride, 3, n_rows);
    }
}

/* Rows b and the one row_bytes after it; products: (n_rows, stride). */
typedef void (*dot_rows_fn)(const uint8_t *b, size_t row_bytes, int cols, const int16_t *wide, const float *products, size_t stride,
                            float *out);
#define DOT_BLOCKS(type, block, block_bytes, group, n_rows)                                                                      \
    static __attribute__((noinline)) void dot_##type##_rows##n_rows(const uint8_t *b, size_t row_bytes, int cols,           \
                                                                    const int16_t *wide, const float *products,             \
                                                                    size_t stride, float *out) {                            \
        vf sum[PAIR] = {{0}, {0}};                                                                                          \
        for (int i = 0; i < cols; i += block, b += block_bytes) {                                                           \
            for (int r = 0; r < n_rows; r++)                                                                                \
                for (int j = 0; j < block_bytes; j += 64) __builtin_prefetch(b + (size_t)r * row_bytes + j + GEMV_AHEAD);   \
            dot_block_##type(sum, b, row_bytes, wide + 2 * i, products + i / group, stride, n_rows);                          \
        }                                                                                                                   \
        for (int r = 0; r < n_rows; r++) out[r] = sum_lanes(sum[r]);                                                        \
    }
DOT_BLOCKS(q8_0, 32, 34, 32, 1)
DOT_BLOCKS(q8_0, 32, 34, 32, 2)
DOT_BLOCKS(q4_0, 32, 18, 32, 1)
DOT_BLOCKS(q4_0, 32, 18, 32, 2)
DOT_BLOCKS(q4_k, 256, 144, 32, 1)
DOT_BLOCKS(q4_k, 256, 144, 32, 2)
DOT_BLOCKS(q6_k, 256, 210, 16, 1)
DOT_BLOCKS(q6_k, 256, 210, 16, 2)

/* NULL: by way of bytes. */
static dot_rows_fn word_dots_of(const tq_matrix *w, bool two) {
    if (w->kind != TQ_MATRIX_BLOCKS) return NULL;
    switch (w->block_type) {
    case TQ_Q8_0: return two ? dot_q8_0_rows2 : dot_q8_0_rows1;
    case TQ_Q4_0: return two ? dot_q4_0_rows2 : dot_q4_0_rows1;
    case TQ_Q4_K: return two ? dot_q4_k_rows2 : dot_q4_k_rows1;
    case TQ_Q6_K: return two ? dot_q6_k_rows2 : dot_q6_k_rows1;
    default: return NULL;
    }
}

/* One token. */
static void gemv_block_rows(const tq_matrix *w, int row0, int n_rows, const tq_matmul_input *in, float *y, float *scratch) {
    size_t row_bytes = tq_matrix_row_bytes(w), stride = (size_t)padded_groups(w);
    const int16_t *wide = (const int16_t *)(const void *)in->prepared;
    float *products = scratch, *scales = products + PAIR * stride, *biases = scales + stride;
    memset(scales, 0, 2 * stride * sizeof *scales);
    const uint8_t *row = (const uint8_t *)w->data + (size_t)row0 * row_bytes;
    for (int i = 0, rows; i < n_rows; i += rows, row += (size_t)rows * row_bytes) {
        float biased[PAIR];
        rows = n_rows - i < PAIR ? 1 : PAIR;
        for (int r = 0; r < rows; r++) {
            block_row_scales(w->block_type, row + (size_t)r * row_bytes, w->cols, scales, biases);
            block_constants(scales, biases, in, 0, (int)stride, products + (size_t)r * stride, &biased[r], 1);
        }
        word_dots_of(w, rows == PAIR)(row, row_bytes, w->cols, wide, products, stride, y + i);
        for (int r = 0; r < rows; r++) y[i + r] += biased[r];
    }
}
