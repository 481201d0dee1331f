/* score_merges.c: the merges of a SentencePiece vocabulary.  It has no list of them: two neighbours merge if their union
 * is a token, the one of the highest score first, the leftmost of equals. */
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer_parts.h"

typedef struct scored {
    float score;
    int32_t id;
} scored;

static int by_score(const void *a, const void *b) {
    const scored *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

static bool begins_character(char byte) { return ((uint8_t)byte & 0xc0) != 0x80; }

/* Every way to cut a token into two others gets the token's rank. */
static tq_status add_ways(tq_tokenizer *t, const bool *merges, int32_t id, int32_t rank, tq_error *err) {
    const tq_token *token = &t->tokens[id];
    for (uint32_t cut = 1; cut < token->name_len; cut++) {
        if (!begins_character(token->name[cut])) continue;
        int32_t left = tq_word_map_get(&t->bpe.vocab, token->name, cut);
        int32_t right = left < 0 ? -1 : tq_word_map_get(&t->bpe.vocab, token->name + cut, token->name_len - cut);
        if (right < 0 || !merges[left] || !merges[right]) continue;
        TQ_TRY(tq_pair_map_put(&t->bpe.merges, (uint64_t)(uint32_t)left << 32 | (uint32_t)right, id, rank, err));
    }
    return TQ_OK;
}

tq_status tq_tokenizer_merge_by_score(tq_tokenizer *t, const float *scores, const bool *merges, tq_error *err) {
    scored *order = malloc((t->n_tokens + 1) * sizeof *order);
    if (!order) return tq_fail_memory(err, t->n_tokens * sizeof *order, "the scores of a vocabulary");
    size_t n = 0;
    for (size_t i = 0; i < t->n_tokens; i++)
        if (merges[i] && t->tokens[i].name) order[n++] = (scored){scores[i], (int32_t)i};
    qsort(order, n, sizeof *order, by_score);
    tq_status status = TQ_OK;
    int32_t rank = 0;
    for (size_t i = 0; i < n && status == TQ_OK; i++) {
        if (i && order[i].score != order[i - 1].score) rank++;
        status = add_ways(t, merges, order[i].id, rank, err);
    }
    free(order);
    t->by_score = true;
    if (status == TQ_OK) tq_bpe_find_words(&t->bpe, t->tokens);
    return status;
}
