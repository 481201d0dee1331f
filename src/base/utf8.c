/* utf8.c: see utf8.h. */
#include "base/utf8.h"

#include <stdint.h>

/* Bytes of the character at p: 1..4 if well formed, 0 if not, -1 if it is a beginning cut off by the end. */
static int character_length(const uint8_t *p, size_t n) {
    uint8_t c = p[0], low = 0x80, high = 0xbf;
    int want;
    if (c < 0x80) return 1;
    if (c >= 0xc2 && c <= 0xdf) want = 2;
    else if (c >= 0xe0 && c <= 0xef) want = 3;
    else if (c >= 0xf0 && c <= 0xf4) want = 4;
    else return 0;
    if (c == 0xe0) low = 0xa0;
    if (c == 0xed) high = 0x9f;
    if (c == 0xf0) low = 0x90;
    if (c == 0xf4) high = 0x8f;
    for (int i = 1; i < want; i++, low = 0x80, high = 0xbf) {
        if ((size_t)i == n) return -1;
        if (p[i] < low || p[i] > high) return 0;
    }
    return want;
}

size_t tq_utf8_valid_prefix(const char *text, size_t n) {
    const uint8_t *p = (const uint8_t *)text;
    size_t at = 0;
    while (at < n) {
        int length = character_length(p + at, n - at);
        if (length <= 0) break;
        at += (size_t)length;
    }
    return at;
}

size_t tq_utf8_complete_prefix(const char *text, size_t n) {
    const uint8_t *p = (const uint8_t *)text;
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        uint8_t c = p[n - back];
        if ((c & 0xc0) == 0x80) continue;
        return c >= 0xc0 && character_length(p + n - back, back) == -1 ? n - back : n;
    }
    return n;
}
