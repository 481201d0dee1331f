/* tensor.h: how numbers lie in a model file.  These structures borrow: the bytes belong to the mapped file. */
#ifndef TQ_BASE_TENSOR_H
#define TQ_BASE_TENSOR_H

#include <stddef.h>
#include <stdint.h>

#define TQ_MAX_DIMS 6
#define TQ_PAIRED_ROWS_MAX 1024 /* the largest head */

typedef enum tq_dtype {
    TQ_F32, TQ_F16, TQ_BF16, TQ_F64, TQ_I64, TQ_I32, TQ_I16, TQ_I8, TQ_U64, TQ_U32, TQ_U16, TQ_U8, TQ_BOOL,
    TQ_F8_E4M3, TQ_F8_E5M2,
    /* GGUF's blocks: several elements of a row share their scales (layouts: backend/cpu/block_rows.c) */
    TQ_Q4_0, TQ_Q4_1, TQ_Q5_0, TQ_Q5_1, TQ_Q8_0, TQ_Q2_K, TQ_Q3_K, TQ_Q4_K, TQ_Q5_K, TQ_Q6_K, TQ_IQ4_NL, TQ_IQ4_XS,
    TQ_MXFP4,
    TQ_N_DTYPES
} tq_dtype;

const char *tq_dtype_name(tq_dtype dtype); /* "f32", ... */
size_t tq_dtype_bytes(tq_dtype dtype);     /* of an element, or of a block */
int tq_dtype_block(tq_dtype dtype);        /* elements of a block; 1: elements stand alone */
size_t tq_dtype_align(tq_dtype dtype);     /* what kernels want of an address: the element's size; 1 for blocks */

typedef struct tq_tensor {
    const char *name;
    tq_dtype dtype;
    int n_dims;
    int64_t shape[TQ_MAX_DIMS];
    const void *data; /* row-major; aligned only as the file has it */
    size_t bytes;
    int paired_rows; /* as in tq_matrix */
} tq_tensor;

/* A weight matrix W (rows, cols) in the form the kernels read.  y = W x. */
typedef enum tq_matrix_kind {
    TQ_MATRIX_F32,
    TQ_MATRIX_F16,
    TQ_MATRIX_BF16,
    TQ_MATRIX_AFFINE, /* MLX: w = scale * q + bias by groups of group_size along a row */
    TQ_MATRIX_MXFP4,  /* MLX and Hugging Face: e2m1 values in groups of 32 with an e8m0 scale; low nibble first */
    TQ_MATRIX_MXFP8,  /* MLX: e4m3 values in groups of 32 with an e8m0 scale */
    TQ_MATRIX_NVFP4,  /* MLX: e2m1 values in groups of 16 with an e4m3 scale */
    TQ_MATRIX_BLOCKS, /* GGUF: rows of blocks of block_type */
    TQ_N_MATRIX_KINDS
} tq_matrix_kind;

typedef struct tq_matrix {
    tq_matrix_kind kind;
    int rows, cols;
    const void *data; /* (rows, cols) elements, or in groups rows of cols*bits/8 bytes: a little-endian bit stream,
                       * element k at bits k*bits.. */
    /* AFFINE, MXFP4, MXFP8 and NVFP4 only: */
    const void *scales, *biases; /* (rows, cols / group_size) of scale_dtype: F32, F16 or BF16 */
    tq_dtype scale_dtype;        /* MXFP4, MXFP8, NVFP4: U8, and no biases */
    int bits, group_size;
    /* BLOCKS only: cols is a whole number of blocks. */
    tq_dtype block_type;
    /* 0, or a head's rows d: those of each head stand as rotary pairs 0, d/2, 1, d/2+1, ... (GGUF's llama).  A product
     * with the whole matrix comes out in the usual order; a bias stands in the order of the rows. */
    int paired_rows;
} tq_matrix;

/* Rows first..first+n-1 as a matrix of its own. */
tq_matrix tq_matrix_rows(const tq_matrix *matrix, int first, int n);

/* Bytes of one row of data, scales not counted. */
size_t tq_matrix_row_bytes(const tq_matrix *matrix);

#endif
