/* kernels_plain.h: kernels in plain C for the tables that have nothing better. */
#ifndef TQ_BACKEND_CPU_KERNELS_PLAIN_H
#define TQ_BACKEND_CPU_KERNELS_PLAIN_H

#include <stdint.h>
#include <string.h>

/* Eight codes from `bits` bytes at a time, the last few from as many bytes as they have. */
static void expand_codes(const uint8_t *stream, int bits, const float *levels, int n, float scale, float offset,
                         float *out) {
    unsigned mask = (1u << bits) - 1;
    for (int i = 0; i < n; i += 8, stream += bits) {
        int count = n - i < 8 ? n - i : 8;
        uint64_t word = 0;
        memcpy(&word, stream, (size_t)(count * bits + 7) / 8);
        for (int k = 0; k < count; k++) out[i + k] = offset + scale * levels[word >> (k * bits) & mask];
    }
}

#endif
