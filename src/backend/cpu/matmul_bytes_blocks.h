/* matmul_bytes_blocks.h: GGUF's blocks as panels of codes.  Part of matmul_bytes.h, for the sets that also define
 *     turn_16(rows, at, m)        16 bytes of each of VL rows turn around: m[d], d < 4: dword d of all rows
 *     turn_32(rows, at, m)        32 bytes
 *     halves_to_floats(v)         the f16 in the low word of each lane
 *     load_spaced_f16(p, step)    VL f16, `step` bytes apart, 18 or 34; reads nothing behind the last one's block
 *
 * Codes are unsigned here, and what was taken off them is part of the group's bias: the value is scale * code + bias.  All types
 * come out in natural order, of nibbles (q4_0, q4_k) or bytes, so that those with groups of one size take the same tokens.  A
 * block's own order (block_rows.c) is undone while codes are in registers. */

typedef struct block_panel {
    const uint8_t *rows[VL]; /* at the panel's first block */
    uint8_t *codes;          /* of one tile */
    float *scales, *biases;
} block_panel;

/* Codes of a panel: nibbles, or bytes. */
static bool block_nibbles(tq_dtype type) { return type == TQ_Q4_0 || type == TQ_Q4_K; }

/* n: lines for 16 rows.  Products fetch a line for every two quads of nibbles, two of bytes: together a little more than there is. */
INLINE void fetch_share(line_cursor *c, int n) { fetch_near(c, n * VL / 16); }

/* Two dwords of nibbles, or codes of four bytes. */
INLINE void put_dword(const block_panel *p, int at, vi v) { *(vi_unaligned *)(p->codes + at * PANEL_TILES * BYTES) = v; }
INLINE void put_codes(const block_panel *p, int at, vi v) { put_dword(p, at, v ^ (vi)((vu)(vi){0} + CODES_LESS * 0x01010101u)); }

INLINE void put_constants(const block_panel *p, int group, vf scale, vf bias) {
    store(p->scales + group * PANEL_ROWS, scale);
    store(p->biases + group * PANEL_ROWS, bias);
}

INLINE vi byte_of(vi dwords, int i) { return (vi)((vu)dwords >> (8 * i)) & 255; }

/* n dwords, of whose nibbles the low ones are as many quads and the high ones the next: two quads of a half to a dword. */
INLINE void put_nibbles(const block_panel *p, int at, const vi *m, const int n) {
    for (int d = 0; d < n; d += 2) {
        put_dword(p, at + d / 2, (m[d] & 0x0f0f0f0f) | ((vi)((vu)m[d + 1] << 4) & ~0x0f0f0f0f));
        put_dword(p, at + n / 2 + d / 2, ((vi)((vu)m[d] >> 4) & 0x0f0f0f0f) | (m[d + 1] & ~0x0f0f0f0f));
    }
}

/* ---- blocks of 32: one scale, in front */

/* Scales of n < VL blocks of each row: behind the last row is no memory. */
static void load_last_scales(const uint8_t *const rows[VL], size_t at, int n, const int step, vi m[VL]) {
    for (int l = 0; l < VL; l++) {
        uint16_t halves[VL] = {0};
        for (int g = 0; g < n; g++) memcpy(&halves[g], rows[l] + at + g * step, sizeof *halves);
        m[l] = (vi)load_f16(halves);
    }
}

/* Scales of n blocks of `step` bytes, and biases offset times as large. */
INLINE void fill_block_scales(const block_panel *p, int n, const int step, const float offset) {
    for (int g0 = 0; g0 < n; g0 += VL) {
        vi m[VL];
        size_t at = (size_t)(g0 * step);
        if (n - g0 < VL) load_last_scales(p->rows, at, n - g0, step, m);
        else
            for (int l = 0; l < VL; l++) m[l] = (vi)load_spaced_f16(p->rows[l] + at, step);
        transpose(m);
        for (int g = 0; g < VL; g++) put_constants(p, g0 + g, (vf)m[g], (vf)m[g] * offset);
    }
}

static __attribute__((noinline)) void fill_q4_0(const block_panel *p, int cols, line_cursor *next) {
    line_cursor c = *next;
    fill_block_scales(p, cols / 32, 18, -8.0f);
    for (int b = 0; b < cols / 32; b++) {
        vi m[4];
        fetch_share(&c, 2 + b % 2);
        turn_16(p->rows, (size_t)(18 * b + 2), m);
        put_nibbles(p, 4 * b, m, 4);
    }
    *next = c;
}

static __attribute__((noinline)) void fill_q8_0(const block_panel *p, int cols, line_cursor *next) {
    line_cursor c = *next;
    fill_block_scales(p, cols / 32, 34, -128.0f);
    for (int b = 0; b < cols / 32; b++) {
        vi m[8];
        fetch_share(&c, 5);
        turn_32(p->rows, (size_t)(34 * b + 2), m);
        for (int d = 0; d < 8; d++) put_codes(p, 8 * b + d, (vi)((vu)m[d] ^ 0x80808080u));
    }
    *next = c;
}

/* ---- blocks of 256 */

/* d, dmin and eight scales and minima of 6 bits. */
INLINE void fill_k_scales(const block_panel *p, size_t at, int group) {
    vi m[4];
    turn_16(p->rows, at, m);
    vf d = halves_to_floats(m[0]), dmin = halves_to_floats((vi)((vu)m[0] >> 16));
    vi scales[2] = {m[1] & 0x3f3f3f3f, (m[3] & 0x0f0f0f0f) | ((vi)((vu)m[1] >> 2) & 0x30303030)};
    vi minima[2] = {m[2] & 0x3f3f3f3f, ((vi)((vu)m[3] >> 4) & 0x0f0f0f0f) | ((vi)((vu)m[2] >> 2) & 0x30303030)};
    for (int g = 0; g < 8; g++)
        put_constants(p, group + g, d * to_float(byte_of(scales[g / 4], g % 4)), -dmin * to_float(byte_of(minima[g / 4], g % 4)));
}

static __attribute__((noinline)) void fill_q4_k(const block_panel *p, int cols, line_cursor *next) {
    line_cursor c = *next;
    for (int b = 0; b < cols / 256; b++) {
        fill_k_scales(p, (size_t)(144 * b), 8 * b);
        for (int i = 0; i < 4; i++) { /* two groups share 32 bytes */
            vi m[8];
            fetch_share(&c, 5);
            turn_32(p->rows, (size_t)(144 * b + 16 + 32 * i), m);
            put_nibbles(p, 32 * b + 8 * i, m, 8);
        }
    }
    *next = c;
}

/* 256 codes of 5 bits: bit g of byte j of the first 32 is the fifth of element j of group g. */
static __attribute__((noinline)) void fill_q5_k(const block_panel *p, int cols, line_cursor *next) {
    line_cursor c = *next;
    for (int b = 0; b < cols / 256; b++) {
        vi fifth[8];
        fill_k_scales(p, (size_t)(176 * b), 8 * b);
        turn_32(p->rows, (size_t)(176 * b + 16), fifth);
        for (int i = 0; i < 4; i++) {
            vi m[8];
            fetch_share(&c, 3);
            turn_32(p->rows, (size_t)(176 * b + 48 + 32 * i), m);
            for (int d = 0; d < 8; d++) {
                vu bits = (vu)fifth[d] >> (2 * i);
                put_codes(p, 64 * b + 16 * i + d, (m[d] & 0x0f0f0f0f) | ((vi)(bits << 4) & 0x10101010));
                put_codes(p, 64 * b + 16 * i + 8 + d, ((vi)((vu)m[d] >> 4) & 0x0f0f0f0f) | ((vi)(bits << 3) & 0x10101010));
            }
        }
    }
    *next = c;
}

static __attribute__((noinline)) void fill_q6_k(const block_panel *p, int cols, line_cursor *next) {
    line_cursor c = *next;
    for (int b = 0; b < cols / 256; b++) {
        size_t at = (size_t)(210 * b);
        vi scales[4], last[4];
        turn_16(p->rows, at + 192, scales);
        turn_16(p->rows, at + 194, last); /* the block's last 16 bytes: d is the last two */
        vf unit = halves_to_floats((vi)((vu)last[3] >> 16));
        for (int g = 0; g < 16; g++) {
            vf scale = unit * to_float((vi)((vu)scales[g / 4] << (24 - 8 * (g % 4))) >> 24);
            put_constants(p, 16 * b + g, scale, scale * -32.0f);
        }
        for (int half = 0; half < 2; half++) {
            vi high[8], low[8];
            turn_32(p->rows, at + (size_t)(128 + 32 * half), high);
            for (int i = 0; i < 2; i++) { /* columns 32 i on and, in the high halves of the same bytes, 64 + 32 i on */
                fetch_share(&c, 5);
                turn_32(p->rows, at + (size_t)(64 * half + 32 * i), low);
                for (int d = 0; d < 8; d++) {
                    vi two = (vi)((vu)high[d] << 4 >> 2 * i);
                    put_codes(p, 64 * b + 32 * half + 8 * i + d, (low[d] & 0x0f0f0f0f) | (two & 0x30303030));
                    two = (vi)((vu)high[d] >> 2 * i);
                    put_codes(p, 64 * b + 32 * half + 8 * i + 16 + d, ((vi)((vu)low[d] >> 4) & 0x0f0f0f0f) | (two & 0x30303030));
                }
            }
        }
    }
    *next = c;
}

/* Tile `tile` of a panel: codes and constants of `cols` columns from col0 on, whole blocks. */
static void fill_blocks(const tq_matrix *w, const int row_of[VL], int col0, int cols, const code_panel *panel, line_cursor *next, int tile) {
    size_t row_bytes = tq_matrix_row_bytes(w);
    size_t at = (size_t)(col0 / tq_dtype_block(w->block_type)) * tq_dtype_bytes(w->block_type);
    block_panel p = {.codes = panel->codes + tile * BYTES, .scales = panel->scales + tile * VL, .biases = panel->biases + tile * VL};
    for (int l = 0; l < VL; l++) p.rows[l] = (const uint8_t *)w->data + (size_t)row_of[l] * row_bytes + at;
    switch (w->block_type) {
    case TQ_Q4_0: fill_q4_0(&p, cols, next); return;
    case TQ_Q8_0: fill_q8_0(&p, cols, next); return;
    case TQ_Q4_K: fill_q4_k(&p, cols, next); return;
    case TQ_Q5_K: fill_q5_k(&p, cols, next); return;
    default: fill_q6_k(&p, cols, next); return;
    }
}
