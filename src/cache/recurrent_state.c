/* recurrent_state.c: see recurrent_state.h. */
#include "cache/recurrent_state.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"

typedef struct state_head {
    char magic[8];
    uint64_t n_layers, layer_floats;
} state_head;

static const char MAGIC[8] = "TQSTATE\n";

tq_status tq_recurrent_state_init(tq_recurrent_state *s, int n_layers, size_t layer_floats, tq_error *err) {
    *s = (tq_recurrent_state){.n_layers = n_layers, .layer_floats = (layer_floats + 15) / 16 * 16};
    if (n_layers == 0) return TQ_OK;
    size_t bytes = tq_recurrent_state_bytes(s);
    s->floats = aligned_alloc(64, bytes);
    if (!s->floats) return tq_fail_memory(err, bytes, "the recurrent state");
    tq_recurrent_state_clear(s);
    return TQ_OK;
}

void tq_recurrent_state_destroy(tq_recurrent_state *s) {
    free(s->floats);
    *s = (tq_recurrent_state){0};
}

size_t tq_recurrent_state_bytes(const tq_recurrent_state *s) {
    return (size_t)s->n_layers * s->layer_floats * sizeof(float);
}

void tq_recurrent_state_clear(tq_recurrent_state *s) {
    if (s->floats) memset(s->floats, 0, tq_recurrent_state_bytes(s));
}

void tq_recurrent_state_copy(tq_recurrent_state *to, const tq_recurrent_state *from) {
    if (from->floats) memcpy(to->floats, from->floats, tq_recurrent_state_bytes(from));
}

static state_head head_of(const tq_recurrent_state *s) {
    state_head head = {.n_layers = (uint64_t)s->n_layers, .layer_floats = s->layer_floats};
    memcpy(head.magic, MAGIC, sizeof MAGIC);
    return head;
}

static uint64_t checksum_of(const tq_recurrent_state *s, const state_head *head) {
    uint64_t sum = tq_checksum(TQ_CHECKSUM_START, head, sizeof *head);
    return s->floats ? tq_checksum(sum, s->floats, tq_recurrent_state_bytes(s)) : sum;
}

tq_status tq_recurrent_state_write(const tq_recurrent_state *s, FILE *to, const char *label, tq_error *err) {
    state_head head = head_of(s);
    uint64_t sum = checksum_of(s, &head);
    size_t n = (size_t)s->n_layers * s->layer_floats;
    if (fwrite(&head, sizeof head, 1, to) != 1 || (n && fwrite(s->floats, sizeof(float), n, to) != n) ||
        fwrite(&sum, sizeof sum, 1, to) != 1)
        return tq_fail(err, TQ_IO, "%s: %s", label, strerror(errno));
    return TQ_OK;
}

tq_status tq_recurrent_state_read(tq_recurrent_state *s, FILE *from, const char *label, tq_error *err) {
    state_head want = head_of(s), head;
    size_t n = (size_t)s->n_layers * s->layer_floats;
    uint64_t sum;
    tq_recurrent_state_clear(s);
    if (fread(&head, sizeof head, 1, from) != 1 || memcmp(head.magic, MAGIC, sizeof MAGIC) != 0)
        return tq_fail(err, TQ_FORMAT, "%s: want a recurrent state, the file has none", label);
    if (memcmp(&head, &want, sizeof head) != 0)
        return tq_fail(err, TQ_INVALID, "%s: recurrent state: want %llu layers of %llu floats, the file has %llu of %llu",
                       label, (unsigned long long)want.n_layers, (unsigned long long)want.layer_floats,
                       (unsigned long long)head.n_layers, (unsigned long long)head.layer_floats);
    bool whole = (!n || fread(s->floats, sizeof(float), n, from) == n) && fread(&sum, sizeof sum, 1, from) == 1;
    if (whole && sum == checksum_of(s, &head)) return TQ_OK;
    tq_recurrent_state_clear(s);
    if (!whole) return tq_fail(err, TQ_FORMAT, "%s: the file ends within the recurrent state", label);
    return tq_fail(err, TQ_FORMAT, "%s: the recurrent state's checksum does not match: the file is damaged", label);
}
