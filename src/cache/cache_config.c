/* cache_config.c: the name of a cache codec, with its overrides, to the codecs of keys and of values. */
#include <stdio.h>
#include <string.h>

#include "cache/kv_cache.h"
#include "codec/codec.h"

enum { NAME = 64 };

tq_cache_config tq_cache_config_default(void) {
    return (tq_cache_config){.kv = "auto", .buffer_size = 128, .sinks = 4, .flush_batch_size = 32};
}

/* "mlx-k{2,3,4}v{2,4}" */
static bool is_mlx(const char *kv) {
    return strlen(kv) == 8 && strncmp(kv, "mlx-k", 5) == 0 && kv[5] >= '2' && kv[5] <= '4' && kv[6] == 'v' &&
           (kv[7] == '2' || kv[7] == '4');
}

int tq_cache_window_of(const char *kv) {
    int n = -1, end = 0;
    if (!kv || sscanf(kv, "window:%7d%n", &n, &end) != 1 || kv[end] || kv[7] < '0' || kv[7] > '9') return -1;
    return n;
}

/* One side of tq:k=A,v=B: a codec, or a number of bits, which is the best codec of that size: 3.5 is tq3.5. */
static tq_status name_side(const char *kv, const char *text, int length, char *name, tq_error *err) {
    if (snprintf(name, NAME, "%s%.*s", *text >= '0' && *text <= '9' ? "tq" : "", length, text) < NAME) return TQ_OK;
    return tq_fail(err, TQ_INVALID, "codec '%.40s...': the name is too long", kv);
}

static tq_status split_sides(const char *kv, char *key, char *value, tq_error *err) {
    if (strncmp(kv, "mlx-k", 5) == 0) {
        if (!is_mlx(kv)) return tq_fail(err, TQ_INVALID, "codec '%s': want mlx-k{2,3,4}v{2,4}", kv);
        snprintf(key, NAME, "paper-prod:%c", kv[5]);
        snprintf(value, NAME, "minmax:%c:32", kv[7]);
    } else if (strncmp(kv, "window:", 7) == 0) {
        if (tq_cache_window_of(kv) < 0) return tq_fail(err, TQ_INVALID, "codec '%s': want window:TOKENS", kv);
        snprintf(key, NAME, "f16");
        snprintf(value, NAME, "f16");
    } else if (strncmp(kv, "tq:", 3) == 0) {
        const char *comma = strchr(kv, ',');
        if (strncmp(kv + 3, "k=", 2) != 0 || !comma || strncmp(comma + 1, "v=", 2) != 0 || strlen(kv) >= NAME)
            return tq_fail(err, TQ_INVALID, "codec '%s': want tq:k=CODEC,v=CODEC", kv);
        TQ_TRY(name_side(kv, kv + 5, (int)(comma - kv - 5), key, err));
        TQ_TRY(name_side(kv, comma + 3, NAME, value, err));
    } else {
        if (strlen(kv) >= NAME) return tq_fail(err, TQ_INVALID, "unknown codec '%.40s...'", kv);
        snprintf(key, NAME, "%s", kv);
        snprintf(value, NAME, "%s", kv);
    }
    return TQ_OK;
}

/* Put `bits` into a codec's name. */
static tq_status override_bits(char *name, int bits, const char *option, tq_error *err) {
    if (bits == 0) return TQ_OK;
    char was[NAME];
    memcpy(was, name, NAME);
    const char *family = strncmp(name, "tcq", 3) == 0 ? "tcq" : strncmp(name, "lm", 2) == 0 ? "lm" : "tq";
    if (strncmp(name, family, strlen(family)) == 0 || strcmp(name, "q8") == 0) {
        if (bits == 8) snprintf(name, NAME, "q8");
        else snprintf(name, NAME, "%s%d", family, bits);
        if (bits != 8 && (bits < 2 || bits > 4))
            return tq_fail(err, TQ_INVALID, "%s: codec '%s' has 2, 3, 4 or 8 bits, got %d", option, was, bits);
    } else if (strncmp(name, "paper-mse:", 10) == 0) {
        snprintf(name, NAME, "paper-mse:%d", bits);
    } else if (strncmp(name, "paper-prod:", 11) == 0) {
        snprintf(name, NAME, "paper-prod:%d", bits);
    } else if (strncmp(name, "paper-prod-orth:", 16) == 0) {
        snprintf(name, NAME, "paper-prod-orth:%d", bits);
    } else if (strncmp(name, "uniform:", 8) == 0) {
        snprintf(name, NAME, "uniform:%d", bits);
    } else if (strncmp(name, "minmax:", 7) == 0) {
        const char *group = strchr(was + 7, ':');
        snprintf(name, NAME, "minmax:%d%s", bits, group ? group : "");
    } else {
        return tq_fail(err, TQ_INVALID, "%s: codec '%s' has no choice of bits", option, name);
    }
    return TQ_OK;
}

static tq_status override_group(char *key, char *value, int group, tq_error *err) {
    if (group == 0) return TQ_OK;
    bool any = false;
    for (int side = 0; side < 2; side++) {
        char *name = side ? value : key;
        if (strncmp(name, "minmax:", 7) == 0) snprintf(name, NAME, "minmax:%c:%d", name[7], group);
        else if (strncmp(name, "q4-group", 8) == 0) snprintf(name, NAME, "q4-group:%d", group);
        else if (strncmp(name, "q8-group", 8) == 0) snprintf(name, NAME, "q8-group:%d", group);
        else continue;
        any = true;
    }
    if (!any) return tq_fail(err, TQ_INVALID, "value group size: codec '%s' has no groups", value);
    return TQ_OK;
}

/* tq_codec_new checks numbers; here, that what a cache can be is named where a cache was asked for. */
static tq_status check_known(const char *name, const char *kv, tq_error *err) {
    if (tq_codec_is_known(name)) return TQ_OK;
    return tq_fail(err, TQ_INVALID,
                   "unknown codec '%s': want %s, mlx-k{2,3,4}v{2,4}, window:TOKENS or tq:k=CODEC,v=CODEC", kv,
                   tq_codec_names);
}

tq_status tq_cache_codec_names(const tq_cache_config *config, char *key, char *value, char *canonical, tq_error *err) {
    const char *kv = config->kv;
    TQ_TRY(split_sides(kv, key, value, err));
    TQ_TRY(override_bits(key, config->key_bits, "key bits", err));
    TQ_TRY(override_bits(value, config->value_bits, "value bits", err));
    TQ_TRY(override_group(key, value, config->value_group_size, err));
    TQ_TRY(check_known(key, kv, err));
    TQ_TRY(check_known(value, kv, err));
    bool changed = config->key_bits || config->value_bits || config->value_group_size;
    int length = !changed                 ? snprintf(canonical, NAME, "%s", kv)
                 : strcmp(key, value) == 0 ? snprintf(canonical, NAME, "%s", key)
                                           : snprintf(canonical, NAME, "tq:k=%s,v=%s", key, value);
    if (length >= NAME) return tq_fail(err, TQ_INVALID, "codec '%.40s...': the name is too long", kv);
    return TQ_OK;
}
