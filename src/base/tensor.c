/* tensor.c: names and sizes of element types. */
#include "base/tensor.h"

static const struct {
    const char *name;
    size_t bytes;
} dtypes[TQ_N_DTYPES] = {
    [TQ_F32] = {"f32", 4},   [TQ_F16] = {"f16", 2}, [TQ_BF16] = {"bf16", 2}, [TQ_F64] = {"f64", 8},
    [TQ_I64] = {"i64", 8},   [TQ_I32] = {"i32", 4}, [TQ_I16] = {"i16", 2},   [TQ_I8] = {"i8", 1},
    [TQ_U64] = {"u64", 8},   [TQ_U32] = {"u32", 4}, [TQ_U16] = {"u16", 2},   [TQ_U8] = {"u8", 1},
    [TQ_BOOL] = {"bool", 1}, [TQ_F8_E4M3] = {"f8_e4m3", 1}, [TQ_F8_E5M2] = {"f8_e5m2", 1},
};

const char *tq_dtype_name(tq_dtype dtype) { return dtypes[dtype].name; }
size_t tq_dtype_bytes(tq_dtype dtype) { return dtypes[dtype].bytes; }

size_t tq_matrix_row_bytes(const tq_matrix *matrix) {
    switch (matrix->kind) {
    case TQ_MATRIX_F32: return (size_t)matrix->cols * 4;
    case TQ_MATRIX_F16:
    case TQ_MATRIX_BF16: return (size_t)matrix->cols * 2;
    case TQ_MATRIX_MXFP4:
    case TQ_MATRIX_MXFP8:
    case TQ_MATRIX_NVFP4:
    case TQ_MATRIX_AFFINE: return (size_t)matrix->cols * (size_t)matrix->bits / 8;
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
