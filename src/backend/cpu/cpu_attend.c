/* cpu_attend.c: attention over packed pages, exact rows and the chunk itself.
 *
 * A unit of work is one KV head, one block of query rows (the heads of its group times some tokens) and one part of the
 * keys.  It leaves a partial (max, sum, acc): softmax weights relative to max, not yet divided.  Parts over packed pages
 * stand in the value codec's basis; merge_block brings them back, adds the exact part and divides.  Units are cut by
 * sizes that do not depend on the number of threads, so results do not either. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "backend/cpu/cpu_backend.h"
#include "codec/page.h"

enum {
    BLOCK_ROWS = 64,     /* query rows of a unit, if the group is not larger */
    RUN_BLOCK_ROWS = 512, /* the same where pages are attended to in runs: unpacking a page is work for all of them */
    RUN_PAGES = 16,      /* pages of a run */
    SEEN_PAGES = 4,      /* those of a run that rows see in part */
    SPLIT_TOKENS = 4,    /* chunks up to this many tokens split the pages too */
    SPLIT_PAGES = 16,    /* pages of a split */
    EXPAND_ROWS = 16,    /* rows of a row codec expanded at a time */
    KEY_BLOCK = TQ_PAGE_TOKENS,
};

static size_t round64(size_t n) { return (n + 63) / 64 * 64; }
static int min_int(int a, int b) { return a < b ? a : b; }
static int ceil_div(int a, int b) { return (a + b - 1) / b; }

/* ---- shape of the work and its memory -------------------------------------------------------------------------------- */

typedef struct work_shape {
    int group;        /* query heads of a KV head */
    int block_tokens; /* tokens of a query block */
    int block_rows;   /* group * block_tokens */
    int n_blocks, n_splits, split_pages;
    int dim, key_width, value_width;
    size_t part_floats;   /* one packed or exact part of a block: max, sum, acc */
    size_t query_floats;  /* a block's queries, prepared for packed keys */
    size_t worker_floats; /* scratch of a worker */
} work_shape;

/* Integers that page_dots leaves: for 8 tiles of keys or dim / 16 of values. */
static int dots_count(int dim) {
    int tiles = ceil_div(dim, TQ_TILE), keys = TQ_PAGE_TOKENS / TQ_TILE;
    return (tiles > keys ? tiles : keys) * TQ_PAGE_QUERIES * TQ_TILE;
}

/* Integers of query rows: whole blocks of them. */
static size_t int_rows(int rows) { return (size_t)ceil_div(rows, TQ_PAGE_QUERIES) * TQ_PAGE_QUERIES; }

static size_t int_floats(size_t rows) { return round64(rows * TQ_INT_STRIDE) + 2 * round64(rows); }

/* Can exact rows be a page of attend_pages? */
static bool fits_page(int dim) { return dim % 16 == 0 && dim <= TQ_INT_STRIDE; }

static bool has_exact_rows(const tq_codec *codec) { return (codec->kind == TQ_CODEC_F32 || codec->kind == TQ_CODEC_F16) && fits_page(codec->dim); }

/* Are pages attended to in runs? */
static bool in_runs(const tq_kernels *k, const tq_codec *key, const tq_codec *value, bool bf16) {
    if (bf16 && has_exact_rows(key) && has_exact_rows(value) && key->kind == value->kind) return true;
    return k->attend_pages && key->kind == TQ_CODEC_PLANAR && value->kind == TQ_CODEC_PLANAR;
}

/* Is attention of n tokens in bf16, where prompts are? */
static bool attends_in_bf16(const tq_cpu_backend *c, int n) { return c->bf16 && c->bf16->attends && n > TQ_GEMV_TOKENS; }

static work_shape shape_of(const tq_cpu_backend *c, const tq_codec *key, const tq_codec *value, int n_heads, int n_kv_heads, int n, int n_pages) {
    work_shape s = {.group = n_heads / n_kv_heads, .dim = key->dim, .key_width = key->width, .value_width = value->width};
    int most = (in_runs(c->kernels, key, value, attends_in_bf16(c, n)) ? RUN_BLOCK_ROWS : BLOCK_ROWS) / s.group;
    s.n_blocks = ceil_div(n, most > 1 ? most : 1);
    s.block_tokens = ceil_div(n, s.n_blocks);
    s.n_blocks = ceil_div(n, s.block_tokens);
    s.block_rows = s.group * s.block_tokens;
    s.split_pages = n <= SPLIT_TOKENS ? SPLIT_PAGES : (n_pages > 0 ? n_pages : 1);
    s.n_splits = ceil_div(n_pages, s.split_pages);
    size_t rows = (size_t)s.block_rows;
    s.part_floats = round64((size_t)ceil_div(s.block_rows, TQ_MANY_ROWS) * TQ_MANY_ROWS * (2 + (size_t)s.value_width));
    size_t width = (size_t)(s.key_width > s.value_width ? s.key_width : s.value_width);
    s.query_floats = round64(rows * (size_t)s.key_width) + round64(rows) + int_floats(int_rows(s.block_rows));
    s.worker_floats = s.query_floats
                      + round64(rows * KEY_BLOCK)                            /* scores, then weights */
                      + int_floats(TQ_PAGE_QUERIES)                          /* integers of weights */
                      + round64(2 * SEEN_PAGES * rows)                       /* what they see */
                      + round64(KEY_BLOCK)                                   /* factors of weights */
                      + round64((size_t)dots_count(key->dim))                /* dots */
                      + round64(EXPAND_ROWS * width)                         /* expanded rows */
                      + 2 * round64((size_t)key->dim * TQ_PAGE_TOKENS / sizeof(float)) /* codes of trellises or pairs, unpacked */
                      + round64(tq_page_rows_bytes(s.block_rows, key->dim) / sizeof(float));
    return s;
}

typedef struct worker_scratch {
    tq_key_range *seen;
    float *queries, *scores, *units, *factors, *expanded;
    tq_int_vectors q_int, w_int;
    int32_t *dots;
    uint8_t *unpacked[2]; /* by side */
    void *page_rows;
} worker_scratch;

static float *take(float **at, size_t floats) {
    float *p = *at;
    *at += round64(floats);
    return p;
}

static tq_int_vectors take_int(float **at, size_t rows) {
    int8_t *bytes = (int8_t *)take(at, rows * TQ_INT_STRIDE); /* 4 bytes a place: wide, high, low */
    size_t plane = rows * TQ_INT_STRIDE;
    tq_int_vectors v = {.wide = (int16_t *)(void *)bytes, .high = bytes + 2 * plane, .low = bytes + 2 * plane + TQ_INT_STRIDE, .stride = TQ_INT_STRIDE};
    v.step = take(at, rows);
    v.sum = (int32_t *)(void *)take(at, rows);
    return v;
}

static void lay_out_queries(const work_shape *s, float **at, worker_scratch *w) {
    w->queries = take(at, (size_t)s->block_rows * (size_t)s->key_width);
    w->units = take(at, (size_t)s->block_rows);
    w->q_int = take_int(at, int_rows(s->block_rows));
}

static worker_scratch lay_out(const work_shape *s, float *at) {
    worker_scratch w;
    size_t rows = (size_t)s->block_rows;
    int width = s->key_width > s->value_width ? s->key_width : s->value_width;
    lay_out_queries(s, &at, &w);
    w.scores = take(&at, rows * KEY_BLOCK);
    w.w_int = take_int(&at, TQ_PAGE_QUERIES);
    w.seen = (tq_key_range *)(void *)take(&at, 2 * SEEN_PAGES * rows);
    w.factors = take(&at, KEY_BLOCK);
    w.dots = (int32_t *)(void *)take(&at, (size_t)dots_count(s->dim));
    w.expanded = take(&at, (size_t)(EXPAND_ROWS * width));
    for (int side = 0; side < 2; side++) w.unpacked[side] = (uint8_t *)take(&at, (size_t)s->dim * TQ_PAGE_TOKENS / sizeof(float));
    w.page_rows = at;
    return w;
}

/* Everything that a unit of work reads. */
typedef struct attend_job {
    const tq_kernels *kernels;
    const tq_attend_args *args;
    work_shape shape;
    int n_pages;
    bool bf16;
    float *packed_parts; /* (n_kv_heads, n_blocks, n_splits, part_floats) */
    float *exact_parts;  /* (n_kv_heads, n_blocks, part_floats) */
    float *queries;      /* (n_kv_heads, n_blocks, query_floats): where pages are split, for all parts; else each its own */
    float *workers;      /* (n_threads, worker_floats) */
} attend_job;

size_t tq_cpu_attend_bytes(const tq_backend *backend, const tq_codec *key, const tq_codec *value, int n_heads,
                           int n_kv_heads, int head_dim, int max_n, int max_tokens) {
    (void)head_dim;
    int max_pages = ceil_div(max_tokens, TQ_PAGE_TOKENS);
    const tq_cpu_backend *c = (const tq_cpu_backend *)backend;
    size_t parts = 0, workers = 0;
    for (int n = 1; n <= max_n; n++) { /* block sizes depend on n in steps; a few hundred shapes are nothing */
        work_shape s = shape_of(c, key, value, n_heads, n_kv_heads, n, max_pages);
        size_t units = (size_t)n_kv_heads * (size_t)s.n_blocks;
        size_t floats = units * ((size_t)(s.n_splits + 1) * s.part_floats + (s.n_splits > 1 ? s.query_floats : 0));
        if (floats > parts) parts = floats;
        if (s.worker_floats > workers) workers = s.worker_floats;
    }
    return (parts + (size_t)backend->n_threads * workers) * sizeof(float);
}

/* ---- partials ---------------------------------------------------------------------------------------------------- */

typedef struct attn_part {
    float *max, *sum, *acc; /* (rows), (rows), (rows, width) */
    int width;
} attn_part;

/* The part of one query row. */
static attn_part row_of(const attn_part *part, int row) {
    return (attn_part){part->max + row, part->sum + row, part->acc + (size_t)row * (size_t)part->width, part->width};
}

static attn_part part_at(float *floats, int rows, int width) {
    return (attn_part){floats, floats + rows, floats + 2 * rows, width};
}

static void part_clear(attn_part *part, int rows) {
    for (int i = 0; i < rows; i++) part->max[i] = -INFINITY;
    memset(part->sum, 0, (size_t)rows * sizeof(float));
    memset(part->acc, 0, (size_t)rows * (size_t)part->width * sizeof(float));
}

/* Scores of one block of at most TQ_PAGE_QUERIES query rows from `row` on, in units of unit[], -> weights. */
static void part_soften(const tq_kernels *k, attn_part *part, int row, int n_q, float *scores, const float *unit,
                        const tq_key_range *seen, float cap, const float *factors, tq_int_vectors *w, tq_page_softmax *s) {
    static const float ones[TQ_PAGE_QUERIES] = {1, 1, 1, 1, 1, 1, 1, 1};
    for (int i = 0; cap > 0 && i < n_q; i++) {
        k->scale(scores + i * KEY_BLOCK, KEY_BLOCK, unit[i]);
        k->soft_cap(scores + i * KEY_BLOCK, KEY_BLOCK, cap);
    }
    *s = (tq_page_softmax){.max = part->max + row, .sum = part->sum + row};
    k->page_weights(scores, cap > 0 ? ones : unit, seen, n_q, factors, w, s);
}

/* The factor that brings a sum relative to max to a larger top: of one of two parts it is 1. */
static float factor_to(float max, float top) { return max == top ? 1.0f : expf(max - top); }

/* into += from, one row each, in the same basis.  from is used up. */
static void part_merge(const tq_kernels *k, attn_part into, attn_part from) {
    if (*from.max == -INFINITY) return;
    float top = *into.max > *from.max ? *into.max : *from.max;
    float keep = *into.max == -INFINITY ? 0.0f : factor_to(*into.max, top), bring = factor_to(*from.max, top);
    if (keep != 1) k->scale(into.acc, into.width, keep);
    if (bring != 1) k->scale(from.acc, into.width, bring);
    k->add(into.acc, from.acc, into.width);
    *into.sum = *into.sum * keep + *from.sum * bring;
    *into.max = top;
}

/* ---- one page ---------------------------------------------------------------------------------------------------- */

typedef struct page_pass {
    const tq_kernels *k;
    const tq_kv_store *store;
    worker_scratch *w;
    int rows; /* query rows */
    int group, first_pos; /* query row i stands at position first_pos + i / group */
    float cap;
} page_pass;

/* The keys from position pos on, n of them, that query row i sees: all, or those that its layer's sliding window
 * covers.  What comes after the query is for the caller to leave out. */
static tq_key_range seen_of(const page_pass *p, int i, int pos, int n) {
    int first = p->store->sliding ? p->first_pos + i / p->group - p->store->sliding + 1 - pos : 0;
    return (tq_key_range){first < 0 ? 0 : min_int(first, n), n};
}

/* One side of a page as page_dots takes it: codes of a trellis and of pairs unpacked first, once for all queries.  As woven_dots
 * takes it, where one block of queries is all there is, or the table's attend_pages (run): weave is set. */
static tq_page_codes codes_of(const page_pass *p, tq_side side, const uint8_t *block, const uint8_t *next, bool run) {
    const tq_codec *codec = side == TQ_KEYS ? p->store->key : p->store->value;
    tq_page_codes c = {.codes = block, .levels = codec->levels, .next = next, .next_bytes = next ? tq_block_bytes(codec, side) : 0, .bits = codec->bits,
                       .n_tiles = tq_block_tiles(codec, side), .n_vectors = tq_block_tile_vectors(codec, side),
                       .tile_bytes = tq_block_tile_bytes(codec, side), .values = side == TQ_VALUES};
    if (!codec->trellis && !codec->pairs) return c;
    if ((run || (p->k->woven_dots && p->rows <= TQ_PAGE_QUERIES)) && tq_block_is_woven(codec, side)) {
        c.weave = &codec->weave;
        return c;
    }
    c.bits = 8, c.codes = p->w->unpacked[side], c.tile_bytes = (size_t)c.n_vectors * TQ_VECTOR_BYTES;
    if (side == TQ_VALUES && codec->trellis) {
        p->k->unpack_trellis_values(&codec->weave, block, c.n_tiles, p->w->unpacked[side]);
        return c;
    }
    for (int tile = 0; tile < c.n_tiles; tile++) {
        const uint8_t *codes = block + (size_t)tile * tq_block_tile_bytes(codec, side);
        uint8_t *to = p->w->unpacked[side] + (size_t)tile * c.tile_bytes;
        if (codec->pairs) p->k->unpack_pairs(codec->pairs, codes, c.n_vectors, side == TQ_VALUES, to);
        else p->k->unpack_trellis_keys(&codec->weave, codes, c.n_vectors, to);
    }
    return c;
}

static void dots_of(const page_pass *p, const tq_page_codes *codes, const tq_int_vectors *q, int first_q, int n_q) {
    if (codes->weave) p->k->woven_dots(codes, q, first_q, n_q, p->w->dots);
    else p->k->page_dots(codes, q, first_q, n_q, p->w->dots);
}

/* scores[i][r] = q_i . key_r in units of unit[i], for the packed keys of a page and n_q query rows from `row` on */
static void score_planar(const page_pass *p, const tq_page_codes *codes, const uint8_t *block, int row, int n_q, int n) {
    const tq_codec *codec = p->store->key;
    worker_scratch *w = p->w;
    float offsets[TQ_PAGE_QUERIES];
    /* key = centre + levels * scale / 127: the centre is one dot product a page and query */
    p->k->page_offsets(tq_block_centre(codec, block), codec->dim, w->queries + row * codec->width, codec->width, w->units + row,
                       n_q, offsets);
    tq_page_codes filled = *codes;
    filled.n_tiles = ceil_div(n, TQ_TILE);
    dots_of(p, &filled, &w->q_int, row, n_q);
    p->k->page_scores(w->dots, tq_block_scales(codec, TQ_KEYS, block), offsets, n_q, filled.n_tiles,
                      w->scores + row * KEY_BLOCK);
}

/* n rows -> (n, width) in the codec's own basis: tq_codec_expand, by kernels. */
static void expand_rows(const tq_kernels *k, const tq_codec *codec, const uint8_t *rows, int n, float *out) {
    tq_code_run runs[TQ_MAX_RUNS];
    for (int r = 0; r < n; r++, rows += codec->row_bytes) {
        int n_runs = tq_row_runs(codec, rows, runs);
        for (int i = 0; i < n_runs; out += runs[i++].n)
            k->expand_codes(runs[i].stream, runs[i].bits, runs[i].levels, runs[i].n, runs[i].scale, runs[i].offset, out);
    }
}

/* Row codecs: f32 and f16 rows are read in place; others expand a few rows at a time into L1, in their own basis. */
static void score_rows(const page_pass *p, const uint8_t *block, int n) {
    const tq_codec *codec = p->store->key;
    worker_scratch *w = p->w;
    if (codec->kind == TQ_CODEC_F32) {
        p->k->dot_rows_f32(w->queries, p->rows, codec->width, (const float *)(const void *)block, n, codec->dim,
                           codec->dim, w->scores, KEY_BLOCK);
    } else if (codec->kind == TQ_CODEC_F16) {
        p->k->dot_rows_f16(w->queries, p->rows, codec->width, (const uint16_t *)(const void *)block, n, codec->dim,
                           codec->dim, w->scores, KEY_BLOCK);
    } else {
        for (int r = 0; r < n; r += EXPAND_ROWS) {
            int m = min_int(EXPAND_ROWS, n - r);
            expand_rows(p->k, codec, block + (size_t)r * codec->row_bytes, m, w->expanded);
            p->k->dot_rows_f32(w->queries, p->rows, codec->width, w->expanded, m, codec->width, codec->width,
                               w->scores + r, KEY_BLOCK);
        }
    }
}

static void gather_rows(const page_pass *p, const uint8_t *block, int n, attn_part *part) {
    const tq_codec *codec = p->store->value;
    worker_scratch *w = p->w;
    if (codec->kind == TQ_CODEC_F32) {
        p->k->sum_rows_f32(w->scores, p->rows, KEY_BLOCK, (const float *)(const void *)block, n, codec->dim, codec->dim,
                           part->acc, part->width);
    } else if (codec->kind == TQ_CODEC_F16) {
        p->k->sum_rows_f16(w->scores, p->rows, KEY_BLOCK, (const uint16_t *)(const void *)block, n, codec->dim,
                           codec->dim, part->acc, part->width);
    } else {
        for (int r = 0; r < n; r += EXPAND_ROWS) {
            int m = min_int(EXPAND_ROWS, n - r);
            expand_rows(p->k, codec, block + (size_t)r * codec->row_bytes, m, w->expanded);
            p->k->sum_rows_f32(w->scores + r, p->rows, KEY_BLOCK, w->expanded, m, codec->width, codec->width, part->acc,
                               part->width);
        }
    }
}

/* pos: of the page's first key.  next: the page that comes after, or NULL.  Rows of values from n on may hold anything, a
 * NaN scale too: they have no factor. */
static void attend_page(const page_pass *p, const uint8_t *page, const uint8_t *next, int pos, int n, attn_part *part) {
    tq_key_range most = seen_of(p, 0, pos, n); /* the first row sees furthest back */
    if (most.from >= most.to) return;
    const tq_kv_store *store = p->store;
    worker_scratch *w = p->w;
    bool planar_keys = store->key->kind == TQ_CODEC_PLANAR, planar_values = store->value->kind == TQ_CODEC_PLANAR;
    const uint8_t *values = page + store->value_at;
    tq_page_codes key_codes = {0}, value_codes = {0};
    float poison = 0;
    if (planar_keys) {
        key_codes = codes_of(p, TQ_KEYS, page, next, false);
        for (int row = 0; row < p->rows; row += TQ_PAGE_QUERIES)
            score_planar(p, &key_codes, page, row, min_int(TQ_PAGE_QUERIES, p->rows - row), n);
    } else {
        score_rows(p, page, n);
    }
    if (planar_values) {
        poison = p->k->page_factors(tq_block_scales(store->value, TQ_VALUES, values), n, w->factors);
        value_codes = codes_of(p, TQ_VALUES, values, next ? next + store->value_at : NULL, false);
    }
    for (int row = 0; row < p->rows; row += TQ_PAGE_QUERIES) {
        int n_q = min_int(TQ_PAGE_QUERIES, p->rows - row);
        float *scores = w->scores + row * KEY_BLOCK, *acc = part->acc + (size_t)row * (size_t)part->width;
        tq_key_range seen[TQ_PAGE_QUERIES];
        for (int i = 0; i < n_q; i++) seen[i] = seen_of(p, row + i, pos, n);
        tq_page_softmax soft;
        part_soften(p->k, part, row, n_q, scores, w->units + row, seen, p->cap, planar_values ? w->factors : NULL, &w->w_int,
                    &soft);
        if (planar_values) {
            dots_of(p, &value_codes, &w->w_int, 0, n_q);
            for (int i = 0; i < n_q; i++) w->w_int.step[i] += poison;
            p->k->page_values(w->dots, w->w_int.step, &soft, n_q, value_codes.n_tiles, acc, part->width);
        } else {
            for (int i = 0; i < n_q; i++)
                if (soft.keep[i] < 1) p->k->scale(acc + i * part->width, part->width, soft.keep[i]);
        }
    }
    if (!planar_values) gather_rows(p, values, n, part);
}

/* Pages that are attended to together. */
typedef struct page_run {
    tq_planar_page pages[RUN_PAGES];
    int n, n_seen; /* n_seen: those that rows see in part */
} page_run;

static void attend_run(const page_pass *p, page_run *run, tq_page_rows *rows) {
    if (run->n > 0) p->k->attend_pages(run->pages, run->n, rows);
    run->n = run->n_seen = 0;
}

/* A page of n keys, position pos and on, of which the first token sees `visible` and every later one sees one more; NULL: nobody sees any. */
static tq_planar_page *add_page(const page_pass *p, page_run *run, tq_page_rows *rows, int pos, int n, int visible) {
    if (seen_of(p, 0, pos, n).from >= n) return NULL; /* the first row sees furthest back */
    if (run->n == RUN_PAGES || run->n_seen == SEEN_PAGES) attend_run(p, run, rows);
    tq_planar_page *page = run->pages + run->n++;
    *page = (tq_planar_page){.dim = p->store->head_dim, .n = n};
    if (visible >= n && seen_of(p, p->rows - 1, pos, n).from == 0) return page;
    tq_key_range *seen = p->w->seen + p->rows * run->n_seen++;
    for (int row = 0; row < p->rows; row++) {
        seen[row] = seen_of(p, row, pos, n);
        seen[row].to = min_int(seen[row].to, visible + row / p->group);
    }
    page->seen = seen;
    return page;
}

/* Up to KEY_BLOCK exact rows, as f16 or f32; position and visibility as of add_page. */
typedef struct exact_block {
    const void *keys, *values;
    tq_dtype dtype;
    int stride; /* elements from one row to the next */
    int pos, n, visible;
} exact_block;

static void add_exact_page(const page_pass *p, page_run *run, tq_page_rows *rows, const exact_block *b) {
    tq_planar_page *page = add_page(p, run, rows, b->pos, b->n, b->visible);
    if (page) page->key_rows = b->keys, page->value_rows = b->values, page->row_dtype = b->dtype, page->row_stride = (size_t)b->stride;
}

/* Pages first..last-1 in runs, where in_runs says so, for scores without a cap. */
static void attend_runs(const page_pass *p, size_t head, int first, int last, tq_page_rows *rows) {
    const tq_kv_store *store = p->store;
    page_run run = {.n = 0};
    for (int i = first; i < last; i++) {
        const uint8_t *block = store->pages[i] + head, *values = block + store->value_at;
        int pos = store->n_sinks + store->n_forgotten + i * TQ_PAGE_TOKENS, n = min_int(TQ_PAGE_TOKENS, store->n_packed - i * TQ_PAGE_TOKENS);
        if (store->key->kind != TQ_CODEC_PLANAR) {
            add_exact_page(p, &run, rows, &(exact_block){block, values, store->key->kind == TQ_CODEC_F16 ? TQ_F16 : TQ_F32, store->key->dim, pos, n, n});
            continue;
        }
        tq_planar_page *page = add_page(p, &run, rows, pos, n, n);
        if (!page) continue;
        page->keys = codes_of(p, TQ_KEYS, block, NULL, true), page->values = codes_of(p, TQ_VALUES, values, NULL, true);
        page->key_scales = tq_block_scales(store->key, TQ_KEYS, block), page->centre = tq_block_centre(store->key, block);
        page->value_scales = tq_block_scales(store->value, TQ_VALUES, values);
        page->block = block, page->block_bytes = store->page_bytes;
        bool as_they_lie = page->keys.codes == block && page->values.codes == values;
        if (!as_they_lie) attend_run(p, &run, rows); /* the next page is unpacked to the same place */
    }
    attend_run(p, &run, rows);
}

/* ---- units ------------------------------------------------------------------------------------------------------- */

typedef struct unit {
    int kv_head, block;
    int first_token, rows; /* query rows: token first_token + i / group, head kv_head * group + i % group */
} unit;

static unit unit_of(const attend_job *job, int index) {
    unit u = {.kv_head = index / job->shape.n_blocks, .block = index % job->shape.n_blocks};
    u.first_token = u.block * job->shape.block_tokens;
    u.rows = min_int(job->shape.block_tokens, job->args->n - u.first_token) * job->shape.group;
    return u;
}

static size_t query_offset(const attend_job *job, const unit *u, int row) {
    const tq_attend_args *a = job->args;
    int token = u->first_token + row / job->shape.group, head = u->kv_head * job->shape.group + row % job->shape.group;
    return ((size_t)token * (size_t)a->n_heads + (size_t)head) * (size_t)a->store->head_dim;
}

static float *exact_part_of(const attend_job *job, const unit *u) {
    return job->exact_parts + (size_t)(u->kv_head * job->shape.n_blocks + u->block) * job->shape.part_floats;
}

static float *packed_part_of(const attend_job *job, const unit *u, int split) {
    size_t index = (size_t)(u->kv_head * job->shape.n_blocks + u->block) * (size_t)job->shape.n_splits + (size_t)split;
    return job->packed_parts + index * job->shape.part_floats;
}

static page_pass pass_of(const attend_job *job, const unit *u, worker_scratch *w) {
    const tq_kv_store *s = job->args->store;
    int stored = s->n_sinks + s->n_forgotten + s->n_packed + s->n_window;
    return (page_pass){job->kernels, s, w, u->rows, job->shape.group, stored + u->first_token, job->args->cap};
}

/* The unit's queries, scaled, in the basis of the pages' keys: (rows, key width).  A dense rotation meets a token's heads
 * at once.  Outlier channels are those of any page of the sequence. */
static void prepare_queries(const attend_job *job, const unit *u, worker_scratch *w) {
    const tq_attend_args *a = job->args;
    const uint8_t *key_block = a->store->pages[0] + (size_t)u->kv_head * a->store->page_bytes;
    const tq_codec *codec = a->store->key;
    const tq_kernels *k = job->kernels;
    int dim = codec->dim, width = codec->width, group = job->shape.group;
    for (int i = 0; i < u->rows; i += group) {
        const float *q = a->q + query_offset(job, u, i);
        float *prepared = w->queries + (size_t)i * (size_t)width;
        if (codec->kind == TQ_CODEC_MSE || codec->kind == TQ_CODEC_PROD) {
            k->dot_rows_f32(q, group, dim, codec->rotation.matrix, dim, dim, dim, prepared, width);
            if (codec->sketch) k->dot_rows_f32(q, group, dim, codec->sketch, dim, dim, dim, prepared + dim, width);
        } else {
            for (int h = 0; h < group; h++) tq_block_query(codec, key_block, q + h * dim, prepared + h * width);
        }
        k->scale(prepared, group * width, a->scale);
    }
    for (int i = 0; i < u->rows; i++) {
        w->units[i] = 1;
        if (codec->kind != TQ_CODEC_PLANAR) continue;
        k->to_int(w->queries + (size_t)i * (size_t)width, dim, &w->q_int, i);
        w->units[i] = w->q_int.step[i] * (1.0f / 127);
        if (w->units[i] < FLT_MIN) w->units[i] = FLT_MIN; /* a query of nothing */
    }
}

/* acc (value width), in the basis of the pages' values -> x (dim). */
static void output_row(const tq_kernels *k, const tq_codec *codec, const uint8_t *value_block, const float *acc,
                       float *x) {
    int dim = codec->dim;
    if (codec->kind != TQ_CODEC_MSE && codec->kind != TQ_CODEC_PROD) {
        tq_block_output(codec, value_block, acc, x);
        return;
    }
    memset(x, 0, (size_t)dim * sizeof *x);
    k->sum_rows_f32(acc, 1, dim, codec->rotation.matrix, dim, dim, dim, x, dim);
    if (codec->sketch) k->sum_rows_f32(acc + dim, 1, dim, codec->sketch, dim, dim, dim, x, dim);
}

static float *queries_of(const attend_job *job, const unit *u) {
    return job->queries + (size_t)(u->kv_head * job->shape.n_blocks + u->block) * job->shape.query_floats;
}

/* The unit's rows on their way over pages. */
static tq_page_rows rows_of(const attend_job *job, const unit *u, const worker_scratch *w, const attn_part *part) {
    return (tq_page_rows){.n = u->rows, .dim = job->args->store->head_dim, .bf16 = job->bf16, .q = w->queries, .q_int = w->q_int, .max = part->max,
                          .sum = part->sum, .acc = part->acc, .scratch = w->page_rows};
}

static void attend_packed(const attend_job *job, const unit *u, int split, worker_scratch *w) {
    const tq_attend_args *a = job->args;
    const tq_kv_store *store = a->store;
    if (job->shape.n_splits > 1) {
        float *at = queries_of(job, u);
        lay_out_queries(&job->shape, &at, w);
    } else {
        prepare_queries(job, u, w);
    }
    attn_part part = part_at(packed_part_of(job, u, split), u->rows, store->value->width);
    part_clear(&part, u->rows);
    page_pass pass = pass_of(job, u, w);
    int last = min_int((split + 1) * job->shape.split_pages, job->n_pages);
    size_t head = (size_t)u->kv_head * store->page_bytes;
    if (in_runs(job->kernels, store->key, store->value, job->bf16) && a->cap <= 0) {
        tq_page_rows rows = rows_of(job, u, w, &part);
        job->kernels->begin_pages(&rows);
        attend_runs(&pass, head, split * job->shape.split_pages, last, &rows);
        job->kernels->end_pages(&rows);
        return;
    }
    for (int p = split * job->shape.split_pages; p < last; p++) {
        const uint8_t *page = store->pages[p] + head, *next = p + 1 < job->n_pages ? store->pages[p + 1] + head : NULL;
        int pos = store->n_sinks + store->n_forgotten + p * TQ_PAGE_TOKENS;
        int n = min_int(TQ_PAGE_TOKENS, store->n_packed - p * TQ_PAGE_TOKENS);
        attend_page(&pass, page, next, pos, n, &part);
    }
}

/* Scores of exact keys -> weights, and what was gathered before scaled to them.  visible: how many of these the first
 * token sees; every later one sees one more. */
static void soften_exact(const page_pass *p, attn_part *part, int pos, int n, int visible) {
    worker_scratch *w = p->w;
    for (int row = 0; row < p->rows; row += TQ_PAGE_QUERIES) {
        int n_q = min_int(TQ_PAGE_QUERIES, p->rows - row);
        tq_key_range seen[TQ_PAGE_QUERIES];
        for (int i = 0; i < n_q; i++) {
            seen[i] = seen_of(p, row + i, pos, n);
            seen[i].to = min_int(seen[i].to, visible + (row + i) / p->group);
        }
        tq_page_softmax soft;
        part_soften(p->k, part, row, n_q, w->scores + row * KEY_BLOCK, w->units + row, seen, p->cap, NULL, NULL, &soft);
        for (int i = 0; i < n_q; i++)
            if (soft.keep[i] < 1)
                p->k->scale(part->acc + (size_t)(row + i) * (size_t)part->width, part->width, soft.keep[i]);
    }
}

/* Block `index` of the exact rows: sinks and window in f16, then the chunk in f32.  false: there is none. */
static bool exact_block_of(const attend_job *job, const unit *u, int index, exact_block *b) {
    const tq_attend_args *a = job->args;
    const tq_kv_store *s = a->store;
    int dim = s->head_dim, n_stored = s->n_sinks + s->n_window, stored_blocks = ceil_div(n_stored, KEY_BLOCK);
    int chunk_pos = n_stored + s->n_forgotten + s->n_packed, n_visible = u->first_token + u->rows / job->shape.group; /* of the chunk */
    if (index < stored_blocks) {
        int r = index * KEY_BLOCK, n = min_int(KEY_BLOCK, n_stored - r);
        size_t at = ((size_t)u->kv_head * (size_t)s->exact_cap + (size_t)r) * (size_t)dim;
        *b = (exact_block){s->exact_k + at, s->exact_v + at, TQ_F16, dim, chunk_pos - n_stored + r, n, n}; /* positions are read where there are no sinks */
        return true;
    }
    int r = (index - stored_blocks) * KEY_BLOCK, stride = s->n_kv_heads * dim;
    if (r >= n_visible) return false;
    size_t at = (size_t)r * (size_t)stride + (size_t)u->kv_head * (size_t)dim;
    *b = (exact_block){a->k + at, a->v + at, TQ_F32, stride, chunk_pos + r, min_int(KEY_BLOCK, n_visible - r), u->first_token + 1 - r};
    return true;
}

/* By floats. */
static void attend_block(const page_pass *p, const exact_block *b, attn_part *part) {
    if (seen_of(p, 0, b->pos, b->n).from >= b->n) return;
    const tq_kernels *k = p->k;
    int rows = p->rows, dim = p->store->head_dim;
    float *scores = p->w->scores;
    if (b->dtype == TQ_F16) k->dot_rows_f16(p->w->queries, rows, dim, b->keys, b->n, b->stride, dim, scores, KEY_BLOCK);
    else k->dot_rows_f32(p->w->queries, rows, dim, b->keys, b->n, b->stride, dim, scores, KEY_BLOCK);
    soften_exact(p, part, b->pos, b->n, b->visible);
    if (b->dtype == TQ_F16) k->sum_rows_f16(scores, rows, KEY_BLOCK, b->values, b->n, b->stride, dim, part->acc, dim);
    else k->sum_rows_f32(scores, rows, KEY_BLOCK, b->values, b->n, b->stride, dim, part->acc, dim);
}

/* Sinks and window, then the chunk, causally. */
static void attend_exact(const attend_job *job, const unit *u, worker_scratch *w) {
    const tq_attend_args *a = job->args;
    int dim = a->store->head_dim, rows = u->rows;
    for (int i = 0; i < rows; i++) {
        memcpy(w->queries + i * dim, a->q + query_offset(job, u, i), (size_t)dim * sizeof(float));
        job->kernels->scale(w->queries + i * dim, dim, a->scale);
        w->units[i] = 1;
    }
    attn_part part = part_at(exact_part_of(job, u), rows, dim);
    part_clear(&part, rows);
    page_pass pass = pass_of(job, u, w);
    exact_block b;
    if (!job->bf16 || a->cap > 0 || !fits_page(dim)) {
        for (int i = 0; exact_block_of(job, u, i, &b); i++) attend_block(&pass, &b, &part);
        return;
    }
    page_run run = {.n = 0};
    tq_page_rows page_rows = rows_of(job, u, w, &part);
    job->kernels->begin_pages(&page_rows);
    for (int i = 0; exact_block_of(job, u, i, &b); i++) add_exact_page(&pass, &run, &page_rows, &b);
    attend_run(&pass, &run, &page_rows);
    job->kernels->end_pages(&page_rows);
}

static void attend_task(void *ctx, int task, int worker) {
    const attend_job *job = ctx;
    worker_scratch w = lay_out(&job->shape, job->workers + (size_t)worker * job->shape.worker_floats);
    int per_unit = job->shape.n_splits + 1;
    unit u = unit_of(job, task / per_unit);
    if (task % per_unit < job->shape.n_splits) attend_packed(job, &u, task % per_unit, &w);
    else attend_exact(job, &u, &w);
}

/* A learned sink: a score that takes its share of the softmax and brings no value. */
static void part_add_sink(const tq_kernels *k, attn_part part, float logit) {
    if (logit > *part.max) {
        float shrink = *part.max == -INFINITY ? 0.0f : expf(*part.max - logit);
        k->scale(part.acc, part.width, shrink);
        *part.sum *= shrink;
        *part.max = logit;
    }
    *part.sum += expf(logit - *part.max);
}

/* All parts of a block -> out. */
static void merge_task(void *ctx, int task, int worker) {
    const attend_job *job = ctx;
    const tq_attend_args *a = job->args;
    const tq_codec *value = a->store->value;
    const tq_kernels *k = job->kernels;
    worker_scratch w = lay_out(&job->shape, job->workers + (size_t)worker * job->shape.worker_floats);
    unit u = unit_of(job, task);
    attn_part exact = part_at(exact_part_of(job, &u), u.rows, a->store->head_dim);
    for (int i = 0; i < u.rows; i++) {
        attn_part whole = row_of(&exact, i);
        if (job->shape.n_splits > 0) {
            attn_part first = part_at(packed_part_of(job, &u, 0), u.rows, value->width), packed = row_of(&first, i);
            for (int s = 1; s < job->shape.n_splits; s++) {
                attn_part more = part_at(packed_part_of(job, &u, s), u.rows, value->width);
                part_merge(k, packed, row_of(&more, i));
            }
            /* back from the codec's basis; max and sum are the same in any basis */
            const uint8_t *page = a->store->pages[0] + (size_t)u.kv_head * a->store->page_bytes;
            output_row(k, value, page + a->store->value_at, packed.acc, w.expanded);
            part_merge(k, whole, (attn_part){packed.max, packed.sum, w.expanded, whole.width});
        }
        if (a->sink_logits) part_add_sink(k, whole, a->sink_logits[u.kv_head * job->shape.group + i % job->shape.group]);
        float *out = a->out + query_offset(job, &u, i);
        memcpy(out, whole.acc, (size_t)whole.width * sizeof(float));
        k->scale(out, whole.width, 1.0f / *whole.sum); /* the chunk's own key is always visible: sum > 0 */
    }
}

void tq_cpu_attend(tq_backend *backend, const tq_attend_args *args) {
    tq_cpu_backend *c = (tq_cpu_backend *)backend;
    const tq_kv_store *store = args->store;
    attend_job job = {.kernels = c->kernels, .args = args, .n_pages = ceil_div(store->n_packed, TQ_PAGE_TOKENS), .bf16 = attends_in_bf16(c, args->n)};
    job.shape = shape_of(c, store->key, store->value, args->n_heads, store->n_kv_heads, args->n, job.n_pages);
    int units = store->n_kv_heads * job.shape.n_blocks;
    job.workers = args->scratch;
    job.exact_parts = job.workers + (size_t)backend->n_threads * job.shape.worker_floats;
    job.packed_parts = job.exact_parts + (size_t)units * job.shape.part_floats;
    job.queries = job.packed_parts + (size_t)units * (size_t)job.shape.n_splits * job.shape.part_floats;
    for (int i = 0; job.shape.n_splits > 1 && i < units; i++) { /* few tokens: not worth waking anybody */
        unit u = unit_of(&job, i);
        float *at = queries_of(&job, &u);
        worker_scratch w = {0};
        lay_out_queries(&job.shape, &at, &w);
        prepare_queries(&job, &u, &w);
    }
    tq_pool_run_shares(c->pool, attend_task, &job, units * (job.shape.n_splits + 1));
    tq_pool_run(c->pool, merge_task, &job, units);
}
