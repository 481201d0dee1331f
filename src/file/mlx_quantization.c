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

/* bits and group_size 0: any that affine has. */
static const struct mode {
    const char *name;
    tq_matrix_kind kind;
    int bits, group_size;
} modes[] = {
    {"affine", TQ_MATRIX_AFFINE, 0, 0},
    {"mxfp4", TQ_MATRIX_MXFP4, 4, 32},
    {"mxfp8", TQ_MATRIX_MXFP8, 8, 32},
    {"nvfp4", TQ_MATRIX_NVFP4, 4, 16},
};

const char *tq_mlx_mode_name(tq_matrix_kind mode) {
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (modes[i].kind == mode) return modes[i].name;
    return "?";
}

static tq_status read_mode(const json_t *object, const char *where, const struct mode **out, tq_error *err) {
    const json_t *mode = json_object_get(object, "mode");
    *out = &modes[0];
    if (!mode || json_is_null(mode)) return TQ_OK;
    if (!json_is_string(mode)) return tq_fail(err, TQ_FORMAT, "config.json: %.200s: mode is not a string", where);
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (strcmp(json_string_value(mode), modes[i].name) == 0) {
            *out = &modes[i];
            return TQ_OK;
        }
    return tq_fail(err, TQ_UNSUPPORTED,
                   "config.json: %.200s: quantization mode %.60s is not supported; affine, mxfp4, mxfp8 and nvfp4 are",
                   where, json_string_value(mode));
}

/* bits, group_size and mode of one object; what it leaves out is what MLX takes then. */
static tq_status read_parameters(const json_t *object, const char *where, tq_mlx_quantization *out, tq_error *err) {
    const json_t *method = json_object_get(object, "quant_method");
    const struct mode *mode;
    if (method && !json_is_null(method))
        return tq_fail(err, TQ_UNSUPPORTED, "config.json: %.200s: quantization method %.60s is not supported", where,
                       json_is_string(method) ? json_string_value(method) : "(not a string)");
    TQ_TRY(read_mode(object, where, &mode, err));
    out->mode = mode->kind;
    out->bits = mode->bits ? mode->bits : 4;
    out->group_size = mode->group_size ? mode->group_size : 64;
    TQ_TRY(read_integer(object, "bits", where, &out->bits, err));
    TQ_TRY(read_integer(object, "group_size", where, &out->group_size, err));
    if (mode->bits && (out->bits != mode->bits || out->group_size != mode->group_size))
        return tq_fail(err, TQ_FORMAT, "config.json: %.200s: %s has %d bits in groups of %d, not %d in groups of %d", where,
                       mode->name, mode->bits, mode->group_size, out->bits, out->group_size);
    if (mode->bits) return TQ_OK;
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
    const char *method = json_string_value(json_object_get(entry, "quant_method"));
    if (method && strcmp(method, "mxfp4") == 0) return TQ_OK;
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
