/* config_reader.c: see config_reader.h. */
#include "model/config_reader.h"

#include <string.h>

const json_t *tq_config_value(tq_config_reader *r, const char *key) {
    if (!tq_config_was_read(r, key) && r->n_read < TQ_MAX_KEYS_READ) r->read[r->n_read++] = key;
    const json_t *value = json_object_get(r->json, key);
    return json_is_null(value) ? NULL : value;
}

bool tq_config_was_read(const tq_config_reader *r, const char *key) {
    for (int i = 0; i < r->n_read; i++)
        if (strcmp(r->read[i], key) == 0) return true;
    return false;
}

static tq_status missing(const tq_config_reader *r, const char *key) {
    return tq_fail(r->err, TQ_FORMAT, "%s: \"%s\" is missing", r->label, key);
}

tq_status tq_config_int(tq_config_reader *r, const char *key, int low, int high, int fallback, int *out) {
    const json_t *value = tq_config_value(r, key);
    *out = fallback;
    if (!value) return fallback < low ? missing(r, key) : TQ_OK;
    if (!json_is_integer(value)) return tq_fail(r->err, TQ_FORMAT, "%s: \"%s\": want an integer", r->label, key);
    json_int_t n = json_integer_value(value);
    if (n < low || n > high)
        return tq_fail(r->err, TQ_FORMAT, "%s: \"%s\": want %d to %d, got %lld", r->label, key, low, high, (long long)n);
    *out = (int)n;
    return TQ_OK;
}

tq_status tq_config_number(tq_config_reader *r, const char *key, double low, double high, double fallback, double *out) {
    const json_t *value = tq_config_value(r, key);
    *out = fallback;
    if (!value) return fallback < low ? missing(r, key) : TQ_OK;
    if (!json_is_number(value)) return tq_fail(r->err, TQ_FORMAT, "%s: \"%s\": want a number", r->label, key);
    *out = json_number_value(value);
    if (!(*out >= low && *out <= high))
        return tq_fail(r->err, TQ_FORMAT, "%s: \"%s\": want %g to %g, got %g", r->label, key, low, high, *out);
    return TQ_OK;
}

tq_status tq_config_float(tq_config_reader *r, const char *key, double low, double high, double fallback, float *out) {
    double number;
    TQ_TRY(tq_config_number(r, key, low, high, fallback, &number));
    *out = (float)number;
    return TQ_OK;
}

tq_status tq_config_bool(tq_config_reader *r, const char *key, bool fallback, bool *out) {
    const json_t *value = tq_config_value(r, key);
    *out = value ? json_is_true(value) : fallback;
    if (value && !json_is_boolean(value))
        return tq_fail(r->err, TQ_FORMAT, "%s: \"%s\": want true or false", r->label, key);
    return TQ_OK;
}

tq_status tq_config_string(tq_config_reader *r, const char *key, const char **out) {
    const json_t *value = tq_config_value(r, key);
    *out = json_string_value(value);
    if (value && !*out) return tq_fail(r->err, TQ_FORMAT, "%s: \"%s\": want a string", r->label, key);
    return TQ_OK;
}
