/* encode_avx512.c: encode.h: what kernels_avx512.c asks for. */
#define VL 16

#include "backend/cpu/encode_body.h"

const tq_encoder tq_encoder_avx512 = ENCODER;
