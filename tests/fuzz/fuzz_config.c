/* fuzz_config.c: any bytes as a config.json: the model's shape and the quantization it asks for. */
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "file/mlx_quantization.h"
#include "model/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(tq_status status, const tq_error *err) {
    if (status != TQ_OK && (err->code != status || !memchr(err->text, 0, sizeof err->text))) abort();
}

static void read_quantization(const json_t *json) {
    tq_error err = {0};
    tq_mlx_quantization all, own;
    tq_status status = tq_mlx_quantization_read(json, &all, &err);
    check(status, &err);
    if (status != TQ_OK) return;
    for (int has_scales = 0; has_scales < 2; has_scales++) {
        bool quantized;
        status = tq_mlx_quantization_of(&all, "model.embed_tokens", has_scales, &quantized, &own, &err);
        check(status, &err);
        if (status == TQ_OK && quantized && own.mode == TQ_MATRIX_AFFINE && (!tq_mlx_bits_known(own.bits) || !tq_mlx_group_size_known(own.group_size)))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    json_t *json = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
    if (!json) return 0;
    tq_config config;
    tq_error err = {0};
    tq_status status = tq_config_read(json, "config.json", &config, &err);
    check(status, &err);
    if (status == TQ_OK && (config.n_layers < 1 || config.n_heads < 1 || config.n_kv_heads < 1 || config.head_dim < 1 ||
                            config.hidden < 1 || config.vocab < 1 || config.n_heads % config.n_kv_heads != 0))
        abort();
    read_quantization(json);
    json_decref(json);
    return 0;
}
