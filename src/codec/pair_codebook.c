/* pair_codebook.c: see pair_codebook.h. */
#include "codec/pair_codebook.h"


enum { BLOCK = 64 };

/* |point|^2 - sample . point is |sample/2 - point|^2 less what no choice changes.  Sixty-four pairs side by side, so that a
 * compiler finds its vectors. */
static void encode_block(const tq_pair_codebook *book, const int16_t *samples, int n, uint8_t *codes) {
    int32_t a[BLOCK] = {0}, b[BLOCK] = {0}, least[BLOCK], best[BLOCK] = {0};
    for (int i = 0; i < n; i++) a[i] = samples[2 * i], b[i] = samples[2 * i + 1];
    for (int i = 0; i < BLOCK; i++) least[i] = INT32_MAX;
    for (int32_t c = 0; c < 1 << book->bits; c++) {
        int32_t x = (int32_t)book->first[c] - 128, y = (int32_t)book->second[c] - 128, size = x * x + y * y;
        for (int i = 0; i < BLOCK; i++) {
            int32_t cost = size - a[i] * x - b[i] * y;
            best[i] = cost < least[i] ? c : best[i];
            least[i] = cost < least[i] ? cost : least[i];
        }
    }
    for (int i = 0; i < n; i++) codes[i] = (uint8_t)best[i];
}

void tq_pairs_encode(const tq_pair_codebook *book, const int16_t *samples, int n, uint8_t *codes) {
    for (int i = 0; i < n; i += BLOCK) encode_block(book, samples + 2 * i, n - i < BLOCK ? n - i : BLOCK, codes + i);
}
