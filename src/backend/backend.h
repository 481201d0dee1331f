/* backend.h: where tensors live and operations run: one table of operations a kind of device.
 *
 * model/ and cache/ see only this.  Activations are float32, row-major, with shapes in parentheses.  Every operation
 * gives the same result for any number of threads.  Operations cannot fail: what they need is reserved before. */
#ifndef TQ_BACKEND_BACKEND_H
#define TQ_BACKEND_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/tensor.h"
#include "codec/codec.h"

typedef struct tq_backend tq_backend;

/* Keys and values of one layer, as the cache keeps them.  KV head h of page p stands at pages[p] + h * page_bytes: its
 * key block, and its value block at value_at.  Exact rows: (n_kv_heads, exact_cap, head_dim) f16, sinks first, then the
 * window.  Token order: sinks, forgotten rows, packed rows, window. */
typedef struct tq_kv_store {
    const tq_codec *key, *value;
    int n_kv_heads, head_dim;
    uint8_t *const *pages;
    size_t page_bytes, value_at;
    int n_packed;
    uint16_t *exact_k, *exact_v;
    int exact_cap, n_sinks, n_window;
    int n_forgotten; /* rows that are kept nowhere: window:N, and what a sliding layer no longer sees */
    int sliding;     /* a query at position p sees the keys from p - sliding + 1 on; then there are no sinks.  0: all */
} tq_kv_store;

/* Attention of n new tokens to everything stored and, causally, to themselves.
 * q, out: (n, n_heads, head_dim); k, v: (n, n_kv_heads, head_dim). */
typedef struct tq_attend_args {
    const tq_kv_store *store;
    int n_heads, n;
    float scale; /* of q.k */
    float cap;   /* scores become cap * tanh(score / cap); 0: they stay */
    const float *sink_logits; /* (n_heads): a score with no value behind it, in every softmax of the head; or NULL */
    const float *q, *k, *v;
    float *out;
    void *scratch; /* tq_backend_attend_bytes(), 64-byte aligned */
} tq_attend_args;

/* The queue of rows that are not packed: the window, then n chunk rows k, v: (n, n_kv_heads, head_dim).  Drop its first
 * n_forget rows (only while nothing is packed), pack the next n_pack behind the n_packed that are there (pages are in
 * place), then make the rest the window.  New pages get their centre from the rows of the queue that will fill them. */
typedef struct tq_flush_args {
    tq_kv_store *store; /* n_forgotten, n_packed and n_window are updated */
    const float *k, *v;
    int n, n_forget, n_pack;
} tq_flush_args;

/* One part of every group of a row: see split. */
typedef struct tq_split_part {
    float *to;     /* row t, group g at to + t * stride + g * width */
    int width;
    size_t stride; /* floats from one row to the next */
} tq_split_part;

/* A causal convolution of each channel with its own kernel, then silu:
 *     y[t][c] = silu(sum over i < kernel of weight[i][c] * x[t - kernel + 1 + i][c])
 * x, y: (n, channels), weight: (kernel, channels); state: (kernel - 1, channels), the inputs before the first, updated. */
typedef struct tq_conv_args {
    const float *x, *weight;
    float *state, *y;
    int n, channels, kernel;
} tq_conv_args;

/* Gated delta nets, token after token; heads are independent.  For value head j and its key head:
 *     q, k = l2norm(q) / sqrt(key_dim), l2norm(k);  decay = exp(-rate * softplus(a + bias));  beta = sigmoid(b)
 *     state = decay * state + beta * (v - decay * state k) k^T;  y = state q
 * qkv: (n, n_key_heads * key_dim * 2 + n_value_heads * value_dim), queries, keys, values; a, b: (n, n_value_heads); rate,
 * bias: (n_value_heads); state: (n_value_heads, value_dim, key_dim), updated; y: (n, n_value_heads, value_dim).
 * tiled: value head j belongs to key head j % n_key_heads; else to j / (n_value_heads / n_key_heads). */
typedef struct tq_delta_args {
    float *qkv; /* its queries and keys are normed in place */
    const float *a, *b, *rate, *bias;
    float *state, *y;
    int n, n_key_heads, n_value_heads, key_dim, value_dim;
    bool tiled;
} tq_delta_args;

/* What a gate does to the values beside it:
 *     SILU            silu(gate) * up
 *     GELU            gelu(gate) * up, gelu in its tanh form
 *     CLAMPED_SWIGLU  g * sigmoid(alpha * g) * (u + 1), g = min(gate, limit), u = up within +-limit */
typedef enum tq_activation { TQ_ACTIVATION_SILU, TQ_ACTIVATION_GELU, TQ_ACTIVATION_CLAMPED_SWIGLU } tq_activation;
typedef struct tq_gating {
    tq_activation activation;
    float alpha, limit;
} tq_gating;

enum { TQ_SINGLE_TOKENS = 16 };

/* One of several products with the same x: y (n, rows) = x (n, cols) W^T + bias (rows) or NULL. */
typedef struct tq_product {
    const tq_matrix *w;
    const float *bias;
    float *y;
} tq_product;

/* A gated feed-forward block: down's y = down(gating of gate(x) and up(x)).  gate and up have as many rows as down has columns; their y
 * may be used on the way, and hold anything afterwards.  x may be where down's y is. */
typedef struct tq_gated_args {
    tq_product gate, up, down;
    tq_gating gating;
    const float *x; /* (n, gate's cols) */
    int n;
} tq_gated_args;

typedef struct tq_backend_ops {
    void (*free)(tq_backend *backend);
    /* x (n, dim) = rows ids of table */
    void (*embed)(tq_backend *backend, const tq_matrix *table, const int32_t *ids, int n, float *x);
    /* y (n, rows) = x (n, cols) W^T + bias (rows) or NULL.  Up to TQ_SINGLE_TOKENS tokens each get the same bits as they
     * would alone: sequences that decode together do not touch each other's results. */
    void (*matmul)(tq_backend *backend, const tq_matrix *w, const float *bias, const float *x, int n, float *y);
    /* Several matrices of equal cols and one x, as one job. */
    void (*matmul_many)(tq_backend *backend, const tq_product *products, int count, const float *x, int n);
    void (*gated)(tq_backend *backend, const tq_gated_args *args);
    /* y (n, dim) = x / sqrt(mean(x^2) + eps) * weight (dim) */
    void (*rms_norm)(tq_backend *backend, const float *x, const float *weight, int n, int dim, float eps, float *y);
    /* x += y, count values */
    void (*add)(tq_backend *backend, float *x, const float *y, size_t count);
    /* gate = gating of gate and up, count values */
    void (*activate)(tq_backend *backend, const tq_gating *gating, float *gate, const float *up, size_t count);
    /* x *= sigmoid(gate) */
    void (*sigmoid_mul)(tq_backend *backend, float *x, const float *gate, size_t count);
    /* x = cap * tanh(x / cap) */
    void (*soft_cap)(tq_backend *backend, float *x, float cap, size_t count);
    /* x *= factor */
    void (*scale)(tq_backend *backend, float *x, float factor, size_t count);
    /* Row t of x (n, dim) *= factors[t]. */
    void (*scale_rows)(tq_backend *backend, float *x, const float *factors, int n, int dim);
    /* Rows of x (n, n_groups, sum of widths) are taken apart: part p of every group goes to its own place. */
    void (*split)(tq_backend *backend, const float *x, int n, int n_groups, const tq_split_part *parts, int n_parts);
    /* y (n, dim) = rows of x (.., dim) */
    void (*gather_rows)(tq_backend *backend, const float *x, const int32_t *rows, int n, int dim, float *y);
    /* x[rows[i]] += weights[i] * y[i], y (n, dim); rows are distinct */
    void (*scatter_rows)(tq_backend *backend, const float *y, const int32_t *rows, const float *weights, int n, int dim,
                         float *x);
    /* Softmax of logits (n, n_experts), the k largest: ids, weights (n, k); of equals the first.  renormalize: the weights
     * of a token sum to 1. */
    void (*route)(tq_backend *backend, const float *logits, int n, int n_experts, int k, bool renormalize, int32_t *ids,
                  float *weights);
    void (*conv)(tq_backend *backend, const tq_conv_args *args);
    void (*delta)(tq_backend *backend, const tq_delta_args *args);
    /* Rotate pairs of the first n_dims of each head of x (n, n_heads, head_dim): (i, i + n_dims/2), or if adjacent
     * (2i, 2i + 1).  angles (n, n_dims/2, 2) are cosine, sine. */
    void (*rope)(tq_backend *backend, float *x, const float *angles, int n, int n_heads, int head_dim, int n_dims,
                 bool adjacent);
    void (*attend)(tq_backend *backend, const tq_attend_args *args);
    void (*flush)(tq_backend *backend, const tq_flush_args *args);
    /* Of the first n keys that a flush would pack, over all KV heads: the share of their energy that is in each head's mean.
     * Negative where they have none, or none that is a number.  The same bits however many of them come with the chunk. */
    double (*centre_share)(tq_backend *backend, const tq_flush_args *args, int n);
    /* Scratch that attend needs for chunks of up to max_n tokens and up to max_tokens stored. */
    size_t (*attend_bytes)(const tq_backend *backend, const tq_codec *key, const tq_codec *value, int n_heads,
                           int n_kv_heads, int head_dim, int max_n, int max_tokens);
} tq_backend_ops;

struct tq_backend {
    const tq_backend_ops *ops;
    char name[48]; /* "cpu/avx512" */
    int n_threads;
};

/* kernels: an instruction set, or NULL (see kernels.h).  bf16_prefill: products, and where kernels have it attention, of more than
 * TQ_SINGLE_TOKENS tokens round both sides to bf16; TQ_UNSUPPORTED where no kernels do.  max_cols: the widest matrix that matmul will see. */
tq_status tq_cpu_backend_new(int n_threads, const char *kernels, bool bf16_prefill, int max_cols, tq_backend **out, tq_error *err);
void tq_backend_free(tq_backend *backend); /* NULL is fine */

#endif
