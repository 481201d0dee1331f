/* checksum.h: 64 bits that tell whether a file is as it was written.  Not cryptographic. */
#ifndef TQ_BASE_CHECKSUM_H
#define TQ_BASE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { TQ_CHECKSUM_START = 0x2545f491 };

/* Feed n bytes.  The result depends on how the bytes were cut into calls: writer and reader make the same calls. */
static inline uint64_t tq_checksum(uint64_t sum, const void *data, size_t n) {
    const uint8_t *p = data;
    uint64_t word = 0;
    for (; n >= 8; n -= 8, p += 8) {
        memcpy(&word, p, 8);
        sum = (sum ^ word) * 0x9e3779b97f4a7c15u;
        sum ^= sum >> 29;
    }
    word = n;
    for (size_t i = 0; i < n; i++) word = word << 8 | p[i];
    sum = (sum ^ word) * 0x9e3779b97f4a7c15u;
    return sum ^ sum >> 32;
}

#endif
