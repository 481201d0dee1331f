/* session_file.c: a session as a file: which model, which tokens, and the cache.
 *
 *     magic "TQSESS1\n" | u64 model fingerprint | u32 n_tokens | i32 tokens | u64 checksum of these | cache snapshot
 *     and of a model with delta layers: recurrent state
 */
#include <errno.h>
#include <string.h>

#include "base/checksum.h"
#include "base/file_map.h"
#include "cache/snapshot.h"
#include "engine/session.h"

static const char MAGIC[8] = "TQSESS1\n";

/* Of the model's config and of samples of every tensor: enough to tell one model, or one quantization, from another. */
static uint64_t fingerprint(const tq_model *model) {
    const tq_config *c = &model->config;
    int32_t sizes[] = {c->n_layers, c->n_heads, c->n_kv_heads, c->head_dim, c->hidden, c->intermediate, c->vocab};
    uint64_t sum = tq_checksum(TQ_CHECKSUM_START, sizes, sizeof sizes);
    for (int i = 0; i < tq_weights_count(model->weights); i++) {
        const tq_tensor *t = tq_weights_at(model->weights, i);
        sum = tq_checksum(sum, t->name, strlen(t->name));
        sum = tq_checksum(sum, t->data, t->bytes < 256 ? t->bytes : 256);
    }
    return sum;
}

typedef struct session_head {
    char magic[8];
    uint64_t model;
    uint32_t n_tokens, unused;
} session_head;

static tq_status write_session(const tq_session *s, FILE *to, const char *path, tq_error *err) {
    session_head head = {.model = fingerprint(s->model), .n_tokens = (uint32_t)s->n_tokens};
    memcpy(head.magic, MAGIC, sizeof MAGIC);
    size_t n = (size_t)s->n_tokens;
    uint64_t sum = tq_checksum(tq_checksum(TQ_CHECKSUM_START, &head, sizeof head), s->tokens, n * sizeof *s->tokens);
    if (fwrite(&head, sizeof head, 1, to) != 1 || fwrite(s->tokens, sizeof *s->tokens, n, to) != n ||
        fwrite(&sum, sizeof sum, 1, to) != 1)
        return tq_fail(err, TQ_IO, "%s: %s", path, strerror(errno));
    TQ_TRY(tq_snapshot_write(s->cache, to, path, err));
    return s->state.n_layers > 0 ? tq_recurrent_state_write(&s->state, to, path, err) : TQ_OK;
}

tq_status tq_session_save(const tq_session *session, const char *path, tq_error *err) {
    tq_atomic_file file;
    TQ_TRY(tq_atomic_file_open(path, &file, err));
    tq_status status = write_session(session, file.stream, path, err);
    if (status == TQ_OK) return tq_atomic_file_commit(&file, err);
    tq_atomic_file_abandon(&file);
    return status;
}

static tq_status read_session(tq_session *s, FILE *from, const char *path, tq_error *err) {
    session_head head;
    if (fread(&head, sizeof head, 1, from) != 1 || memcmp(head.magic, MAGIC, sizeof MAGIC) != 0)
        return tq_fail(err, TQ_FORMAT, "%s: not a saved session", path);
    if (head.model != fingerprint(s->model))
        return tq_fail(err, TQ_INVALID, "%s: saved with another model than %s", path, s->model->path);
    if (head.n_tokens > (uint32_t)s->params.ctx)
        return tq_fail(err, TQ_FULL, "%s: holds %u tokens, the context has room for %d", path, head.n_tokens, s->params.ctx);
    size_t n = head.n_tokens;
    uint64_t sum;
    if (fread(s->tokens, sizeof *s->tokens, n, from) != n || fread(&sum, sizeof sum, 1, from) != 1)
        return tq_fail(err, TQ_FORMAT, "%s: the file ends too early", path);
    if (sum != tq_checksum(tq_checksum(TQ_CHECKSUM_START, &head, sizeof head), s->tokens, n * sizeof *s->tokens))
        return tq_fail(err, TQ_FORMAT, "%s: the checksum does not match: the file is damaged", path);
    for (size_t i = 0; i < n; i++)
        if (s->tokens[i] < 0 || s->tokens[i] >= s->model->config.vocab)
            return tq_fail(err, TQ_FORMAT, "%s: token id %d is outside the vocabulary of %d", path, s->tokens[i],
                           s->model->config.vocab);
    TQ_TRY(tq_snapshot_read(s->cache, from, path, err));
    if (tq_cache_length(s->cache) != (int)n) {
        int held = tq_cache_length(s->cache);
        tq_cache_clear(s->cache);
        return tq_fail(err, TQ_FORMAT, "%s: %zu tokens, but a cache of %d", path, n, held);
    }
    if (s->state.n_layers > 0) {
        tq_status status = tq_recurrent_state_read(&s->state, from, path, err);
        if (status != TQ_OK) {
            tq_cache_clear(s->cache);
            return status;
        }
        tq_recurrent_state_copy(&s->checkpoint, &s->state);
        s->checkpoint_tokens = (int)n;
    }
    s->n_tokens = (int)n;
    return TQ_OK;
}

tq_status tq_session_load(tq_session *session, const char *path, tq_error *err) {
    FILE *file = fopen(path, "rb");
    if (!file) return tq_fail(err, errno == ENOENT ? TQ_NOT_FOUND : TQ_IO, "%s: %s", path, strerror(errno));
    tq_cache_clear(session->cache);
    tq_recurrent_state_clear(&session->state);
    session->n_tokens = session->checkpoint_tokens = 0;
    session->has_logits = false;
    tq_status status = read_session(session, file, path, err);
    fclose(file);
    return status;
}
