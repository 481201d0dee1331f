/* pages_avx512.c: page_dots and woven_dots of AVX-512, for the tables of kernels_avx512.c and kernels_amx.c.  A file of its own:
 * these many functions are most of what a compiler has to do for either table. */
#include <string.h>

#include "backend/cpu/kernels_avx512.h"

#define INLINE static inline __attribute__((always_inline))
#include "backend/cpu/kernels_trellis.h"
#include "backend/cpu/trellis_dots_avx512.h"

/* One function a kind, width and number of queries: the accumulators stay in registers. */
typedef void (*dots_fn)(const tq_page_codes *side, const tq_int_vectors *q, int first, int32_t *dots);
#define DOTS(kind, b, n)                                                                                               \
    static __attribute__((noinline)) void kind##_bits##b##_queries##n(const tq_page_codes *side,                       \
                                                                      const tq_int_vectors *q, int first,              \
                                                                      int32_t *dots) {                                 \
        kind(side, q, first, dots, n, b);                                                                              \
    }
#define DOTS_OF_BITS(kind, b)                                                                                          \
    DOTS(kind, b, 1) DOTS(kind, b, 2) DOTS(kind, b, 3) DOTS(kind, b, 4)                                                \
    DOTS(kind, b, 5) DOTS(kind, b, 6) DOTS(kind, b, 7) DOTS(kind, b, 8)
#define NAMES(kind, b)                                                                                                 \
    {                                                                                                                  \
        kind##_bits##b##_queries1, kind##_bits##b##_queries2, kind##_bits##b##_queries3, kind##_bits##b##_queries4,    \
            kind##_bits##b##_queries5, kind##_bits##b##_queries6, kind##_bits##b##_queries7, kind##_bits##b##_queries8 \
    }
DOTS_OF_BITS(dot_page, 2)
DOTS_OF_BITS(dot_page, 3)
DOTS_OF_BITS(dot_page, 4)
DOTS_OF_BITS(dot_page, 8)
DOTS_OF_BITS(dot_woven_page, 2)
DOTS_OF_BITS(dot_woven_page, 3)
DOTS_OF_BITS(dot_woven_page, 4)

void tq_page_dots_avx512(const tq_page_codes *side, const tq_int_vectors *q, int first_q, int n_q, int32_t *dots) {
    static const dots_fn all[4][TQ_PAGE_QUERIES] = {NAMES(dot_page, 2), NAMES(dot_page, 3), NAMES(dot_page, 4), NAMES(dot_page, 8)};
    all[side->bits == 8 ? 3 : side->bits - 2][n_q - 1](side, q, first_q, dots);
}

void tq_woven_dots_avx512(const tq_page_codes *side, const tq_int_vectors *q, int first_q, int n_q, int32_t *dots) {
    static const dots_fn all[3][TQ_PAGE_QUERIES] = {NAMES(dot_woven_page, 2), NAMES(dot_woven_page, 3), NAMES(dot_woven_page, 4)};
    all[side->bits - 2][n_q - 1](side, q, first_q, dots);
}
