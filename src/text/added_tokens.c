/* added_tokens.c: see added_tokens.h. */
#include "text/added_tokens.h"

#include <stdlib.h>
#include <string.h>

#include "text/text_buf.h"
#include "text/tokenizer.h"

/* \w as the reference implementation's other regex engine has it. */
static const char word_pattern[] = "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}]";

static uint64_t child_key(int32_t node, char byte) { return (uint64_t)(uint32_t)node << 8 | (uint8_t)byte; }

static tq_status add_node(tq_added_tokens *added, tq_error *err) {
    TQ_TRY(
        tq_array_reserve(&added->ends, added->n_nodes, 1, &added->ends_cap, sizeof *added->ends, "added tokens", err));
    added->ends[added->n_nodes++] = -1;
    return TQ_OK;
}

tq_status tq_added_tokens_put(tq_added_tokens *added, const tq_added_token *token, const char *content, size_t length,
                              tq_error *err) {
    if (length == 0) return TQ_OK; /* it could never be found */
    if (!added->n_nodes) TQ_TRY(add_node(added, err));
    if (token->single_word && !added->word) {
        TQ_TRY(tq_regex_new(word_pattern, strlen(word_pattern), false, &added->word, err));
    }
    int32_t node = 0;
    for (size_t i = 0; i < length; i++) {
        const tq_pair_entry *child = tq_pair_map_get(&added->children, child_key(node, content[i]));
        if (child) {
            node = child->value;
            continue;
        }
        int32_t made = (int32_t)added->n_nodes;
        TQ_TRY(add_node(added, err));
        TQ_TRY(tq_pair_map_put(&added->children, child_key(node, content[i]), made, 0, err));
        node = made;
    }
    added->begins[(uint8_t)content[0]] = true;
    if (added->ends[node] >= 0) return TQ_OK;
    TQ_TRY(tq_array_reserve(&added->tokens, added->n, 1, &added->cap, sizeof *added->tokens, "added tokens", err));
    added->tokens[added->n] = *token;
    added->ends[node] = (int32_t)added->n++;
    return TQ_OK;
}

void tq_added_tokens_free(tq_added_tokens *added) {
    free(added->tokens);
    free(added->ends);
    tq_pair_map_free(&added->children);
    tq_regex_free(added->word);
    *added = (tq_added_tokens){0};
}

/* The longest token that begins at `at`, or NULL. */
static const tq_added_token *longest_at(const tq_added_tokens *added, const char *text, size_t length, size_t at,
                                        size_t *end) {
    const tq_added_token *longest = NULL;
    int32_t node = 0;
    while (at < length) {
        const tq_pair_entry *child = tq_pair_map_get(&added->children, child_key(node, text[at]));
        if (!child) break;
        node = child->value;
        at++;
        if (added->ends[node] >= 0) longest = &added->tokens[added->ends[node]], *end = at;
    }
    return longest;
}

static size_t character_start(const char *text, size_t end) {
    do end--;
    while (end > 0 && ((uint8_t)text[end] & 0xc0) == 0x80);
    return end;
}

static size_t character_end(const char *text, size_t length, size_t start) {
    do start++;
    while (start < length && ((uint8_t)text[start] & 0xc0) == 0x80);
    return start;
}

/* White_Space, of one character of n bytes. */
static bool is_space(const char *text, size_t n) {
    const uint8_t *p = (const uint8_t *)text;
    uint32_t c = n == 1   ? p[0]
                 : n == 2 ? (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu)
                 : n == 3 ? (p[0] & 0xfu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu)
                          : 0;
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
           c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static tq_status is_word(const tq_added_tokens *added, tq_regex_scratch *scratch, const char *text, size_t start,
                         size_t end, bool *word, tq_error *err) {
    size_t match_start, match_end;
    return tq_regex_find(added->word, scratch, text + start, end - start, 0, word, &match_start, &match_end, err);
}

static tq_status stands_alone(const tq_added_tokens *added, const tq_added_walk *walk, size_t start, size_t end,
                              bool *alone, tq_error *err) {
    bool before = false, after = false;
    if (start > 0) {
        size_t from = character_start(walk->text, start);
        TQ_TRY(is_word(added, walk->scratch, walk->text, from, start, &before, err));
    }
    if (end < walk->length) {
        size_t to = character_end(walk->text, walk->length, end);
        TQ_TRY(is_word(added, walk->scratch, walk->text, end, to, &after, err));
    }
    *alone = !before && !after;
    return TQ_OK;
}

/* Whether from..to lies in one range.  Both only grow from call to call. */
static bool in_range(tq_added_walk *walk, size_t from, size_t to) {
    while (walk->range < walk->n_ranges && walk->ranges[walk->range].start + walk->ranges[walk->range].length <= from) {
        walk->range++;
    }
    if (walk->range == walk->n_ranges) return false;
    const tq_control_range *range = &walk->ranges[walk->range];
    return from >= range->start && to <= range->start + range->length;
}

tq_status tq_added_walk_next(const tq_added_tokens *added, tq_added_walk *walk, size_t *start, size_t *end, int32_t *id,
                             tq_error *err) {
    const char *text = walk->text;
    *start = walk->done, *id = -1;
    while (added->n && walk->search < walk->length) {
        size_t from = walk->search, to = 0;
        if (!added->begins[(uint8_t)text[from]]) {
            walk->search++;
            continue;
        }
        const tq_added_token *token = longest_at(added, text, walk->length, from, &to);
        if (!token) {
            walk->search++;
            continue;
        }
        if (token->special && walk->ranges && !in_range(walk, from, to)) {
            walk->search++; /* it is not there; one that begins within it may be */
            continue;
        }
        walk->search = to;
        if (token->special && !walk->with_special) continue;
        if (token->single_word) {
            bool alone;
            TQ_TRY(stands_alone(added, walk, from, to, &alone, err));
            if (!alone) continue;
        }
        if (token->lstrip) {
            while (from > walk->done) {
                size_t before = character_start(text, from);
                if (!is_space(text + before, from - before)) break;
                from = before;
            }
            if (from < walk->done) from = walk->done; /* the one before swallowed it */
        }
        if (token->rstrip) {
            while (to < walk->length) {
                size_t after = character_end(text, walk->length, to);
                if (!is_space(text + to, after - to)) break;
                to = after;
            }
        }
        if (token->lstrip && from >= to) continue; /* nothing of it is left */
        *end = from > *start ? from : *start; /* a token may begin with spaces that the one before swallowed */
        *id = token->id;
        walk->done = to;
        return TQ_OK;
    }
    *end = walk->length;
    if (*start > *end) *start = *end;
    walk->done = walk->length;
    return TQ_OK;
}
