/* rng.c: MT19937 and numpy's legacy normal deviates. */
#include "base/rng.h"

#include <math.h>

void tq_mt19937_seed(tq_mt19937 *mt, uint32_t seed) {
    for (int i = 0; i < 624; i++) {
        mt->state[i] = seed;
        seed = 1812433253u * (seed ^ seed >> 30) + (uint32_t)i + 1;
    }
    mt->next = 624;
    mt->has_saved = 0;
}

static void refill(tq_mt19937 *mt) {
    uint32_t *s = mt->state;
    for (int i = 0; i < 624; i++) {
        uint32_t y = (s[i] & 0x80000000u) | (s[(i + 1) % 624] & 0x7fffffffu);
        s[i] = s[(i + 397) % 624] ^ y >> 1 ^ (y & 1u ? 0x9908b0dfu : 0u);
    }
    mt->next = 0;
}

static uint32_t next_u32(tq_mt19937 *mt) {
    if (mt->next == 624) refill(mt);
    uint32_t y = mt->state[mt->next++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

static double next_double(tq_mt19937 *mt) {
    uint32_t high = next_u32(mt) >> 5, low = next_u32(mt) >> 6;
    return ((double)high * 67108864.0 + (double)low) / 9007199254740992.0;
}

double tq_mt19937_normal(tq_mt19937 *mt) {
    if (mt->has_saved) {
        mt->has_saved = 0;
        return mt->saved_normal;
    }
    double x, y, r2;
    do {
        x = 2.0 * next_double(mt) - 1.0;
        y = 2.0 * next_double(mt) - 1.0;
        r2 = x * x + y * y;
    } while (r2 >= 1.0 || r2 == 0.0);
    double f = sqrt(-2.0 * log(r2) / r2);
    mt->saved_normal = f * x;
    mt->has_saved = 1;
    return f * y;
}
