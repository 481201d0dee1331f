/* reply_json.c: log probabilities, usage, timings, the picture of a cache. */
#include "reply_json.h"

#include <stdlib.h>

/* JSON has no infinity; OpenAI's answers have this for what cannot come. */
static double finite(float logprob) { return logprob > -9999 ? (double)logprob : -9999; }

static void put_bytes(jout *j, const char *text, size_t n) {
    jout_key(j, "token");
    jout_string(j, text, n);
    jout_key(j, "bytes");
    jout_array(j);
    for (size_t i = 0; i < n; i++) jout_int(j, (unsigned char)text[i]);
    jout_end(j);
}

/* The text of a token; "" if memory is short. */
static char *piece(const tq_model *model, int32_t id, size_t *n) {
    char *text = NULL;
    tq_error error;
    *n = 0;
    return tq_detokenize(model, &id, 1, true, &text, n, &error) == TQ_OK ? text : NULL;
}

void reply_json_chat_logprobs(jout *j, const tq_model *model, const reply_logprob *list, int n) {
    jout_object(j);
    jout_key(j, "content");
    jout_array(j);
    for (int i = 0; i < n; i++) {
        jout_object(j);
        put_bytes(j, list[i].token, list[i].token_n);
        jout_put_number(j, "logprob", finite(list[i].logprob));
        jout_key(j, "top_logprobs");
        jout_array(j);
        for (int k = 0; k < list[i].n_top; k++) {
            size_t length;
            char *text = piece(model, list[i].top[k].id, &length);
            jout_object(j);
            put_bytes(j, text ? text : "", length);
            jout_put_number(j, "logprob", finite(list[i].top[k].logprob));
            jout_end(j);
            tq_free(text);
        }
        jout_end(j);
        jout_end(j);
    }
    jout_end(j);
    jout_put_string(j, "refusal", NULL);
    jout_end(j);
}

static void put_top_map(jout *j, const tq_model *model, const reply_logprob *lp) {
    jout_object(j);
    for (int k = 0; k < lp->n_top; k++) {
        size_t length;
        char *text = piece(model, lp->top[k].id, &length);
        jout_put_number(j, text ? text : "", finite(lp->top[k].logprob));
        tq_free(text);
    }
    jout_end(j);
}

void reply_json_text_logprobs(jout *j, const tq_model *model, const reply_logprob *list, int n) {
    jout_object(j);
    jout_key(j, "tokens");
    jout_array(j);
    for (int i = 0; i < n; i++) jout_string(j, list[i].token, list[i].token_n);
    jout_end(j);
    jout_key(j, "token_logprobs");
    jout_array(j);
    for (int i = 0; i < n; i++) jout_number(j, finite(list[i].logprob));
    jout_end(j);
    jout_key(j, "top_logprobs");
    jout_array(j);
    for (int i = 0; i < n; i++) put_top_map(j, model, &list[i]);
    jout_end(j);
    jout_key(j, "text_offset");
    jout_array(j);
    for (int i = 0; i < n; i++) jout_int(j, (int64_t)list[i].start);
    jout_end(j);
    jout_end(j);
}

void reply_json_usage(jout *j, const tq_usage *u, int reasoning_tokens) {
    jout_object(j);
    jout_put_int(j, "prompt_tokens", u->prompt_tokens);
    jout_put_int(j, "completion_tokens", u->generated_tokens);
    jout_put_int(j, "total_tokens", u->prompt_tokens + u->generated_tokens);
    jout_key(j, "prompt_tokens_details");
    jout_object(j);
    jout_put_int(j, "cached_tokens", u->cached_tokens);
    jout_end(j);
    jout_key(j, "completion_tokens_details");
    jout_object(j);
    jout_put_int(j, "reasoning_tokens", reasoning_tokens);
    jout_end(j);
    jout_end(j);
}

static double milliseconds(double seconds) { return (double)(long long)(seconds * 1e6 + 0.5) / 1e3; }
static double per_second(int n, double seconds) { return seconds > 0 ? (double)(long long)(n / seconds * 100 + 0.5) / 100 : 0; }

void reply_json_timings(jout *j, const tq_usage *u) {
    int evaluated = u->prompt_tokens - u->cached_tokens;
    jout_object(j);
    jout_put_int(j, "cache_n", u->cached_tokens);
    jout_put_int(j, "prompt_n", evaluated);
    jout_put_number(j, "prompt_ms", milliseconds(u->prefill_seconds));
    jout_put_number(j, "prompt_per_second", per_second(evaluated, u->prefill_seconds));
    jout_put_int(j, "predicted_n", u->generated_tokens);
    jout_put_number(j, "predicted_ms", milliseconds(u->decode_seconds));
    jout_put_number(j, "predicted_per_second", per_second(u->generated_tokens, u->decode_seconds));
    jout_put_number(j, "ttft_ms", milliseconds(u->ttft_seconds));
    jout_put_number(j, "queue_ms", milliseconds(u->queue_seconds));
    jout_end(j);
}

static void put_run(jout *j, const char *kind, int tokens) {
    if (tokens <= 0) return;
    jout_object(j);
    jout_put_string(j, "kind", kind);
    jout_put_int(j, "tokens", tokens);
    jout_end(j);
}

void reply_json_cache(jout *j, int sinks, const tq_request_cache *c) {
    int shared = c->shared_pages * TQ_PAGE_TOKENS < c->packed_tokens ? c->shared_pages * TQ_PAGE_TOKENS : c->packed_tokens;
    int first = sinks < c->exact_tokens ? sinks : c->exact_tokens;
    if (c->packed_tokens == 0) first = 0; /* then all is one run */
    jout_object(j);
    jout_put_string(j, "kv", c->kv);
    jout_put_int(j, "tokens", c->tokens);
    jout_put_int(j, "bytes", (int64_t)c->bytes);
    jout_put_int(j, "f16_bytes", (int64_t)c->f16_bytes);
    jout_put_int(j, "exact_tokens", c->exact_tokens);
    jout_put_int(j, "packed_tokens", c->packed_tokens);
    jout_put_int(j, "shared_tokens", shared);
    jout_put_int(j, "forgotten_tokens", c->forgotten_tokens);
    jout_put_int(j, "page_tokens", TQ_PAGE_TOKENS);
    jout_key(j, "strip");
    jout_array(j);
    put_run(j, "exact", first);
    put_run(j, "shared", shared);
    put_run(j, "packed", c->packed_tokens - shared);
    put_run(j, "exact", c->exact_tokens - first);
    jout_end(j);
    jout_end(j);
}
