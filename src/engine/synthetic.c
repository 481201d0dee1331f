/* synthetic.c: see synthetic.h.
 * Owns: the random weights and where they lie.  Not here: the shapes (synthetic_shapes.c), what a family's tensors mean
 * (model/).
 *
 * The image: length, header, then regions, which begin on pages: the codes; scales and biases by the width of their
 * matrices (on which their size depends); everything else.  A region that repeats is one file in memory, mapped over and
 * over.  Scales and biases of a width lie alike in their regions and repeat alike, so that they stay together. */
#define _GNU_SOURCE
#include "engine/synthetic.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/half.h"
#include "base/rng.h"
#include "engine/plan.h"
#include "engine/synthetic_shapes.h"

#define PREFIX "synthetic:"

enum { PAGE = 4096, REGIONS_MAX = 32, SCALE_PART = 16 /* codes take 16 times the bytes of scales */ };

typedef tq_synthetic_tensor tensor;

typedef struct region {
    tq_synthetic_kind kind;
    int64_t cols; /* 0: of any width */
    size_t start, bytes, made; /* made: bytes after which it repeats */
} region;

typedef struct layout {
    const tq_shape *shape;
    tq_synthetic_tensors list;
    region regions[REGIONS_MAX];
    int n_regions;
    size_t header, bytes, made; /* of the file; that are made */
    char *text;                 /* the header */
} layout;

static size_t up(size_t bytes) { return (bytes + PAGE - 1) / PAGE * PAGE; }
static bool is_vector(tq_synthetic_kind kind) { return kind >= TQ_SYNTHETIC_NORM; }

/* ---- where everything lies ------------------------------------------------------------------------------------------- */

static region *region_of(layout *l, const tensor *t) {
    tq_synthetic_kind kind = is_vector(t->kind) ? TQ_SYNTHETIC_NORM : t->kind;
    int64_t cols = t->kind == TQ_SYNTHETIC_SCALES || t->kind == TQ_SYNTHETIC_BIASES ? t->cols : 0;
    for (int i = 0; i < l->n_regions; i++)
        if (l->regions[i].kind == kind && l->regions[i].cols == cols) return &l->regions[i];
    if (l->n_regions == REGIONS_MAX) return NULL;
    l->regions[l->n_regions] = (region){.kind = kind, .cols = cols};
    return &l->regions[l->n_regions++];
}

static tq_status place_tensors(layout *l, tq_error *err) {
    for (size_t i = 0; i < l->list.n; i++) {
        region *r = region_of(l, &l->list.at[i]);
        if (!r) return tq_fail(err, TQ_UNSUPPORTED, PREFIX "%s: matrices of more than %d kinds", l->shape->name, REGIONS_MAX);
        l->list.at[i].offset = r->bytes;
        r->bytes += (l->list.at[i].bytes + 63) / 64 * 64;
    }
    size_t at = 0;
    for (int i = 0; i < l->n_regions; i++) {
        region *r = &l->regions[i];
        size_t repeat = up(((size_t)l->shape->repeat_mb << 20) / (r->kind == TQ_SYNTHETIC_CODES ? 1 : SCALE_PART));
        r->start = at;
        r->made = is_vector(r->kind) || !repeat || repeat > r->bytes ? up(r->bytes) : repeat;
        at += up(r->bytes);
        l->made += r->made;
    }
    for (size_t i = 0; i < l->list.n; i++) l->list.at[i].offset += region_of(l, &l->list.at[i])->start;
    l->bytes = at;
    return TQ_OK;
}

static json_t *describe_tensor(const tensor *t) {
    json_t *shape = json_array();
    for (int i = 0; i < t->n_dims; i++) json_array_append_new(shape, json_integer(t->shape[i]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", t->kind == TQ_SYNTHETIC_CODES ? "U32" : "BF16", "shape", shape, "data_offsets",
                     (json_int_t)t->offset, (json_int_t)(t->offset + t->bytes));
}

/* The header as text; data follow it on a page of their own. */
static tq_status make_header(layout *l, tq_error *err) {
    json_t *header = json_object();
    bool ok = header != NULL;
    for (size_t i = 0; ok && i < l->list.n; i++)
        ok = json_object_set_new(header, l->list.at[i].name, describe_tensor(&l->list.at[i])) == 0;
    l->text = ok ? json_dumps(header, JSON_COMPACT) : NULL;
    json_decref(header);
    if (!l->text) return tq_fail_memory(err, l->list.n * 128, "a synthetic model's header");
    l->header = up(8 + strlen(l->text));
    l->bytes += l->header;
    l->made += l->header;
    return TQ_OK;
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

/* Codes are uniform on 0..15 (standard deviation 4.61), so with these scales a matrix keeps the size of what it maps.
 * Scales and biases of a width come from the same seed: they belong together. */
static void fill_region(const layout *l, const region *r, uint8_t *data) {
    tq_rng rng = {.state = 0x9e3779b97f4a7c15u ^ (uint64_t)l->shape->hidden ^ (uint64_t)r->cols << 20};
    uint16_t *half = (uint16_t *)(void *)data;
    float scale = r->cols ? 1.0f / (4.61f * sqrtf((float)r->cols)) : 0;
    for (size_t i = 0; r->kind == TQ_SYNTHETIC_CODES && i < r->made; i += 8) {
        uint64_t word = tq_rng_u64(&rng);
        memcpy(data + i, &word, sizeof word);
    }
    for (size_t i = 0; r->cols && i < r->made / 2; i++) {
        float own = tq_bf16_f32(tq_f32_bf16(scale * (float)(0.75 + 0.5 * tq_rng_uniform(&rng))));
        half[i] = tq_f32_bf16(r->kind == TQ_SYNTHETIC_SCALES ? own : -7.5f * own);
    }
}

static void fill_vector(const tensor *t, uint8_t *data) {
    tq_rng rng = {0};
    for (const char *c = t->name; *c; c++) rng.state = (rng.state ^ (uint8_t)*c) * 0x100000001b3u;
    uint16_t *half = (uint16_t *)(void *)data;
    for (size_t i = 0; i < t->bytes / 2; i++) {
        double u = tq_rng_uniform(&rng);
        double value = t->kind == TQ_SYNTHETIC_NORM ? 1 : t->kind == TQ_SYNTHETIC_DECAY ? log(1 + 15 * u) : 2 * u - 1;
        half[i] = tq_f32_bf16((float)value);
    }
}

/* ---- the image ----------------------------------------------------------------------------------------------------- */

/* A region that repeats: its part as a file in memory, mapped from its beginning until the region is full. */
static bool map_repeated(const layout *l, const region *r, uint8_t *to) {
    int fd = memfd_create("synthetic", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)r->made) != 0) {
        if (fd >= 0) close(fd);
        return false;
    }
    void *part = mmap(NULL, r->made, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    bool good = part != MAP_FAILED;
    if (good) {
        fill_region(l, r, part);
        munmap(part, r->made);
    }
    for (size_t at = 0; good && at < up(r->bytes); at += r->made) {
        size_t n = up(r->bytes) - at < r->made ? up(r->bytes) - at : r->made;
        good = mmap(to + at, n, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED;
    }
    close(fd);
    return good;
}

static tq_status fill_image(const layout *l, uint8_t *data, tq_error *err) {
    uint64_t header_bytes = l->header - 8;
    memcpy(data, &header_bytes, 8);
    memset(data + 8, ' ', l->header - 8);
    memcpy(data + 8, l->text, strlen(l->text));
    for (int i = 0; i < l->n_regions; i++) {
        const region *r = &l->regions[i];
        uint8_t *to = data + l->header + r->start;
        if (r->made >= r->bytes) fill_region(l, r, to);
        else if (!map_repeated(l, r, to)) return tq_fail_memory(err, r->made, "a synthetic model's weights");
    }
    for (size_t i = 0; i < l->list.n; i++)
        if (is_vector(l->list.at[i].kind)) fill_vector(&l->list.at[i], data + l->header + l->list.at[i].offset);
    return TQ_OK;
}

static tq_status make_image(layout *l, int64_t memory_limit, tq_synthetic *out, tq_error *err) {
    char what[80];
    snprintf(what, sizeof what, "the weights of " PREFIX "%s", l->shape->name);
    TQ_TRY(place_tensors(l, err));
    TQ_TRY(make_header(l, err));
    TQ_TRY(tq_plan_check_bytes(memory_limit, (int64_t)l->made, what, err));
    void *data = mmap(NULL, l->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED) return tq_fail_memory(err, l->bytes, what);
    if (!l->shape->repeat_mb) madvise(data, l->bytes, MADV_HUGEPAGE); /* a file has small pages; random access is not what limits */
    out->image = (tq_file_map){.data = data, .bytes = l->bytes};
    TQ_TRY(fill_image(l, data, err));
    mprotect(data, l->bytes, PROT_READ);
    out->bytes = (int64_t)l->made;
    out->repeated = l->made < l->bytes;
    return TQ_OK;
}

bool tq_synthetic_names(const char *path) { return strncmp(path, PREFIX, strlen(PREFIX)) == 0; }

tq_status tq_synthetic_make(const char *path, int64_t memory_limit, tq_synthetic *out, tq_error *err) {
    layout l = {0};
    *out = (tq_synthetic){0};
    TQ_TRY(tq_shape_find(path + strlen(PREFIX), &l.shape, err));
    tq_status status = tq_shape_tensors(l.shape, &l.list) ? TQ_OK : tq_fail_memory(err, l.list.cap * sizeof *l.list.at, "a list of tensors");
    if (status == TQ_OK) status = make_image(&l, memory_limit, out, err);
    if (status == TQ_OK && !(out->config = tq_shape_config(l.shape))) status = tq_fail_memory(err, 1024, "a synthetic model's config");
    if (status != TQ_OK) tq_file_map_close(&out->image);
    free(l.list.at);
    free(l.text);
    return status;
}
