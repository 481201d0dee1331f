/* pretokenize.c: see pretokenize.h.
 * Every piece is a subject of its own: look-around does not see past its ends. */
#include "text/pretokenize.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

void tq_pre_steps_free(tq_pre_steps *steps) {
    for (size_t i = 0; i < steps->n; i++) {
        tq_regex_free(steps->steps[i].regex);
        free(steps->steps[i].replacement);
    }
    free(steps->steps);
    *steps = (tq_pre_steps){0};
}

void tq_pieces_free(tq_pieces *pieces) {
    tq_text_buf_free(&pieces->text);
    tq_text_buf_free(&pieces->next_text);
    free(pieces->pieces);
    free(pieces->next);
    free(pieces->matches);
    free(pieces->is_match);
    *pieces = (tq_pieces){0};
}

static tq_status add_next(tq_pieces *pieces, size_t start, size_t end, tq_error *err) {
    if (start == end) return TQ_OK;
    TQ_TRY(tq_array_reserve(&pieces->next, pieces->n_next, 1, &pieces->next_cap, sizeof *pieces->next, "pieces", err));
    pieces->next[pieces->n_next++] = (tq_piece){start, end - start};
    return TQ_OK;
}

static tq_status add_match(tq_pieces *pieces, size_t start, size_t end, bool is_match, tq_error *err) {
    size_t n = pieces->n_matches;
    TQ_TRY(tq_array_reserve(&pieces->matches, n, 1, &pieces->matches_cap, sizeof *pieces->matches, "pieces", err));
    TQ_TRY(tq_array_reserve(&pieces->is_match, n, 1, &pieces->is_match_cap, sizeof *pieces->is_match, "pieces", err));
    pieces->matches[n] = (tq_piece){start, end - start};
    pieces->is_match[n] = is_match;
    pieces->n_matches++;
    return TQ_OK;
}

static size_t next_character(const char *text, size_t at, size_t length) {
    at++;
    while (at < length && ((uint8_t)text[at] & 0xc0) == 0x80) at++;
    return at;
}

/* Matches and what lies between them, in order and without gaps.  An empty match right after a match is passed over. */
static tq_status find_matches(const tq_pre_step *step, tq_regex_scratch *scratch, tq_pieces *pieces, tq_piece piece,
                              tq_error *err) {
    const char *subject = pieces->text.data + piece.start;
    size_t from = 0, previous_end = 0;
    bool have_previous = false;
    pieces->n_matches = 0;
    while (from <= piece.length) {
        bool found;
        size_t start, end;
        TQ_TRY(tq_regex_find(step->regex, scratch, subject, piece.length, from, &found, &start, &end, err));
        if (!found) break;
        if (start == end && have_previous && end == previous_end) {
            if (from >= piece.length) break;
            from = next_character(subject, from, piece.length);
            continue;
        }
        if (start < previous_end || end < start) {
            return tq_fail(err, TQ_UNSUPPORTED, "regular expression: a match that goes backwards");
        }
        if (start > previous_end) TQ_TRY(add_match(pieces, previous_end, start, step->invert, err));
        TQ_TRY(add_match(pieces, start, end, !step->invert, err));
        from = previous_end = end;
        have_previous = true;
    }
    if (previous_end < piece.length) TQ_TRY(add_match(pieces, previous_end, piece.length, step->invert, err));
    return TQ_OK;
}

/* The match joins its neighbour unless that neighbour was itself a match in the direction of reading. */
static tq_status merge_with_previous(tq_pieces *pieces, size_t base, tq_error *err) {
    size_t start = 0, end = 0;
    bool open = false, previous = false;
    for (size_t i = 0; i < pieces->n_matches; i++) {
        tq_piece part = pieces->matches[i];
        if (open && pieces->is_match[i] && !previous) {
            end = part.start + part.length;
        } else {
            if (open) TQ_TRY(add_next(pieces, base + start, base + end, err));
            start = part.start, end = part.start + part.length, open = true;
        }
        previous = pieces->is_match[i];
    }
    return open ? add_next(pieces, base + start, base + end, err) : TQ_OK;
}

static tq_status merge_with_next(tq_pieces *pieces, size_t base, tq_error *err) {
    size_t first = pieces->n_next, start = 0, end = 0;
    bool open = false, previous = false;
    for (size_t i = pieces->n_matches; i-- > 0;) {
        tq_piece part = pieces->matches[i];
        if (open && pieces->is_match[i] && !previous) {
            start = part.start;
        } else {
            if (open) TQ_TRY(add_next(pieces, base + start, base + end, err));
            start = part.start, end = part.start + part.length, open = true;
        }
        previous = pieces->is_match[i];
    }
    if (open) TQ_TRY(add_next(pieces, base + start, base + end, err));
    for (size_t i = first, k = pieces->n_next; i + 1 < k; i++) { /* found from the end: turn round */
        tq_piece swapped = pieces->next[--k];
        pieces->next[k] = pieces->next[i];
        pieces->next[i] = swapped;
    }
    return TQ_OK;
}

static tq_status split_piece(const tq_pre_step *step, tq_regex_scratch *scratch, tq_pieces *pieces, tq_piece piece,
                             tq_error *err) {
    TQ_TRY(find_matches(step, scratch, pieces, piece, err));
    size_t base = piece.start;
    if (step->behavior == TQ_SPLIT_MERGED_WITH_PREVIOUS) return merge_with_previous(pieces, base, err);
    if (step->behavior == TQ_SPLIT_MERGED_WITH_NEXT) return merge_with_next(pieces, base, err);
    for (size_t i = 0; i < pieces->n_matches;) {
        tq_piece part = pieces->matches[i];
        bool is_match = pieces->is_match[i++];
        if (is_match && step->behavior == TQ_SPLIT_REMOVED) continue;
        size_t end = part.start + part.length;
        if (step->behavior == TQ_SPLIT_CONTIGUOUS) {
            while (i < pieces->n_matches && pieces->is_match[i] == is_match) {
                end = pieces->matches[i].start + pieces->matches[i].length;
                i++;
            }
        }
        TQ_TRY(add_next(pieces, base + part.start, base + end, err));
    }
    return TQ_OK;
}

static tq_status rewrite_piece(const tq_pre_step *step, tq_pieces *pieces, tq_piece piece, bool first, tq_error *err) {
    const char *text = pieces->text.data + piece.start, *mark = step->replacement;
    size_t n_mark = step->replacement_len, start = pieces->next_text.n;
    bool wanted = step->prefix == TQ_PREFIX_ALWAYS || (step->prefix == TQ_PREFIX_FIRST && first);
    bool has = text[0] == ' ' || (piece.length >= n_mark && memcmp(text, mark, n_mark) == 0);
    if (wanted && !has) TQ_TRY(tq_text_buf_add(&pieces->next_text, mark, n_mark, err));
    for (size_t i = 0; i < piece.length;) {
        const char *space = memchr(text + i, ' ', piece.length - i);
        size_t run = space ? (size_t)(space - text) - i : piece.length - i;
        TQ_TRY(tq_text_buf_add(&pieces->next_text, text + i, run, err));
        if (space) TQ_TRY(tq_text_buf_add(&pieces->next_text, mark, n_mark, err));
        i += run + (space != NULL);
    }
    return add_next(pieces, start, pieces->next_text.n, err);
}

tq_status tq_pretokenize(const tq_pre_steps *steps, tq_regex_scratch *scratch, const char *text, size_t length,
                         bool at_start, tq_pieces *pieces, tq_error *err) {
    pieces->text.n = pieces->n_next = 0;
    TQ_TRY(tq_text_buf_add(&pieces->text, text, length, err));
    TQ_TRY(add_next(pieces, 0, length, err));
    for (size_t s = 0;; s++) {
        tq_piece *done = pieces->next;
        size_t done_cap = pieces->next_cap;
        pieces->next = pieces->pieces, pieces->next_cap = pieces->cap;
        pieces->pieces = done, pieces->cap = done_cap;
        pieces->n = pieces->n_next, pieces->n_next = 0;
        if (s == steps->n) return TQ_OK;
        const tq_pre_step *step = &steps->steps[s];
        pieces->next_text.n = 0;
        for (size_t i = 0; i < pieces->n; i++) {
            tq_piece piece = pieces->pieces[i];
            bool first = at_start && piece.start == 0;
            TQ_TRY(step->regex ? split_piece(step, scratch, pieces, piece, err)
                               : rewrite_piece(step, pieces, piece, first, err));
        }
        if (step->regex) continue;
        tq_text_buf swapped = pieces->text;
        pieces->text = pieces->next_text;
        pieces->next_text = swapped;
    }
}
