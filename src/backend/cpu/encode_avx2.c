/* encode_avx2.c: encode.h: AVX2. */
#define VL 8

#include "backend/cpu/encode_body.h"

const tq_encoder tq_encoder_avx2 = ENCODER;
