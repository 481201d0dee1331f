/* encode_plain.c: encode.h: registers of four floats, which every processor has or the compiler emulates. */
#define VL 4

#include "backend/cpu/encode_body.h"

const tq_encoder tq_encoder_plain = ENCODER;
