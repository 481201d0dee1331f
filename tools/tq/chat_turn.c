/* chat_turn.c: reading what is new of a conversation, and replying. */
#include "chat_turn.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static tq_status fail(tq_error *err, tq_status code, const char *format, ...) __attribute__((format(printf, 3, 4)));

static tq_status fail(tq_error *err, tq_status code, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    err->code = code;
    return code;
}

static bool on_read(void *ctx, int done, int total) {
    chat_turn *t = ctx;
    progress_show(&t->bar, total > 0 ? (double)done / total : 1);
    return !interrupt_seen();
}

/* How many tokens of the conversation the session already holds.  At least one is left to evaluate: logits come from
 * an evaluation. */
static int common_prefix(const tq_session *session, const int32_t *ids, size_t n) {
    const int32_t *held = tq_session_tokens(session);
    int length = tq_session_length(session), at = 0;
    while (at < length && (size_t)at < n && held[at] == ids[at]) at++;
    return at > 0 && (size_t)at == n ? at - 1 : at;
}

/* Bring the session to exactly these tokens. */
static tq_status read_tokens(chat_turn *t, const int32_t *ids, size_t n, int n_reserved, tq_error *err) {
    int ctx = tq_session_ctx(t->session);
    if (n + (size_t)n_reserved > (size_t)ctx)
        return fail(err, TQ_FULL,
                    "the context is full: the conversation has %zu tokens, the context holds %d; "
                    "/reset starts anew",
                    n, ctx);
    t->n_kept = common_prefix(t->session, ids, n);
    t->n_read = (int)n - t->n_kept;
    if (t->n_kept < tq_session_length(t->session)) {
        tq_status status = tq_session_rewind(t->session, t->n_kept, err);
        if (status == TQ_INVALID) { /* a layer cannot go back that far: all is read again */
            t->n_kept = 0;
            t->n_read = (int)n;
            status = tq_session_rewind(t->session, 0, err);
        }
        if (status != TQ_OK) return status;
    }
    progress_begin(&t->bar, "reading");
    tq_session_set_progress(t->session, on_read, t);
    tq_status status = tq_session_eval(t->session, ids + t->n_kept, t->n_read, err);
    tq_session_set_progress(t->session, NULL, NULL);
    progress_end(&t->bar);
    if (status == TQ_OK && interrupt_seen()) return fail(err, TQ_CANCELLED, "stopped");
    return status;
}

static tq_status read_conversation(chat_turn *t, unsigned flags, tq_error *err) {
    int32_t *ids = NULL;
    size_t n = 0;
    tq_status status = tq_chat_tokens(t->model, t->talk.messages, t->talk.n, flags, &ids, &n, err);
    if (status == TQ_OK && n > 0) status = read_tokens(t, ids, n, flags & TQ_CHAT_ADD_GENERATION_PROMPT ? 1 : 0, err);
    tq_free(ids);
    return status;
}

tq_status chat_turn_catch_up(chat_turn *t, tq_error *err) {
    if (t->talk.n == 0) return TQ_OK;
    interrupt_watch(false);
    tq_status status = read_conversation(t, 0, err);
    interrupt_unwatch();
    return status;
}

/* ---- the reply --------------------------------------------------------------------------------------------------- */

static bool on_text(void *ctx, const char *text, size_t n) {
    chat_turn *t = ctx;
    if (t->reply_n + n + 1 > t->reply_cap) {
        size_t cap = 2 * (t->reply_n + n + 1);
        char *grown = realloc(t->reply, cap);
        if (!grown) return false; /* ends the reply here; what was said is kept */
        t->reply = grown;
        t->reply_cap = cap;
    }
    memcpy(t->reply + t->reply_n, text, n);
    t->reply_n += n;
    t->reply[t->reply_n] = 0;
    if (!terminal_write_text(stdout, text, n)) t->write_failed = true;
    return !t->write_failed && !interrupt_seen();
}

static tq_status generate(chat_turn *t, tq_error *err) {
    tq_generate_params params = tq_generate_params_default();
    params.max_tokens = t->max_tokens;
    params.sampling = t->sampling;
    params.on_text = on_text;
    params.ctx = t;
    tq_generate_result result = {0};
    tq_status status = tq_generate(t->session, &params, &result, err);
    if (status == TQ_OK) {
        t->n_replied = result.n_ids;
        t->decode_seconds = result.decode_seconds;
        t->finish = result.finish;
        t->sampling.seed++;
    }
    tq_generate_result_free(&result);
    return status;
}

static tq_status run(chat_turn *t, tq_error *err) {
    tq_status status = read_conversation(t, TQ_CHAT_ADD_GENERATION_PROMPT, err);
    if (status != TQ_OK) return status;
    status = generate(t, err);
    if (status == TQ_CANCELLED && t->reply_n > 0) status = TQ_OK, t->finish = TQ_FINISH_CANCELLED;
    if (status != TQ_OK) return status;
    if (t->finish == TQ_FINISH_CANCELLED && t->reply_n == 0) return fail(err, TQ_CANCELLED, "stopped");
    if (!conversation_add(&t->talk, "assistant", t->reply_n ? t->reply : ""))
        return fail(err, TQ_NO_MEMORY, "out of memory for the reply");
    return TQ_OK;
}

tq_status chat_turn_say(chat_turn *t, const char *text, tq_error *err) {
    double start = terminal_seconds();
    t->n_kept = t->n_read = t->n_replied = 0;
    t->reply_n = 0;
    t->decode_seconds = 0;
    t->finish = TQ_FINISH_STOP;
    if (!conversation_add(&t->talk, "user", text)) return fail(err, TQ_NO_MEMORY, "out of memory for the message");
    interrupt_watch(false);
    tq_status status = run(t, err);
    interrupt_unwatch();
    if (status != TQ_OK) conversation_drop_last(&t->talk);
    t->seconds = terminal_seconds() - start;
    return status;
}
