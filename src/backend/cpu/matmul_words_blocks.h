/* matmul_words_blocks.h: rows of GGUF's blocks as bytes and constants.  Part of matmul_words.h.
 *
 * Codes are unsigned here, and what was taken off them is part of the group's bias: the value is scale * code + bias.  They come
 * out in natural order; a block's own is in block_rows.c. */

typedef uint8_t vbytes __attribute__((vector_size(BYTES)));
typedef vbytes vbytes_unaligned __attribute__((aligned(1), may_alias));

INLINE vbytes load_bytes(const uint8_t *p) { return *(const vbytes_unaligned *)p; }
INLINE void store_bytes(uint8_t *p, vbytes v) { *(vbytes_unaligned *)p = v; }

/* The halves at blocks + i * step to floats; n of them, filled up to whole registers of anything. */
INLINE void spaced_halves(const uint8_t *blocks, int n, const size_t step, float *to) {
    for (int i = 0; i < n; i += VL) {
        uint16_t halves[VL] = {0};
        for (int l = 0; l < VL && i + l < n; l++) memcpy(&halves[l], blocks + (size_t)(i + l) * step, sizeof *halves);
        store(to + i, load_f16(halves));
    }
}

INLINE void offset_biases(const float *scales, int n, const float offset, float *biases) {
    for (int i = 0; i < n; i += VL) store(biases + i, load(scales + i) * offset);
}

static __attribute__((noinline)) void unpack_bytes_q8_0(const uint8_t *b, int cols, uint8_t *codes, float *scales, float *biases) {
    spaced_halves(b, cols / 32, 34, scales);
    offset_biases(scales, cols / 32, -128.0f, biases);
    for (int i = 0; i < cols; i += 32, b += 34)
        for (int j = 0; j < 32; j += BYTES) store_bytes(codes + i + j, load_bytes(b + 2 + j) ^ 128);
}

/* 16 bytes, or half a register of them, and their high halves after those. */
static __attribute__((noinline)) void unpack_bytes_q4_0(const uint8_t *b, int cols, uint8_t *codes, float *scales, float *biases) {
    typedef uint8_t sixteen __attribute__((vector_size(16)));
    spaced_halves(b, cols / 32, 18, scales);
    offset_biases(scales, cols / 32, -8.0f, biases);
    for (int i = 0; i < cols; i += 32, b += 18) {
        sixteen two;
        memcpy(&two, b + 2, sizeof two);
        sixteen low = two & 15, high = two >> 4;
        memcpy(codes + i, &low, sizeof low);
        memcpy(codes + i + 16, &high, sizeof high);
    }
}

/* Of q4_k and q5_k: eight scales and minima of 6 bits. */
INLINE void k_constants(const uint8_t *b, float *scales, float *biases) {
    float d = half_at(b), dmin = -half_at(b + 2);
    uint8_t bytes[16]; /* scales, minima */
    uint32_t a, m, c;
    memcpy(&a, b + 4, sizeof a), memcpy(&m, b + 8, sizeof m), memcpy(&c, b + 12, sizeof c);
    uint32_t words[4] = {a & 0x3f3f3f3f, (c & 0x0f0f0f0f) | (a >> 2 & 0x30303030), m & 0x3f3f3f3f,
                         (c >> 4 & 0x0f0f0f0f) | (m >> 2 & 0x30303030)};
    memcpy(bytes, words, sizeof bytes);
    for (int g = 0; g < 8; g += VL) {
        store(scales + g, to_float(load_u8(bytes + g)) * d);
        store(biases + g, to_float(load_u8(bytes + 8 + g)) * dmin);
    }
}

static __attribute__((noinline)) void unpack_bytes_q4_k(const uint8_t *b, int cols, uint8_t *codes, float *scales, float *biases) {
    for (int i = 0; i < cols; i += 256, b += 144) {
        k_constants(b, scales + i / 32, biases + i / 32);
        for (int pair = 0; pair < 4; pair++)
            for (int j = 0; j < 32; j += BYTES) {
                vbytes two = load_bytes(b + 16 + pair * 32 + j);
                store_bytes(codes + i + pair * 64 + j, two & 15);
                store_bytes(codes + i + pair * 64 + 32 + j, two >> 4);
            }
    }
}

static __attribute__((noinline)) void unpack_bytes_q5_k(const uint8_t *b, int cols, uint8_t *codes, float *scales, float *biases) {
    for (int i = 0; i < cols; i += 256, b += 176) {
        k_constants(b, scales + i / 32, biases + i / 32);
        for (int j = 0; j < 32; j += BYTES) {
            vbytes fifth = load_bytes(b + 16 + j);
            for (int pair = 0; pair < 4; pair++, fifth >>= 2) {
                vbytes two = load_bytes(b + 48 + pair * 32 + j);
                store_bytes(codes + i + pair * 64 + j, (two & 15) | (fifth << 4 & 16));
                store_bytes(codes + i + pair * 64 + 32 + j, two >> 4 | (fifth << 3 & 16));
            }
        }
    }
}

static __attribute__((noinline)) void unpack_bytes_q6_k(const uint8_t *b, int cols, uint8_t *codes, float *scales, float *biases) {
    for (int i = 0; i < cols; i += 256, b += 210) {
        float d = half_at(b + 208);
        for (int g = 0; g < 16; g += VL) {
            vf scale = to_float((load_u8(b + 192 + g) ^ 128) - 128) * d;
            store(scales + i / 16 + g, scale);
            store(biases + i / 16 + g, scale * -32.0f);
        }
        for (int half = 0; half < 2; half++)
            for (int j = 0; j < 32; j += BYTES) {
                vbytes high = load_bytes(b + 128 + half * 32 + j);
                vbytes first = load_bytes(b + half * 64 + j), second = load_bytes(b + half * 64 + 32 + j);
                uint8_t *to = codes + i + half * 128 + j;
                store_bytes(to, (first & 15) | (high << 4 & 48));
                store_bytes(to + 32, (second & 15) | (high << 2 & 48));
                store_bytes(to + 64, first >> 4 | (high & 48));
                store_bytes(to + 96, second >> 4 | (high >> 2 & 48));
            }
    }
}

/* The codes of a row, its groups' scales and biases; both are filled up to whole registers of anything. */
static void unpack_block_row(tq_dtype type, const uint8_t *row, int cols, uint8_t *codes, float *scales, float *biases) {
    for (int i = 0; i < cols; i += 64) __builtin_prefetch(row + GEMV_AHEAD + i);
    switch (type) {
    case TQ_Q4_0: unpack_bytes_q4_0(row, cols, codes, scales, biases); return;
    case TQ_Q8_0: unpack_bytes_q8_0(row, cols, codes, scales, biases); return;
    case TQ_Q4_K: unpack_bytes_q4_k(row, cols, codes, scales, biases); return;
    case TQ_Q5_K: unpack_bytes_q5_k(row, cols, codes, scales, biases); return;
    default: unpack_bytes_q6_k(row, cols, codes, scales, biases); return;
    }
}
