/* utf8.h: checking UTF-8 and cutting it at character boundaries. */
#ifndef TQ_BASE_UTF8_H
#define TQ_BASE_UTF8_H

#include <stddef.h>

/* Offset of the first byte that is not well-formed UTF-8 (Unicode table 3-7: no surrogates, no overlong forms, at most
 * U+10FFFF), or n if all is well. */
size_t tq_utf8_valid_prefix(const char *text, size_t n);

/* Length of the longest prefix that does not end inside a character: bytes that may yet become one are left out, bytes
 * that cannot are kept. */
size_t tq_utf8_complete_prefix(const char *text, size_t n);

#endif
