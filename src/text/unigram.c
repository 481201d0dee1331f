/* unigram.c: see unigram.h. */
#include "text/unigram.h"

#include <stdlib.h>
#include <string.h>

#include "text/text_buf.h"

/* The best way to cut the text up to a place: its last token begins at `start`. */
typedef struct tq_unigram_node {
    double score;
    int32_t start, id; /* start -1: no way leads here */
} node;

static uint64_t child_key(int32_t at, char byte) { return (uint64_t)(uint32_t)at << 8 | (uint8_t)byte; }

static tq_status add_node(tq_unigram *u, tq_error *err) {
    TQ_TRY(tq_array_reserve(&u->ends, u->n_nodes, 1, &u->ends_cap, sizeof *u->ends, "the vocabulary", err));
    TQ_TRY(tq_array_reserve(&u->scores, u->n_nodes, 1, &u->scores_cap, sizeof *u->scores, "the vocabulary", err));
    u->ends[u->n_nodes++] = -1;
    return TQ_OK;
}

tq_status tq_unigram_put(tq_unigram *u, const char *name, size_t length, int32_t id, double score, tq_error *err) {
    int32_t at = 0;
    if (!u->n_nodes) TQ_TRY(add_node(u, err));
    for (size_t i = 0; i < length; i++) {
        const tq_pair_entry *child = tq_pair_map_get(&u->children, child_key(at, name[i]));
        int32_t next = child ? child->value : (int32_t)u->n_nodes;
        if (!child) {
            TQ_TRY(add_node(u, err));
            TQ_TRY(tq_pair_map_put(&u->children, child_key(at, name[i]), next, 0, err));
        }
        at = next;
    }
    u->ends[at] = id;
    u->scores[at] = score;
    return TQ_OK;
}

void tq_unigram_free(tq_unigram *u) {
    tq_pair_map_free(&u->children);
    free(u->ends);
    free(u->scores);
    *u = (tq_unigram){0};
}

void tq_unigram_scratch_free(tq_unigram_scratch *scratch) {
    free(scratch->best);
    free(scratch->cuts);
    *scratch = (tq_unigram_scratch){0};
}

static void offer(node *target, double score, size_t start, int32_t id) {
    if (target->start >= 0 && score <= target->score) return;
    *target = (node){score, (int32_t)start, id};
}

static size_t character_length(char first) {
    uint8_t c = (uint8_t)first;
    return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

static tq_status find_best(const tq_unigram *u, node *best, const char *piece, size_t length, tq_error *err) {
    for (size_t i = 0; i <= length; i++) best[i].start = -1;
    best[0] = (node){0, 0, -1};
    for (size_t at = 0, width; at < length; at += width) {
        bool single = false;
        width = character_length(piece[at]);
        int32_t place = 0;
        for (size_t k = at; k < length && u->n_nodes; k++) {
            const tq_pair_entry *child = tq_pair_map_get(&u->children, child_key(place, piece[k]));
            if (!child) break;
            place = child->value;
            if (u->ends[place] < 0) continue;
            offer(&best[k + 1], u->scores[place] + best[at].score, at, u->ends[place]);
            single |= k + 1 == at + width;
        }
        if (single) continue;
        if (u->unk_id < 0) return tq_fail(err, TQ_INVALID, "a character that is no token, and no unknown token");
        offer(&best[at + width], u->unk_score + best[at].score, at, u->unk_id);
    }
    return TQ_OK;
}

/* The id of a stretch that is a token, or -1. */
static int32_t find_token(const tq_unigram *u, const char *text, size_t length) {
    int32_t at = 0;
    for (size_t i = 0; i < length; i++) {
        const tq_pair_entry *child = tq_pair_map_get(&u->children, child_key(at, text[i]));
        if (!child) return -1;
        at = child->value;
    }
    return u->n_nodes ? u->ends[at] : -1;
}

static tq_status add_unknown(const tq_unigram *u, const char *text, size_t length, tq_ids *out, tq_error *err) {
    bool as_bytes = u->byte_fallback;
    for (size_t i = 0; i < length && as_bytes; i++) as_bytes = u->fallback_ids[(uint8_t)text[i]] >= 0;
    size_t n = as_bytes ? length : 1;
    TQ_TRY(tq_array_reserve(&out->ids, out->n, n, &out->cap, sizeof *out->ids, "token ids", err));
    if (!as_bytes) out->ids[out->n++] = u->unk_id;
    for (size_t i = 0; i < length && as_bytes; i++) out->ids[out->n++] = u->fallback_ids[(uint8_t)text[i]];
    return TQ_OK;
}

tq_status tq_unigram_encode(const tq_unigram *u, tq_unigram_scratch *scratch, const char *piece, size_t length,
                            tq_ids *out, tq_error *err) {
    size_t n_cuts = 0;
    TQ_TRY(tq_array_reserve(&scratch->best, 0, length + 1, &scratch->best_cap, sizeof(node), "a piece", err));
    TQ_TRY(find_best(u, scratch->best, piece, length, err));
    TQ_TRY(tq_array_reserve(&scratch->cuts, 0, length, &scratch->cuts_cap, sizeof(int32_t), "a piece", err));
    for (size_t end = length; end; end = (size_t)scratch->best[end].start) {
        scratch->cuts[n_cuts++] = scratch->best[end].start;
    }
    while (n_cuts) {
        size_t start = (size_t)scratch->cuts[--n_cuts], end = n_cuts ? (size_t)scratch->cuts[n_cuts - 1] : length;
        int32_t id = scratch->best[end].id;
        if (id == u->unk_id) {
            while (n_cuts && scratch->best[n_cuts > 1 ? (size_t)scratch->cuts[n_cuts - 2] : length].id == u->unk_id) {
                end = --n_cuts ? (size_t)scratch->cuts[n_cuts - 1] : length;
            }
            id = find_token(u, piece + start, end - start); /* unknown characters may spell a token that scored less */
            if (id < 0) {
                TQ_TRY(add_unknown(u, piece + start, end - start, out, err));
                continue;
            }
        }
        TQ_TRY(tq_array_reserve(&out->ids, out->n, 1, &out->cap, sizeof id, "token ids", err));
        out->ids[out->n++] = id;
    }
    return TQ_OK;
}
