/* pages_avx512.c: page_dots and woven_dots of AVX-512, for the tables of kernels_avx512.c and kernels_amx.c.  A file of its own:
 * these many functions are most of what a compiler has to do for either table. */
#include <string.h>

#include "backend/cpu/kernels_avx512.h"

#define INLINE static inline __attribute__((always_inline))
#include "backend/cpu/kernels_trellis.h"
#include "backend/cpu/trellis_dots_avx512.h"

/* One function a width and number of queries: the accumulators stay in registers. */
#define DOT_PAGE(n, b)                                                                                                 \
    static __attribute__((noinline)) void dot_page_bits##b##_queries##n(const tq_page_codes *side,                     \
                                                                        const tq_int_vectors *q, int first,            \
                                                                        int32_t *dots) {                               \
        dot_page(side, q, first, dots, n, b);                                                                          \
    }
#define DOT_PAGES(b)                                                                                                   \
    DOT_PAGE(1, b) DOT_PAGE(2, b) DOT_PAGE(3, b) DOT_PAGE(4, b) DOT_PAGE(5, b) DOT_PAGE(6, b) DOT_PAGE(7, b) DOT_PAGE(8, b)
DOT_PAGES(2)
DOT_PAGES(3)
DOT_PAGES(4)
DOT_PAGES(8)
#define NAMES(b)                                                                                                       \
    {                                                                                                                  \
        dot_page_bits##b##_queries1, dot_page_bits##b##_queries2, dot_page_bits##b##_queries3,                         \
            dot_page_bits##b##_queries4, dot_page_bits##b##_queries5, dot_page_bits##b##_queries6,                     \
            dot_page_bits##b##_queries7, dot_page_bits##b##_queries8                                                   \
    }

void tq_page_dots_avx512(const tq_page_codes *side, const tq_int_vectors *q, int first_q, int n_q, int32_t *dots) {
    static void (*const all[4][TQ_PAGE_QUERIES])(const tq_page_codes *, const tq_int_vectors *, int, int32_t *) = {
        NAMES(2), NAMES(3), NAMES(4), NAMES(8)};
    all[side->bits == 8 ? 3 : side->bits - 2][n_q - 1](side, q, first_q, dots);
}

#undef DOT_PAGE
#undef DOT_PAGES
#undef NAMES

#define DOT_PAGE(n, b)                                                                                                 \
    static __attribute__((noinline)) void dot_woven_bits##b##_queries##n(const tq_page_codes *side,                    \
                                                                         const tq_int_vectors *q, int first,           \
                                                                         int32_t *dots) {                              \
        dot_woven_page(side, q, first, dots, n, b);                                                                    \
    }
#define DOT_PAGES(b)                                                                                                   \
    DOT_PAGE(1, b) DOT_PAGE(2, b) DOT_PAGE(3, b) DOT_PAGE(4, b) DOT_PAGE(5, b) DOT_PAGE(6, b) DOT_PAGE(7, b) DOT_PAGE(8, b)
DOT_PAGES(2)
DOT_PAGES(3)
DOT_PAGES(4)
#define NAMES(b)                                                                                                       \
    {                                                                                                                  \
        dot_woven_bits##b##_queries1, dot_woven_bits##b##_queries2, dot_woven_bits##b##_queries3,                      \
            dot_woven_bits##b##_queries4, dot_woven_bits##b##_queries5, dot_woven_bits##b##_queries6,                  \
            dot_woven_bits##b##_queries7, dot_woven_bits##b##_queries8                                                 \
    }

void tq_woven_dots_avx512(const tq_page_codes *side, const tq_int_vectors *q, int first_q, int n_q, int32_t *dots) {
    static void (*const all[3][TQ_PAGE_QUERIES])(const tq_page_codes *, const tq_int_vectors *, int, int32_t *) = {
        NAMES(2), NAMES(3), NAMES(4)};
    all[side->bits - 2][n_q - 1](side, q, first_q, dots);
}

#undef DOT_PAGE
#undef DOT_PAGES
#undef NAMES
