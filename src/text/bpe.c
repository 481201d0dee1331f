/* bpe.c: byte-pair encoding of one piece of text.
 * Owns: first symbols, merging.  Not here: how text is cut into pieces (pretokenize.c), reading the file
 * (tokenizer_file.c). */
#include "text/bpe.h"

#include <stdlib.h>
#include <string.h>

#include "text/text_buf.h"
#include "text/tokenizer_parts.h"

/* A symbol of the piece, in a doubly linked list; id -1: merged into its left neighbour. */
typedef struct tq_bpe_symbol {
    int32_t id, prev, next;
} symbol;

/* A pair that may be merged: order is rank, then position. */
typedef struct tq_bpe_candidate {
    uint64_t order; /* rank << 32 | position of the left symbol */
    int32_t new_id;
} candidate;

int tq_byte_level_char(uint8_t byte, char utf8[3]) {
    bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
    unsigned code = byte;
    if (!printable) { /* the others are numbered from 256, in their order */
        if (byte <= 32) code = 256u + byte;
        else if (byte <= 160) code = 256u + 33 + (byte - 127u);
        else code = 256u + 33 + 34; /* 173 */
    }
    if (code < 0x80) {
        utf8[0] = (char)code, utf8[1] = '\0';
        return 1;
    }
    utf8[0] = (char)(0xc0 | code >> 6), utf8[1] = (char)(0x80 | (code & 0x3f)), utf8[2] = '\0';
    return 2;
}

bool tq_byte_level_decode(const char *text, size_t length, char *dst, size_t *n) {
    *n = 0;
    for (size_t i = 0; i < length;) {
        unsigned code = (uint8_t)text[i++];
        if (code >= 0x80) {
            if (code >= 0xe0 || i == length) return false;
            code = (code & 0x1f) << 6 | ((uint8_t)text[i++] & 0x3f);
        }
        unsigned byte;
        if ((code >= 33 && code <= 126) || (code >= 161 && code <= 255 && code != 173)) byte = code;
        else if (code >= 256 && code <= 256 + 32) byte = code - 256;
        else if (code > 256 + 32 && code < 256 + 33 + 34) byte = code - 256 - 33 + 127;
        else if (code == 256 + 33 + 34) byte = 173;
        else return false;
        dst[(*n)++] = (char)byte;
    }
    return true;
}

static tq_status add_symbol(tq_bpe_scratch *scratch, int32_t id, tq_error *err) {
    TQ_TRY(tq_array_reserve(&scratch->symbols, scratch->n_symbols, 1, &scratch->symbols_cap, sizeof(symbol),
                            "symbols of a piece", err));
    int32_t at = (int32_t)scratch->n_symbols++;
    scratch->symbols[at] = (symbol){id, at - 1, at + 1};
    return TQ_OK;
}

static int utf8_length(char first) {
    uint8_t c = (uint8_t)first;
    return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

/* Characters, with unknown ones as bytes or as the unknown token.  A run of unknown characters is held back until a
 * known one ends it; bytes do not end it.  That order is the reference implementation's. */
static tq_status add_characters(const tq_bpe *bpe, tq_bpe_scratch *scratch, const char *piece, size_t length,
                                tq_error *err) {
    bool unk_waits = false;
    for (size_t i = 0; i < length;) {
        size_t width = (size_t)utf8_length(piece[i]);
        if (width > length - i) width = length - i;
        const char *character = piece + i;
        i += width;
        int32_t id = tq_word_map_get(&bpe->vocab, character, width);
        if (id >= 0 && !tq_bpe_is_control(bpe, id)) {
            if (unk_waits) TQ_TRY(add_symbol(scratch, bpe->unk_id, err));
            unk_waits = false;
            TQ_TRY(add_symbol(scratch, id, err));
            continue;
        }
        bool as_bytes = bpe->byte_fallback;
        for (size_t k = 0; k < width && as_bytes; k++) as_bytes = bpe->fallback_ids[(uint8_t)character[k]] >= 0;
        if (as_bytes) {
            for (size_t k = 0; k < width; k++) {
                TQ_TRY(add_symbol(scratch, bpe->fallback_ids[(uint8_t)character[k]], err));
            }
            continue;
        }
        if (bpe->unk_id < 0) continue;
        if (unk_waits && !bpe->fuse_unk) TQ_TRY(add_symbol(scratch, bpe->unk_id, err));
        unk_waits = true;
    }
    return unk_waits ? add_symbol(scratch, bpe->unk_id, err) : TQ_OK;
}

static tq_status add_bytes(const tq_bpe *bpe, tq_bpe_scratch *scratch, const char *piece, size_t length,
                           tq_error *err) {
    bool after_unk = false;
    for (size_t i = 0; i < length; i++) {
        int32_t id = bpe->byte_ids[(uint8_t)piece[i]];
        bool unk = id < 0;
        if (unk) id = bpe->unk_id;
        if (id >= 0 && !(unk && after_unk && bpe->fuse_unk)) TQ_TRY(add_symbol(scratch, id, err));
        if (id >= 0) after_unk = unk;
    }
    return TQ_OK;
}

static void sift_down(candidate *heap, size_t n, size_t at) {
    candidate moved = heap[at];
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= n) break;
        if (child + 1 < n && heap[child + 1].order < heap[child].order) child++;
        if (heap[child].order >= moved.order) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moved;
}

static bool find_candidate(const tq_bpe *bpe, const symbol *symbols, int32_t left, int32_t right, candidate *out) {
    uint64_t key = (uint64_t)(uint32_t)symbols[left].id << 32 | (uint32_t)symbols[right].id;
    const tq_pair_entry *merge = tq_pair_map_get(&bpe->merges, key);
    if (!merge) return false;
    *out = (candidate){(uint64_t)(uint32_t)merge->rank << 32 | (uint32_t)left, merge->value};
    return true;
}

static tq_status push(const tq_bpe *bpe, tq_bpe_scratch *scratch, int32_t left, int32_t right, tq_error *err) {
    candidate added;
    if (!find_candidate(bpe, scratch->symbols, left, right, &added)) return TQ_OK;
    TQ_TRY(tq_array_reserve(&scratch->heap, scratch->n_heap, 1, &scratch->heap_cap, sizeof added, "merges of a piece",
                            err));
    candidate *heap = scratch->heap;
    size_t at = scratch->n_heap++;
    while (at && heap[(at - 1) / 2].order > added.order) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = added;
    return TQ_OK;
}

/* Always the pair of lowest rank, the leftmost of equals.  A candidate whose symbols have changed since it was pushed
 * is recognised when it surfaces: its pair no longer gives its token. */
static tq_status merge_symbols(const tq_bpe *bpe, tq_bpe_scratch *scratch, tq_error *err) {
    int32_t n = (int32_t)scratch->n_symbols;
    scratch->n_heap = 0;
    for (int32_t i = 0; i + 1 < n; i++) {
        candidate added;
        if (!find_candidate(bpe, scratch->symbols, i, i + 1, &added)) continue;
        TQ_TRY(tq_array_reserve(&scratch->heap, scratch->n_heap, 1, &scratch->heap_cap, sizeof added,
                                "merges of a piece", err));
        scratch->heap[scratch->n_heap++] = added;
    }
    for (size_t i = scratch->n_heap / 2; i-- > 0;) sift_down(scratch->heap, scratch->n_heap, i);
    symbol *symbols = scratch->symbols;
    while (scratch->n_heap) {
        candidate best = scratch->heap[0], now;
        scratch->heap[0] = scratch->heap[--scratch->n_heap];
        if (scratch->n_heap) sift_down(scratch->heap, scratch->n_heap, 0);
        int32_t left = (int32_t)(uint32_t)best.order, right = symbols[left].next;
        if (symbols[left].id < 0 || right >= n) continue;
        if (!find_candidate(bpe, symbols, left, right, &now) || now.new_id != best.new_id) continue;
        symbols[left].id = best.new_id;
        symbols[left].next = symbols[right].next;
        symbols[right].id = -1;
        if (symbols[right].next < n) symbols[symbols[right].next].prev = left;
        if (symbols[left].prev >= 0) TQ_TRY(push(bpe, scratch, symbols[left].prev, left, err));
        if (symbols[left].next < n) TQ_TRY(push(bpe, scratch, left, symbols[left].next, err));
    }
    return TQ_OK;
}

static const char mark[] = "\xe2\x96\x81"; /* U+2581, which stands for a space */
enum { mark_length = sizeof mark - 1 };

static bool is_mark(const char *text) { return memcmp(text, mark, mark_length) == 0; }

void tq_bpe_find_words(tq_bpe *bpe, const tq_token *tokens) {
    bpe->words_apart = !bpe->byte_level && !bpe->ignore_merges && tq_word_map_get(&bpe->vocab, mark, mark_length) >= 0;
    for (size_t i = 0; i < bpe->merges.cap && bpe->words_apart; i++) {
        uint64_t key = bpe->merges.entries[i].key;
        if (key == UINT64_MAX) continue;
        const tq_token *left = &tokens[key >> 32], *right = &tokens[key & UINT32_MAX];
        bool word = right->name_len >= mark_length && is_mark(right->name);
        bool after_mark = left->name_len >= mark_length && is_mark(left->name + left->name_len - mark_length);
        bpe->words_apart = !word || after_mark;
    }
}

size_t tq_bpe_word_length(const tq_bpe *bpe, const char *piece, size_t length) {
    if (!bpe->words_apart || length <= mark_length) return length;
    for (size_t at = 1; at <= length - mark_length; at++) {
        const char *hit = memchr(piece + at, mark[0], length - mark_length + 1 - at);
        if (!hit) return length;
        at = (size_t)(hit - piece);
        if (is_mark(hit) && !(at >= mark_length && is_mark(hit - mark_length))) return at;
    }
    return length;
}

static tq_status find_whole(const tq_bpe *bpe, tq_bpe_scratch *scratch, const char *piece, size_t length, int32_t *id,
                            tq_error *err) {
    if (!bpe->byte_level) {
        *id = tq_word_map_get(&bpe->vocab, piece, length);
        return TQ_OK;
    }
    TQ_TRY(tq_array_reserve(&scratch->mapped, 0, 2 * length + 1, &scratch->mapped_cap, 1, "a piece", err));
    size_t n = 0;
    for (size_t i = 0; i < length; i++) {
        char utf8[3];
        int width = tq_byte_level_char((uint8_t)piece[i], utf8);
        memcpy(scratch->mapped + n, utf8, (size_t)width);
        n += (size_t)width;
    }
    *id = tq_word_map_get(&bpe->vocab, scratch->mapped, n);
    return TQ_OK;
}

tq_status tq_bpe_encode(const tq_bpe *bpe, tq_bpe_scratch *scratch, const char *piece, size_t length, tq_ids *out,
                        tq_error *err) {
    scratch->n_symbols = 0;
    if (bpe->ignore_merges) {
        int32_t id;
        TQ_TRY(find_whole(bpe, scratch, piece, length, &id, err));
        if (id >= 0 && !tq_bpe_is_control(bpe, id)) {
            TQ_TRY(tq_array_reserve(&out->ids, out->n, 1, &out->cap, sizeof *out->ids, "token ids", err));
            out->ids[out->n++] = id;
            return TQ_OK;
        }
    }
    if (bpe->byte_level) TQ_TRY(add_bytes(bpe, scratch, piece, length, err));
    else TQ_TRY(add_characters(bpe, scratch, piece, length, err));
    TQ_TRY(merge_symbols(bpe, scratch, err));
    TQ_TRY(tq_array_reserve(&out->ids, out->n, scratch->n_symbols, &out->cap, sizeof *out->ids, "token ids", err));
    for (size_t i = 0; i < scratch->n_symbols; i = (size_t)scratch->symbols[i].next) {
        out->ids[out->n++] = scratch->symbols[i].id;
    }
    return TQ_OK;
}

void tq_bpe_scratch_free(tq_bpe_scratch *scratch) {
    free(scratch->symbols);
    free(scratch->heap);
    free(scratch->mapped);
    *scratch = (tq_bpe_scratch){0};
}
