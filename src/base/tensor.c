/* tensor.c: names and sizes of element types. */
#include "base/tensor.h"

static const struct {
    const char *name;
    size_t bytes;
    int block; /* elements */
} dtypes[TQ_N_DTYPES] = {
    [TQ_F32] = {"f32", 4, 1},       [TQ_F16] = {"f16", 2, 1},         [TQ_BF16] = {"bf16", 2, 1},
    [TQ_F64] = {"f64", 8, 1},       [TQ_I64] = {"i64", 8, 1},         [TQ_I32] = {"i32", 4, 1},
    [TQ_I16] = {"i16", 2, 1},       [TQ_I8] = {"i8", 1, 1},           [TQ_U64] = {"u64", 8, 1},
    [TQ_U32] = {"u32", 4, 1},       [TQ_U16] = {"u16", 2, 1},         [TQ_U8] = {"u8", 1, 1},
    [TQ_BOOL] = {"bool", 1, 1},     [TQ_F8_E4M3] = {"f8_e4m3", 1, 1}, [TQ_F8_E5M2] = {"f8_e5m2", 1, 1},
    [TQ_Q4_0] = {"q4_0", 18, 32},   [TQ_Q4_1] = {"q4_1", 20, 32},     [TQ_Q5_0] = {"q5_0", 22, 32},
    [TQ_Q5_1] = {"q5_1", 24, 32},   [TQ_Q8_0] = {"q8_0", 34, 32},     [TQ_Q2_K] = {"q2_k", 84, 256},
    [TQ_Q3_K] = {"q3_k", 110, 256}, [TQ_Q4_K] = {"q4_k", 144, 256},   [TQ_Q5_K] = {"q5_k", 176, 256},
    [TQ_Q6_K] = {"q6_k", 210, 256}, [TQ_IQ4_NL] = {"iq4_nl", 18, 32}, [TQ_IQ4_XS] = {"iq4_xs", 136, 256},
    [TQ_MXFP4] = {"mxfp4", 17, 32},
};

const char *tq_dtype_name(tq_dtype dtype) { return dtypes[dtype].name; }
size_t tq_dtype_bytes(tq_dtype dtype) { return dtypes[dtype].bytes; }
int tq_dtype_block(tq_dtype dtype) { return dtypes[dtype].block; }
size_t tq_dtype_align(tq_dtype dtype) { return dtypes[dtype].block > 1 ? 1 : dtypes[dtype].bytes; }

size_t tq_matrix_row_bytes(const tq_matrix *matrix) {
    switch (matrix->kind) {
    case TQ_MATRIX_F32: return (size_t)matrix->cols * 4;
    case TQ_MATRIX_F16:
    case TQ_MATRIX_BF16: return (size_t)matrix->cols * 2;
    case TQ_MATRIX_MXFP4:
    case TQ_MATRIX_MXFP8:
    case TQ_MATRIX_NVFP4:
    case TQ_MATRIX_AFFINE: return (size_t)matrix->cols * (size_t)matrix->bits / 8;
    case TQ_MATRIX_BLOCKS:
        return (size_t)(matrix->cols / tq_dtype_block(matrix->block_type)) * tq_dtype_bytes(matrix->block_type);
    case TQ_N_MATRIX_KINDS: break;
    }
    return 0;
}

tq_matrix tq_matrix_rows(const tq_matrix *matrix, int first, int n) {
    tq_matrix m = *matrix;
    m.rows = n;
    m.data = (const uint8_t *)m.data + (size_t)first * tq_matrix_row_bytes(matrix);
    if (m.group_size) {
        size_t skip = (size_t)first * (size_t)(m.cols / m.group_size) * tq_dtype_bytes(m.scale_dtype);
        m.scales = (const uint8_t *)m.scales + skip;
        if (m.biases) m.biases = (const uint8_t *)m.biases + skip;
    }
    return m;
}
