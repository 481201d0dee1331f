/* template_value.c: memory of a render, strings with origins, lists and dicts.
 * Not here: what Python does with values (template_python.c), JSON (template_json.c). */
#include "text/template_value.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory ---- */

struct tq_arena_block {
    struct tq_arena_block *next;
    size_t used, cap;
    max_align_t data[];
};

tq_status tq_arena_alloc(tq_arena *arena, size_t bytes, void *out_pointer, tq_error *err) {
    enum { usual = 16 << 10 };
    const size_t unit = sizeof(max_align_t);
    void *memory = NULL;
    memcpy(out_pointer, &memory, sizeof memory);
    struct tq_arena_block *block = arena->blocks;
    if (bytes > arena->limit) return tq_fail(err, TQ_INVALID, "the template needs more than its memory limit");
    bytes = bytes ? (bytes + unit - 1) / unit * unit : unit;
    if (!block || block->cap - block->used < bytes) {
        size_t cap = bytes > usual ? bytes : usual;
        if (arena->total + cap > arena->limit) {
            return tq_fail(err, TQ_INVALID, "the template needs more than %zu MiB", arena->limit >> 20);
        }
        block = calloc(1, sizeof *block + cap);
        if (!block) return tq_fail_memory(err, cap, "a template");
        block->cap = cap;
        arena->total += cap;
        if (arena->blocks && cap > usual) { /* a large one of its own: the current one stays in use */
            block->next = arena->blocks->next;
            arena->blocks->next = block;
        } else {
            block->next = arena->blocks;
            arena->blocks = block;
        }
    }
    memory = (char *)block->data + block->used;
    block->used += bytes;
    memcpy(out_pointer, &memory, sizeof memory);
    return TQ_OK;
}

void tq_arena_free(tq_arena *arena) {
    while (arena->blocks) {
        struct tq_arena_block *next = arena->blocks->next;
        free(arena->blocks);
        arena->blocks = next;
    }
    arena->total = 0;
}

tq_status tq_render_fail(tq_render *r, tq_status code, const char *format, ...) {
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    for (char *p = text; *p; p++) {
        if ((unsigned char)*p < 0x20) *p = ' '; /* an error is one line */
    }
    return tq_fail(r->err, code, "template line %d: %s", r->line, text);
}

tq_status tq_render_charge(tq_render *r, size_t n) {
    if (n >= r->steps_left) {
        r->steps_left = 0;
        return tq_render_fail(r, TQ_INVALID, "the template runs too long");
    }
    r->steps_left -= n;
    return TQ_OK;
}

/* ---- strings ---- */

size_t tq_utf8_width(char first) {
    uint8_t c = (uint8_t)first;
    return c < 0xc0 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

uint32_t tq_utf8_decode(const char *at) {
    const uint8_t *p = (const uint8_t *)at;
    switch (tq_utf8_width(*at)) {
    case 1: return p[0];
    case 2: return (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu);
    case 3: return (p[0] & 0xfu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
    default: return (p[0] & 7u) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu);
    }
}

size_t tq_utf8_encode(uint32_t c, char dst[4]) {
    if (c < 0x80) {
        dst[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        dst[0] = (char)(0xc0 | c >> 6), dst[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        dst[0] = (char)(0xe0 | c >> 12), dst[1] = (char)(0x80 | (c >> 6 & 0x3f)), dst[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    dst[0] = (char)(0xf0 | c >> 18), dst[1] = (char)(0x80 | (c >> 12 & 0x3f));
    dst[2] = (char)(0x80 | (c >> 6 & 0x3f)), dst[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

bool tq_tv_is_space(uint32_t c) {
    return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static size_t count_characters(const char *bytes, size_t n) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++) count += ((uint8_t)bytes[i] & 0xc0) != 0x80;
    return count;
}

tq_status tq_tv_str_new(tq_render *r, const char *bytes, size_t n, bool from_template, bool copy,
                        const tq_tv_str **out) {
    tq_tv_str *s;
    TQ_TRY(TQ_NEW(r, 1, &s));
    *s = (tq_tv_str){.bytes = bytes, .n = n, .n_chars = count_characters(bytes, n), .from_template = from_template};
    if (copy && n) {
        char *kept;
        TQ_TRY(TQ_NEW(r, n, &kept));
        memcpy(kept, bytes, n);
        s->bytes = kept;
    }
    *out = s;
    return TQ_OK;
}

bool tq_tv_str_is(const tq_tv_str *s, const char *text) {
    return s->n == strlen(text) && memcmp(s->bytes, text, s->n) == 0;
}

size_t tq_tv_str_offset(const tq_tv_str *s, size_t index) {
    if (s->n == s->n_chars) return index;
    size_t at = 0;
    while (index-- && at < s->n) at += tq_utf8_width(s->bytes[at]);
    return at < s->n ? at : s->n;
}

tq_status tq_tv_str_part(tq_render *r, const tq_tv_str *s, size_t from, size_t to, const tq_tv_str **out) {
    if (from == 0 && to == s->n) {
        *out = s;
        return TQ_OK;
    }
    if (!s->runs) return tq_tv_str_new(r, s->bytes + from, to - from, s->from_template, false, out);
    tq_tv_builder b = {0};
    tq_tv value;
    TQ_TRY(tq_tv_put_part(r, &b, s, from, to));
    TQ_TRY(tq_tv_finish(r, &b, &value));
    *out = value.as.s;
    return TQ_OK;
}

tq_status tq_tv_put(tq_render *r, tq_tv_builder *b, const char *bytes, size_t n, bool from_template) {
    if (n == 0) return TQ_OK;
    if (n > r->string_cap - b->n) {
        return tq_render_fail(r, TQ_INVALID, "a text longer than %zu MiB", r->string_cap >> 20);
    }
    if (n > b->cap - b->n) {
        size_t cap = b->cap * 2 > b->n + n ? b->cap * 2 : b->n + n + 64;
        char *wider;
        TQ_TRY(TQ_NEW(r, cap, &wider));
        if (b->n) memcpy(wider, b->bytes, b->n);
        b->bytes = wider, b->cap = cap;
    }
    memcpy(b->bytes + b->n, bytes, n);
    b->n += n;
    TQ_TRY(tq_render_charge(r, n / 64));
    if (b->n_runs && b->runs[b->n_runs - 1].from_template == from_template) {
        b->runs[b->n_runs - 1].end = b->n;
        return TQ_OK;
    }
    if (b->n_runs == b->runs_cap) {
        size_t cap = b->runs_cap ? b->runs_cap * 2 : 4;
        tq_tv_run *wider;
        TQ_TRY(TQ_NEW(r, cap, &wider));
        if (b->n_runs) memcpy(wider, b->runs, b->n_runs * sizeof *wider);
        b->runs = wider, b->runs_cap = cap;
    }
    b->runs[b->n_runs++] = (tq_tv_run){b->n, from_template};
    return TQ_OK;
}

tq_status tq_tv_put_part(tq_render *r, tq_tv_builder *b, const tq_tv_str *s, size_t from, size_t to) {
    if (from >= to) return TQ_OK;
    if (!s->runs) return tq_tv_put(r, b, s->bytes + from, to - from, s->from_template);
    size_t low = 0, high = s->n_runs; /* the run that holds `from` */
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (s->runs[middle].end <= from) low = middle + 1;
        else high = middle;
    }
    for (size_t i = low; from < to; i++) {
        size_t end = s->runs[i].end < to ? s->runs[i].end : to;
        TQ_TRY(tq_tv_put(r, b, s->bytes + from, end - from, s->runs[i].from_template));
        from = end;
    }
    return TQ_OK;
}

tq_status tq_tv_put_str(tq_render *r, tq_tv_builder *b, const tq_tv_str *s) { return tq_tv_put_part(r, b, s, 0, s->n); }

tq_status tq_tv_finish(tq_render *r, const tq_tv_builder *b, tq_tv *out) {
    tq_tv_str *s;
    TQ_TRY(TQ_NEW(r, 1, &s));
    const char *bytes = b->bytes ? b->bytes : "";
    *s = (tq_tv_str){.bytes = bytes, .n = b->n, .n_chars = count_characters(bytes, b->n)};
    if (b->n_runs > 1) {
        tq_tv_run *runs; /* a copy: the builder's own last run grows if it goes on */
        TQ_TRY(TQ_NEW(r, b->n_runs, &runs));
        memcpy(runs, b->runs, b->n_runs * sizeof *runs);
        s->runs = runs, s->n_runs = b->n_runs;
    } else if (b->n_runs) {
        s->from_template = b->runs[0].from_template;
    } else {
        s->from_template = true;
    }
    *out = tq_tv_string(s);
    return TQ_OK;
}

/* ---- lists and dicts ---- */

tq_status tq_tv_list_new(tq_render *r, tq_tv_list_kind kind, tq_tv_list **out) {
    TQ_TRY(TQ_NEW(r, 1, out));
    (*out)->kind = kind;
    return TQ_OK;
}

tq_status tq_tv_list_add(tq_render *r, tq_tv_list *list, tq_tv item) {
    if (list->n == list->cap) {
        size_t cap = list->cap ? list->cap * 2 : 4;
        tq_tv *wider;
        TQ_TRY(TQ_NEW(r, cap, &wider));
        if (list->n) memcpy(wider, list->items, list->n * sizeof *wider);
        list->items = wider, list->cap = cap;
    }
    list->items[list->n++] = item;
    return TQ_OK;
}

tq_tv tq_tv_of_list(tq_tv_list *list) { return (tq_tv){.type = TQ_TV_LIST, .as.list = list}; }

tq_status tq_tv_dict_new(tq_render *r, tq_tv_dict **out) { return TQ_NEW(r, 1, out); }

/* Keys are those that Python can hash; 1, 1.0 and True are one key. */
static bool same_key(tq_tv a, tq_tv b) {
    if (a.type == TQ_TV_STR || b.type == TQ_TV_STR) {
        return a.type == b.type && a.as.s->n == b.as.s->n && !memcmp(a.as.s->bytes, b.as.s->bytes, a.as.s->n);
    }
    if (tq_tv_is_number(a) && tq_tv_is_number(b)) {
        double x = a.type == TQ_TV_FLOAT ? a.as.f : a.type == TQ_TV_INT ? (double)a.as.i : a.as.b;
        double y = b.type == TQ_TV_FLOAT ? b.as.f : b.type == TQ_TV_INT ? (double)b.as.i : b.as.b;
        return x == y && (a.type != TQ_TV_INT || b.type != TQ_TV_INT || a.as.i == b.as.i);
    }
    if (a.type == TQ_TV_LIST && b.type == TQ_TV_LIST && a.as.list->n == b.as.list->n) {
        for (size_t i = 0; i < a.as.list->n; i++) {
            if (!same_key(a.as.list->items[i], b.as.list->items[i])) return false;
        }
        return true;
    }
    return a.type == b.type && a.type == TQ_TV_NONE;
}

static tq_status check_key(tq_render *r, tq_tv key, int depth) {
    bool tuple = key.type == TQ_TV_LIST && key.as.list->kind == TQ_TV_TUPLE && depth < 8;
    if (tuple) {
        for (size_t i = 0; i < key.as.list->n; i++) TQ_TRY(check_key(r, key.as.list->items[i], depth + 1));
        return TQ_OK;
    }
    if (key.type == TQ_TV_STR || key.type == TQ_TV_NONE || tq_tv_is_number(key)) return TQ_OK;
    return tq_render_fail(r, TQ_INVALID, "unhashable type: '%s'", tq_tv_type_name(key));
}

static tq_tv *find_key(const tq_tv_dict *dict, tq_tv key) {
    for (size_t i = 0; i < dict->n; i++) {
        if (same_key(dict->keys[i], key)) return &dict->values[i];
    }
    return NULL;
}

tq_status tq_tv_dict_set(tq_render *r, tq_tv_dict *dict, tq_tv key, tq_tv value) {
    TQ_TRY(check_key(r, key, 0));
    TQ_TRY(tq_render_charge(r, dict->n / 64));
    tq_tv *known = find_key(dict, key);
    if (known) {
        *known = value;
        return TQ_OK;
    }
    if (dict->n == dict->cap) {
        size_t cap = dict->cap ? dict->cap * 2 : 4;
        tq_tv *keys, *values;
        TQ_TRY(TQ_NEW(r, cap, &keys));
        TQ_TRY(TQ_NEW(r, cap, &values));
        if (dict->n) memcpy(keys, dict->keys, dict->n * sizeof *keys);
        if (dict->n) memcpy(values, dict->values, dict->n * sizeof *values);
        dict->keys = keys, dict->values = values, dict->cap = cap;
    }
    dict->keys[dict->n] = key;
    dict->values[dict->n++] = value;
    return TQ_OK;
}

const tq_tv *tq_tv_dict_get(const tq_tv_dict *dict, tq_tv key) { return find_key(dict, key); }

const tq_tv *tq_tv_dict_find(const tq_tv_dict *dict, const char *key) {
    tq_tv_str name = {.bytes = key, .n = strlen(key)};
    return find_key(dict, tq_tv_string(&name));
}
