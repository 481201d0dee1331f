/* mlx_quantization.c: the "quantization" entry of an MLX config.json.
 * Owns: the rules of defaults and exceptions.  Not here: the packed tensors themselves (weights.c). */
#include "file/mlx_quantization.h"

#include <string.h>

bool tq_mlx_bits_known(int bits) { return (bits >= 2 && bits <= 6) || bits == 8; }

bool tq_mlx_group_size_known(int group_size) { return group_size == 32 || group_size == 64 || group_size == 128; }

/* A member that may be absent; absent means *value stays. */
static tq_status read_integer(const json_t *object, const char *key, const char *where, int *value, tq_error *err) {
    const json_t *json = json_object_get(object, key);
    if (!json) return TQ_OK;
    json_int_t n = json_integer_value(json);
    if (!json_is_integer(json) || n < 0 || n > 1 << 20)
        return tq_fail(err, TQ_FORMAT, "config.json: %.200s: %s is not a small integer", where, key);
    *value = (int)n;
    return TQ_OK;
}

/* bits, group_size and mode of one object, over what *out holds already. */
static tq_status read_parameters(const json_t *object, const char *where, tq_mlx_quantization *out, tq_error *err) {
    const json_t *mode = json_object_get(object, "mode"), *method = json_object_get(object, "quant_method");
    if (method && !json_is_null(method))
        return tq_fail(err, TQ_UNSUPPORTED, "config.json: %.200s: quantization method %.60s is not supported", where,
                       json_is_string(method) ? json_string_value(method) : "(not a string)");
    if (mode && !json_is_string(mode))
        return tq_fail(err, TQ_FORMAT, "config.json: %.200s: mode is not a string", where);
    if (mode && strcmp(json_string_value(mode), "affine") != 0)
        return tq_fail(err, TQ_UNSUPPORTED, "config.json: %.200s: quantization mode %.60s is not supported; affine is",
                       where, json_string_value(mode));
    TQ_TRY(read_integer(object, "bits", where, &out->bits, err));
    TQ_TRY(read_integer(object, "group_size", where, &out->group_size, err));
    if (!tq_mlx_bits_known(out->bits))
        return tq_fail(err, TQ_UNSUPPORTED, "config.json: %.200s: %d bits; 2, 3, 4, 5, 6 and 8 are supported", where,
                       out->bits);
    if (!tq_mlx_group_size_known(out->group_size))
        return tq_fail(err, TQ_UNSUPPORTED, "config.json: %.200s: groups of %d; 32, 64 and 128 are supported", where,
                       out->group_size);
    return TQ_OK;
}

/* The entry within one object; *name says which. */
static const json_t *find_entry(const json_t *object, const char **name) {
    static const char *const names[] = {"quantization", "quantization_config"};
    for (int i = 0; i < 2; i++) {
        const json_t *entry = json_object_get(object, *name = names[i]);
        if (entry && !json_is_null(entry)) return entry;
    }
    return NULL;
}

tq_status tq_mlx_quantization_read(const json_t *config, tq_mlx_quantization *out, tq_error *err) {
    *out = (tq_mlx_quantization){0};
    const char *name = NULL;
    const json_t *entry = find_entry(config, &name);
    if (!entry) entry = find_entry(json_object_get(config, "text_config"), &name);
    if (!entry) return TQ_OK;
    if (!json_is_object(entry)) return tq_fail(err, TQ_FORMAT, "config.json: %s is not an object", name);
    TQ_TRY(read_parameters(entry, name, out, err));
    out->entry = entry;
    return TQ_OK;
}

tq_status tq_mlx_quantization_of(const tq_mlx_quantization *all, const char *path, bool has_scales, bool *quantized,
                                 tq_mlx_quantization *out, tq_error *err) {
    const json_t *own = json_object_get(all->entry, path);
    *quantized = has_scales;
    *out = *all;
    if (json_is_boolean(own)) {
        *quantized = json_is_true(own);
    } else if (json_is_object(own)) {
        *quantized = true;
        TQ_TRY(read_parameters(own, path, out, err));
    } else if (own) {
        return tq_fail(err, TQ_FORMAT, "config.json: quantization of %.200s: want an object, true or false", path);
    }
    if (*quantized && !all->entry)
        return tq_fail(err, TQ_FORMAT, "%.200s.scales: the matrix is quantized, but config.json does not say how",
                       path);
    return TQ_OK;
}
