/* gguf_types.c: the numbers that GGUF gives to tensor types. */
#include "file/gguf_types.h"

#include <stddef.h>

static const struct {
    const char *name;
    bool read;
    tq_dtype dtype;
} types[] = {
    [0] = {"f32", true, TQ_F32},        [1] = {"f16", true, TQ_F16},        [2] = {"q4_0", true, TQ_Q4_0},
    [3] = {"q4_1", true, TQ_Q4_1},      [4] = {"q4_2", false, 0},           [5] = {"q4_3", false, 0},
    [6] = {"q5_0", true, TQ_Q5_0},      [7] = {"q5_1", true, TQ_Q5_1},      [8] = {"q8_0", true, TQ_Q8_0},
    [9] = {"q8_1", false, 0},           [10] = {"q2_k", true, TQ_Q2_K},     [11] = {"q3_k", true, TQ_Q3_K},
    [12] = {"q4_k", true, TQ_Q4_K},     [13] = {"q5_k", true, TQ_Q5_K},     [14] = {"q6_k", true, TQ_Q6_K},
    [15] = {"q8_k", false, 0},          [16] = {"iq2_xxs", false, 0},       [17] = {"iq2_xs", false, 0},
    [18] = {"iq3_xxs", false, 0},       [19] = {"iq1_s", false, 0},         [20] = {"iq4_nl", true, TQ_IQ4_NL},
    [21] = {"iq3_s", false, 0},         [22] = {"iq2_s", false, 0},         [23] = {"iq4_xs", true, TQ_IQ4_XS},
    [24] = {"i8", true, TQ_I8},         [25] = {"i16", true, TQ_I16},       [26] = {"i32", true, TQ_I32},
    [27] = {"i64", true, TQ_I64},       [28] = {"f64", true, TQ_F64},       [29] = {"iq1_m", false, 0},
    [30] = {"bf16", true, TQ_BF16},     [31] = {"q4_0_4_4", false, 0},      [32] = {"q4_0_4_8", false, 0},
    [33] = {"q4_0_8_8", false, 0},      [34] = {"tq1_0", false, 0},         [35] = {"tq2_0", false, 0},
    [36] = {"iq4_nl_4_4", false, 0},    [37] = {"iq4_nl_4_8", false, 0},    [38] = {"iq4_nl_8_8", false, 0},
    [39] = {"mxfp4", true, TQ_MXFP4},   [40] = {"nvfp4", false, 0},         [41] = {"q1_0", false, 0},
};

enum { N_TYPES = sizeof types / sizeof *types };

bool tq_gguf_dtype(uint32_t number, tq_dtype *out) {
    if (number >= N_TYPES || !types[number].read) return false;
    *out = types[number].dtype;
    return true;
}

const char *tq_gguf_type_name(uint32_t number) { return number < N_TYPES ? types[number].name : NULL; }
