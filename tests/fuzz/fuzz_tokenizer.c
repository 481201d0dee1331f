/* fuzz_tokenizer.c: any bytes as tokenizer.json; if they load, a fixed text is encoded, as such and as a prompt,
 * and every id looked up. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char text[] = "<|a|> It's 12 caf\xc3\xa9s,\n\n  \xe6\x97\xa5\xe6\x9c\xac x<|b|>e\xcc\x81 aaabbb ";
    tq_tokenizer *tokenizer;
    tq_error err;
    tq_ids ids = {0};
    if (size > 65536) return 0;
    if (tq_tokenizer_new((const char *)data, size, "fuzz", &tokenizer, &err) != TQ_OK) return 0;
    static const tq_control_range ranges[] = {{0, 5}, {30, 20}};
    tq_tokenizer_encode(tokenizer, text, sizeof text - 1, true, &ids, &err);
    tq_tokenizer_encode(tokenizer, text, sizeof text - 1, false, &ids, &err);
    tq_tokenizer_encode_prompt(tokenizer, text, sizeof text - 1, true, &ids, &err);
    tq_tokenizer_encode_prompt(tokenizer, text, 0, false, &ids, &err);
    tq_tokenizer_encode_ranges(tokenizer, text, sizeof text - 1, ranges, 2, &ids, &err);
    for (size_t i = 0; i < ids.n; i++) {
        char piece[64];
        if (ids.ids[i] < 0 || ids.ids[i] >= tq_tokenizer_vocab_size(tokenizer)) abort();
        tq_tokenizer_piece(tokenizer, ids.ids[i], true, piece, sizeof piece);
    }
    tq_tokenizer_find(tokenizer, "<|a|>");
    free(ids.ids);
    tq_tokenizer_free(tokenizer);
    return 0;
}
