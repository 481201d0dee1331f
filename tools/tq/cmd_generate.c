/* cmd_generate.c: `tq generate`: one prompt, one reply, and what it cost. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "json_out.h"
#include "setup.h"
#include "terminal.h"

static const char *const NAME = "generate";

typedef struct generate_options {
    model_options model;
    cache_options cache;
    sampling_options sampling;
    const char *prompt, *prompt_file, *system;
    bool raw, json;
    int max_tokens;
} generate_options;

/* One run: what is open, and what was measured. */
typedef struct generate_run {
    const generate_options *o;
    tq_model *model;
    tq_session *session;
    char *text;   /* of the prompt */
    int32_t *ids; /* of the prompt (n_ids) */
    size_t n_ids;
    tq_sampling sampling;
    tq_generate_result result;
    progress_bar bar;
    double load_seconds, prefill_start, prefill_seconds, first_text; /* first_text: 0 before any */
    bool write_failed;
} generate_run;

/* ---- the prompt -------------------------------------------------------------------------------------------------- */

/* A text file ends with a newline that is not part of what it says. */
static void drop_final_newline(char *text, size_t *n) {
    if (*n > 0 && text[*n - 1] == '\n') (*n)--;
    if (*n > 0 && text[*n - 1] == '\r') (*n)--;
    text[*n] = 0;
}

/* --prompt, or the file, or the file, an empty line and --prompt. */
static int read_prompt(generate_run *run) {
    const generate_options *o = run->o;
    if (!o->prompt_file) {
        run->text = strdup(o->prompt);
        return run->text ? EXIT_SUCCESS : setup_fail(NAME, "out of memory for the prompt");
    }
    size_t n = 0;
    int code = setup_read_text(NAME, o->prompt_file, &run->text, &n);
    if (code != EXIT_SUCCESS) return code;
    if (!o->raw) drop_final_newline(run->text, &n);
    if (!o->prompt) return EXIT_SUCCESS;
    const char *between = o->raw ? "" : "\n\n";
    size_t size = n + strlen(between) + strlen(o->prompt) + 1;
    char *grown = realloc(run->text, size);
    if (!grown) return setup_fail(NAME, "out of memory: %zu bytes for the prompt", size);
    run->text = grown;
    snprintf(run->text + n, size - n, "%s%s", between, o->prompt);
    return EXIT_SUCCESS;
}

static int make_tokens(generate_run *run) {
    const generate_options *o = run->o;
    tq_error err;
    tq_status status;
    if (o->raw) {
        status = tq_tokenize_prompt(run->model, run->text, strlen(run->text), true, &run->ids, &run->n_ids, &err);
    } else {
        if (!tq_model_get_info(run->model)->has_chat_template)
            return setup_fail(NAME, "the model has no chat template; with --raw the prompt is taken as it is");
        tq_message messages[2] = {{"system", o->system}, {"user", run->text}};
        int skip = o->system ? 0 : 1;
        status = tq_chat_tokens(run->model, messages + skip, (size_t)(2 - skip), TQ_CHAT_ADD_GENERATION_PROMPT,
                                &run->ids, &run->n_ids, &err);
    }
    if (status != TQ_OK) return setup_fail(NAME, "%s", err.text);
    if (run->n_ids == 0) return setup_fail(NAME, "the prompt is empty");
    return EXIT_SUCCESS;
}

/* Without --ctx, room for this prompt and its reply is enough: a small prompt need not reserve the whole context. */
static int choose_ctx(const generate_run *run) {
    int most = tq_model_get_info(run->model)->max_context;
    if (run->o->cache.ctx > 0) return run->o->cache.ctx;
    size_t wanted = run->n_ids + (size_t)run->o->max_tokens;
    wanted = (wanted + TQ_PAGE_TOKENS - 1) / TQ_PAGE_TOKENS * TQ_PAGE_TOKENS;
    return most > 0 && wanted > (size_t)most ? most : wanted > INT_MAX ? INT_MAX : (int)wanted;
}

static int open_session(generate_run *run) {
    int ctx = choose_ctx(run);
    if (run->n_ids + 1 > (size_t)ctx)
        return setup_fail(NAME, "the prompt has %zu tokens; a context of %d holds it and a reply only up to %d",
                          run->n_ids, ctx, ctx - 1);
    return setup_session(NAME, run->model, &run->o->cache.config, ctx, &run->session);
}

/* ---- the reply --------------------------------------------------------------------------------------------------- */

static bool on_prefill(void *ctx, int done, int total) {
    generate_run *run = ctx;
    progress_show(&run->bar, total > 0 ? (double)done / total : 1);
    return !interrupt_seen();
}

static bool on_text(void *ctx, const char *text, size_t n) {
    generate_run *run = ctx;
    if (run->first_text == 0) run->first_text = terminal_seconds();
    if (!run->o->json && !terminal_write_text(stdout, text, n)) run->write_failed = true;
    return !run->write_failed && !interrupt_seen();
}

static int reply(generate_run *run) {
    tq_error err;
    run->result.finish = TQ_FINISH_CANCELLED; /* unless it gets further than the prompt */
    interrupt_watch(true);
    progress_begin(&run->bar, "reading");
    tq_session_set_progress(run->session, on_prefill, run);
    run->prefill_start = terminal_seconds();
    tq_status status = tq_session_eval(run->session, run->ids, (int)run->n_ids, &err);
    run->prefill_seconds = terminal_seconds() - run->prefill_start;
    progress_end(&run->bar);
    tq_session_set_progress(run->session, NULL, NULL);
    if (status == TQ_OK && !interrupt_seen()) {
        tq_generate_params params = tq_generate_params_default();
        params.max_tokens = run->o->max_tokens;
        params.sampling = run->sampling;
        params.on_text = on_text;
        params.ctx = run;
        status = tq_generate(run->session, &params, &run->result, &err);
    }
    interrupt_unwatch();
    if (status != TQ_OK && status != TQ_CANCELLED) return setup_fail(NAME, "%s", err.text);
    return EXIT_SUCCESS;
}

/* ---- the account ------------------------------------------------------------------------------------------------- */

static double rate(double n, double seconds) { return seconds > 0 ? n / seconds : 0; }

static const char *finish_name(tq_finish finish) {
    switch (finish) {
    case TQ_FINISH_STOP: return "stop";
    case TQ_FINISH_LENGTH: return "length";
    case TQ_FINISH_CANCELLED: return "cancelled";
    }
    return "unknown";
}

/* The tokens of the prompt that were evaluated: fewer than it has after Ctrl-C. */
static int prompt_done(const generate_run *run) {
    int length = tq_session_length(run->session);
    return length < (int)run->n_ids ? length : (int)run->n_ids;
}

static double first_token_seconds(const generate_run *run) {
    return run->first_text > 0 ? run->first_text - run->prefill_start : run->prefill_seconds;
}

static void print_summary(const generate_run *run) {
    tq_cache_stats stats;
    tq_session_get_cache_stats(run->session, &stats);
    char bytes[32], f16[32], peak[32];
    const tq_generate_result *r = &run->result;
    fprintf(stderr, "\nprompt: %d tokens, %.1f tok/s", prompt_done(run), rate(prompt_done(run), run->prefill_seconds));
    if (prompt_done(run) < (int)run->n_ids) fprintf(stderr, " (stopped; it has %zu)", run->n_ids);
    fprintf(stderr, "\nreply:  %d tokens, %.1f tok/s (%s)\n", r->n_ids, rate(r->n_ids, r->decode_seconds),
            finish_name(r->finish));
    fprintf(stderr, "cache:  %s as %s, %s as f16 (ratio %.2f)\n", terminal_bytes(bytes, stats.bytes),
            tq_session_kv(run->session), terminal_bytes(f16, stats.f16_bytes),
            rate((double)stats.f16_bytes, (double)stats.bytes));
    fprintf(stderr, "        %d tokens packed, %d exact\n", stats.packed_tokens, stats.exact_tokens);
    fprintf(stderr, "memory: %s at its peak\n", terminal_bytes(peak, terminal_peak_rss()));
    if (run->sampling.temp > 0)
        fprintf(stderr, "seed:   %llu (to have this reply again)\n", (unsigned long long)run->sampling.seed);
}

static void put_timings(jout *j, const generate_run *run) {
    jout_key(j, "timings");
    jout_object(j);
    jout_put_number(j, "load_ms", 1e3 * run->load_seconds);
    jout_put_number(j, "prefill_ms", 1e3 * run->prefill_seconds);
    jout_put_number(j, "decode_ms", 1e3 * run->result.decode_seconds);
    jout_put_number(j, "ttft_ms", 1e3 * first_token_seconds(run));
    jout_put_number(j, "prefill_tokens_per_s", rate(prompt_done(run), run->prefill_seconds));
    jout_put_number(j, "decode_tokens_per_s", rate(run->result.n_ids, run->result.decode_seconds));
    jout_end(j);
}

static void put_cache(jout *j, const tq_session *session) {
    tq_cache_stats stats;
    tq_session_get_cache_stats(session, &stats);
    jout_key(j, "cache");
    jout_object(j);
    jout_put_int(j, "bytes", (int64_t)stats.bytes);
    jout_put_int(j, "f16_bytes", (int64_t)stats.f16_bytes);
    jout_put_int(j, "packed_tokens", stats.packed_tokens);
    jout_put_int(j, "exact_tokens", stats.exact_tokens);
    jout_end(j);
}

static bool print_json(const generate_run *run) {
    const tq_generate_result *r = &run->result;
    const tq_model_info *info = tq_model_get_info(run->model);
    jout j = {0};
    jout_object(&j);
    jout_put_string(&j, "model", info->path);
    jout_put_string(&j, "backend", info->backend);
    jout_put_string(&j, "kv", tq_session_kv(run->session));
    jout_put_int(&j, "prompt_tokens", (int64_t)run->n_ids);
    jout_put_int(&j, "generated_tokens", r->n_ids);
    jout_key(&j, "text");
    jout_string(&j, r->text ? r->text : "", r->text_len);
    jout_key(&j, "token_ids");
    jout_array(&j);
    for (int i = 0; i < r->n_ids; i++) jout_int(&j, r->ids[i]);
    jout_end(&j);
    jout_put_string(&j, "finish_reason", finish_name(r->finish));
    if (run->sampling.temp > 0) { /* as text: it may exceed what JSON readers keep exactly */
        char seed[24];
        snprintf(seed, sizeof seed, "%llu", (unsigned long long)run->sampling.seed);
        jout_put_string(&j, "seed", seed);
    }
    put_timings(&j, run);
    put_cache(&j, run->session);
    jout_put_int(&j, "peak_rss_bytes", (int64_t)terminal_peak_rss());
    jout_end(&j);
    return jout_print(&j, stdout);
}

static int print_account(generate_run *run) {
    if (run->o->json) {
        run->write_failed = !print_json(run);
    } else if (!run->write_failed) {
        /* A pipe gets the text and nothing else; on a terminal the summary wants a line of its own. */
        if (isatty(STDOUT_FILENO)) putchar('\n');
        run->write_failed = fflush(stdout) != 0;
        print_summary(run);
    }
    return run->write_failed ? setup_fail(NAME, "writing to stdout failed") : EXIT_SUCCESS;
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static int parse(generate_options *g, int argc, char **argv) {
    *g = (generate_options){.max_tokens = 256};
    options o;
    options_begin(&o, "tq generate --prompt TEXT [OPTIONS]",
                  "Answer one prompt.  The reply goes to stdout as it is produced, everything else to stderr.\n"
                  "Ctrl-C ends the reply early.");
    options_heading(&o, "Prompt");
    options_add(&o, (option_row){.name = "prompt",
                                 .letter = 'p',
                                 .argument = "TEXT",
                                 .type = OPTION_STRING,
                                 .to = &g->prompt,
                                 .help = "the user's message"});
    options_add(&o, (option_row){.name = "prompt-file",
                                 .argument = "FILE",
                                 .type = OPTION_STRING,
                                 .to = &g->prompt_file,
                                 .help = "the message from a file, without its final newline; - is stdin;\n"
                                         "with --prompt: the file, an empty line, the prompt"});
    options_add(&o, (option_row){.name = "system",
                                 .argument = "TEXT",
                                 .type = OPTION_STRING,
                                 .to = &g->system,
                                 .help = "a system message before it"});
    options_add(&o, (option_row){.name = "raw",
                                 .type = OPTION_FLAG,
                                 .to = &g->raw,
                                 .help = "no chat template: the prompt as it is, control tokens by their text;\n"
                                         "a beginning-of-text token only if the tokenizer adds one"});
    options_heading(&o, "Reply");
    options_add(&o, (option_row){.name = "max-tokens",
                                 .letter = 'm',
                                 .argument = "N",
                                 .type = OPTION_INT,
                                 .to = &g->max_tokens,
                                 .min = 1,
                                 .max = 1 << 24,
                                 .help = "tokens at most (default 256)"});
    options_add(&o, (option_row){.name = "json",
                                 .type = OPTION_FLAG,
                                 .to = &g->json,
                                 .help = "one JSON object on stdout instead of the text"});
    options_add_sampling(&o, &g->sampling);
    options_add_cache(&o, &g->cache);
    options_add_model(&o, &g->model);
    int code = options_parse(&o, argc, argv, NULL);
    if (code == OPTIONS_RUN) code = options_check_cache(&o, &g->cache);
    if (code != OPTIONS_RUN) return code;
    if (!g->prompt && !g->prompt_file)
        return options_usage_error(&o, "no prompt: give --prompt TEXT, or --prompt-file FILE (- reads stdin)");
    if (g->raw && g->system) return options_usage_error(&o, "--raw has no messages, so --system has no place in it");
    return OPTIONS_RUN;
}

int cmd_generate(int argc, char **argv) {
    generate_options o;
    int code = parse(&o, argc, argv);
    if (code != OPTIONS_RUN) return code;
    generate_run run = {.o = &o};
    code = read_prompt(&run);
    if (code == EXIT_SUCCESS) code = setup_check_utf8(NAME, "the prompt", run.text);
    if (code == EXIT_SUCCESS && o.system) code = setup_check_utf8(NAME, "the system message", o.system);
    if (code == EXIT_SUCCESS) code = setup_model(NAME, &o.model, &run.model, &run.load_seconds);
    if (code == EXIT_SUCCESS) code = make_tokens(&run);
    if (code == EXIT_SUCCESS) code = open_session(&run);
    if (code == EXIT_SUCCESS) {
        run.sampling = options_get_sampling(&o.sampling, run.model);
        code = reply(&run);
        if (code == EXIT_SUCCESS) code = print_account(&run);
    }
    tq_generate_result_free(&run.result);
    tq_session_free(run.session);
    tq_free(run.ids);
    free(run.text);
    tq_model_free(run.model);
    return code;
}
