/* bench_cell.c: see bench_cell.h. */
#define _GNU_SOURCE
#include "bench_cell.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <regex.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "json_out.h"
#include "setup.h"
#include "terminal.h"
#include "turboquant/tq_bench.h"

extern char **environ;

bench_spec bench_spec_default(void) {
    tq_cache_config cache = tq_cache_config_default();
    return (bench_spec){.kv = cache.kv,
                        .prompt = 512,
                        .decode = 32,
                        .buffer_size = cache.buffer_size,
                        .sinks = cache.sinks,
                        .flush_batch_size = cache.flush_batch_size,
                        .prefill_chunk = tq_session_params_default().prefill_chunk};
}

static void add_int(options *o, const char *name, int *to, int min, int max, const char *help) {
    options_add(o, (option_row){.name = name, .argument = "N", .type = OPTION_INT, .to = to, .min = min, .max = max, .help = help});
}

static void add_text(options *o, const char *name, const char *argument, const char **to, const char *help) {
    options_add(o, (option_row){.name = name, .argument = argument, .type = OPTION_STRING, .to = to, .help = help});
}

/* ---- in the cell's own process ------------------------------------------------------------------------------------- */

typedef struct cell {
    const bench_spec *spec;
    tq_model *model;
    tq_session *session;
    int32_t *ids;
    size_t n_ids;
    double *token_seconds;
} cell;

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *x, int n) {
    if (n == 0) return NAN;
    qsort(x, (size_t)n, sizeof *x, compare_doubles);
    return n % 2 ? x[n / 2] : 0.5 * (x[n / 2 - 1] + x[n / 2]);
}

void bench_random_ids(int32_t *ids, size_t n, int vocab) {
    uint64_t state = 12345;
    for (size_t i = 0; i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        ids[i] = (int32_t)((state >> 33) % (uint64_t)vocab);
    }
}

static tq_status prepare_ids(cell *c, tq_error *err) {
    const bench_spec *s = c->spec;
    if (s->text) {
        tq_message message = {"user", s->text};
        if (!tq_model_get_info(c->model)->has_chat_template)
            return tq_tokenize_prompt(c->model, s->text, strlen(s->text), false, &c->ids, &c->n_ids, err);
        return tq_chat_tokens(c->model, &message, 1, TQ_CHAT_ADD_GENERATION_PROMPT, &c->ids, &c->n_ids, err);
    }
    c->n_ids = (size_t)(s->fill_prefill ? s->context : s->prompt > 0 ? s->prompt : 1);
    c->ids = malloc((c->n_ids + 1) * sizeof *c->ids);
    if (c->ids) bench_random_ids(c->ids, c->n_ids, tq_model_get_info(c->model)->vocab);
    return TQ_OK;
}

/* The context, and the time of the prefill where there is one. */
static tq_status fill(cell *c, bench_run *r, tq_error *err) {
    const bench_spec *s = c->spec;
    bool computed = s->fill_prefill || s->text;
    tq_status status = computed ? TQ_OK : tq_bench_fill(c->session, s->context, err);
    int n = (int)c->n_ids;
    if (status != TQ_OK) return status;
    if (!computed && s->prompt == 0) return TQ_OK;
    double start = terminal_seconds();
    status = tq_session_eval(c->session, c->ids, n, err);
    double seconds = terminal_seconds() - start;
    r->prefill_tokens_per_s = n / seconds;
    if (computed) r->ttft_ms = 1e3 * seconds;
    else if (status == TQ_OK) status = tq_session_rewind(c->session, s->context, err);
    return status;
}

static int32_t likeliest(const cell *c) {
    const float *logits = tq_session_logits(c->session);
    return logits ? tq_likeliest(logits, tq_model_get_info(c->model)->vocab) : 0;
}

static tq_status decode(cell *c, bench_run *r, tq_error *err) {
    const bench_spec *s = c->spec;
    tq_status status = TQ_OK;
    int32_t id = s->fill_prefill || s->text ? likeliest(c) : 1;
    for (int i = 0; i < s->decode && status == TQ_OK; i++) {
        if (r->n_ids < BENCH_IDS_CAP) r->ids[r->n_ids++] = id;
        double start = terminal_seconds();
        status = tq_session_eval(c->session, &id, 1, err);
        if (status == TQ_OK) id = likeliest(c);
        c->token_seconds[i] = terminal_seconds() - start;
    }
    /* The first token pays for page tables and cold caches. */
    if (status == TQ_OK)
        r->decode_tokens_per_s = s->decode > 1 ? 1 / bench_median(c->token_seconds + 1, s->decode - 1) : 1 / c->token_seconds[0];
    return status;
}

static tq_status measure(cell *c, bench_run *r, tq_error *err) {
    const bench_spec *s = c->spec;
    tq_session_params params = tq_session_params_default();
    params.cache.kv = s->kv;
    params.cache.buffer_size = s->buffer_size;
    params.cache.sinks = s->sinks;
    params.cache.flush_batch_size = s->flush_batch_size;
    params.cache.key_centre = s->key_centre;
    params.prefill_chunk = s->prefill_chunk;
    tq_status status = prepare_ids(c, err);
    if (status != TQ_OK) return status;
    params.ctx = (s->text ? 0 : s->context) + (s->fill_prefill ? 0 : (int)c->n_ids) + s->decode;
    status = tq_session_new(c->model, &params, &c->session, err);
    if (status == TQ_OK) status = fill(c, r, err);
    if (status != TQ_OK) return status;
    r->context = tq_session_length(c->session);
    status = decode(c, r, err);
    if (status != TQ_OK) return status;
    tq_cache_stats stats;
    tq_session_get_cache_stats(c->session, &stats);
    const tq_model_info *info = tq_model_get_info(c->model);
    r->cache_bytes = (double)stats.bytes;
    r->token_bytes = (double)info->token_bytes + (double)stats.bytes;
    r->threads = info->n_threads;
    snprintf(r->kv, sizeof r->kv, "%s", tq_session_kv(c->session));
    snprintf(r->weights, sizeof r->weights, "%s", info->weights);
    snprintf(r->backend, sizeof r->backend, "%s", info->backend);
    if (s->text) {
        size_t n;
        status = tq_detokenize(c->model, r->ids, (size_t)r->n_ids, false, &r->text, &n, err);
    }
    return status;
}

/* The largest memory of this program: getrusage would count what started it, too. */
static double peak_bytes(void) {
    char line[128];
    long kilobytes = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %ld", &kilobytes) == 1) break;
    if (f) fclose(f);
    return kilobytes > 0 ? 1024.0 * (double)kilobytes : NAN;
}

static void print_run(const bench_spec *spec, const bench_run *r) {
    jout j = {0};
    jout_object(&j);
    jout_put_int(&j, "context", r->context);
    jout_put_number(&j, "decode_tokens_per_s", r->decode_tokens_per_s);
    jout_put_number(&j, "prefill_tokens_per_s", r->prefill_tokens_per_s);
    jout_put_number(&j, "ttft_ms", r->ttft_ms);
    jout_put_number(&j, "load_ms", r->load_ms);
    jout_put_number(&j, "cache_bytes", r->cache_bytes);
    jout_put_number(&j, "token_bytes", r->token_bytes);
    jout_put_number(&j, "peak_rss_bytes", peak_bytes());
    jout_put_int(&j, "threads", r->threads);
    jout_put_string(&j, "kv", r->kv);
    jout_put_string(&j, "weights", r->weights);
    jout_put_string(&j, "backend", r->backend);
    if (spec->text) {
        jout_put_string(&j, "text", r->text);
        jout_key(&j, "ids");
        jout_array(&j);
        for (int i = 0; i < r->n_ids; i++) jout_int(&j, r->ids[i]);
        jout_end(&j);
    }
    jout_end(&j);
    jout_print(&j, stdout);
}

int bench_spec_parse(int argc, char **argv, bench_spec *spec) {
    const char *fill_name = spec->fill_prefill ? "prefill" : "synthetic";
    bool fill_given = false, prompt_given = false;
    options o;
    options_begin(&o, "tq bench cell [OPTIONS]", "Measure one cell in this process and print one JSON object.");
    model_options model;
    options_add_model(&o, &model);
    model = spec->from;
    options_heading(&o, "Cell");
    add_text(&o, "kv", "CODEC", &spec->kv, "codec of keys and values (default tq3)");
    add_int(&o, "context", &spec->context, 0, 1 << 24, "tokens held when decoding begins (default 0)");
    add_text(&o, "fill", "HOW", &fill_name, "synthetic: random rows (default); prefill: computed");
    add_text(&o, "text", "TEXT", &spec->text, "a prompt in place of random tokens; its answer is printed too");
    add_text(&o, "text-file", "FILE", &spec->text_file, "the same from a file");
    bench_add_prompt(&o, spec, &prompt_given);
    options_find(&o, "fill")->given = &fill_given;
    bench_add_spec(&o, spec);
    int code = options_parse(&o, argc, argv, NULL);
    if (code == OPTIONS_RUN) code = bench_check_spec(&o, spec);
    if (code != OPTIONS_RUN) return code;
    spec->from = model;
    spec->fill_prefill = strcmp(fill_name, "prefill") == 0;
    if (!spec->fill_prefill && strcmp(fill_name, "synthetic") != 0)
        return options_usage_error(&o, "--fill: want prefill or synthetic, got '%s'", fill_name);
    if (spec->text && spec->text_file) return options_usage_error(&o, "want --text or --text-file, got both");
    bool from_text = spec->text || spec->text_file;
    if (from_text && (spec->context || fill_given)) return options_usage_error(&o, "a text is the context: want no --context or --fill");
    if (prompt_given && (from_text || spec->fill_prefill)) return options_usage_error(&o, "--prompt: only with --fill synthetic");
    if (spec->fill_prefill && spec->context < 1 && !from_text)
        return options_usage_error(&o, "--fill prefill: want a --context of 1 or more");
    return OPTIONS_RUN;
}

int bench_cell_main(int argc, char **argv) {
    static const char *const name = "bench cell";
    bench_spec spec = bench_spec_default();
    int code = bench_spec_parse(argc, argv, &spec);
    if (code != OPTIONS_RUN) return code;
    char *text = NULL;
    size_t n_text;
    if (spec.text_file) {
        code = setup_read_text(name, spec.text_file, &text, &n_text);
        if (code != EXIT_SUCCESS) return code;
        spec.text = text;
    }
    cell c = {.spec = &spec, .token_seconds = malloc((size_t)spec.decode * sizeof(double))};
    bench_run *r = calloc(1, sizeof *r);
    if (!r || !c.token_seconds) return setup_fail(name, "out of memory");
    r->decode_tokens_per_s = r->prefill_tokens_per_s = r->ttft_ms = NAN;
    double load_seconds;
    code = setup_model(name, &spec.from, &c.model, &load_seconds);
    if (code != EXIT_SUCCESS) return code;
    r->load_ms = 1e3 * load_seconds;
    tq_error err;
    tq_status status = measure(&c, r, &err);
    if (status == TQ_OK) print_run(&spec, r);
    else code = setup_fail(name, "%s", err.text);
    tq_session_free(c.session);
    tq_model_free(c.model);
    tq_free(r->text);
    tq_free(c.ids);
    free(c.token_seconds);
    free(r);
    free(text);
    return code;
}

int bench_read_counts(const char *text, int min, int max, int *counts, int cap) {
    int n = 0;
    for (const char *at = text; n < cap;) {
        char *end;
        long value = strtol(at, &end, 10);
        if (end == at || value < min || value > max || *at == '+' || *at == '-' || *at == ' ') return 0;
        counts[n++] = (int)value;
        if (*end == 0) return n;
        if (*end != ',') return 0;
        at = end + 1;
    }
    return 0;
}

void bench_add_prompt(options *o, bench_spec *spec, bool *given) {
    add_int(o, "prompt", &spec->prompt, 0, 1 << 24, "tokens of the prefill that is timed behind random rows (default 512;\n"
                                                    "0: none) and then taken back");
    options_find(o, "prompt")->given = given;
}

void bench_add_spec(options *o, bench_spec *spec) {
    add_int(o, "decode", &spec->decode, 1, BENCH_IDS_CAP, "tokens decoded (default 32)");
    add_int(o, "prefill-chunk", &spec->prefill_chunk, 1, 1024, "tokens evaluated together (default 256)");
    add_int(o, "buffer-size", &spec->buffer_size, 0, 1 << 24, "newest tokens kept exact (default 128)");
    add_int(o, "sinks", &spec->sinks, 0, 1 << 24, "first tokens kept exact (default 4)");
    add_int(o, "flush-batch-size", &spec->flush_batch_size, 1, 1 << 24, "tokens packed at a time (default 32)");
    options_add_key_centre(o, &spec->key_centre_text);
}

int bench_check_spec(const options *o, bench_spec *spec) {
    return options_read_key_centre(o, spec->key_centre_text, &spec->key_centre);
}

/* ---- in the process that wants it -------------------------------------------------------------------------------- */

enum { ARGS_CAP = 40 };

typedef struct arguments {
    char *at[ARGS_CAP + 1];
    int n;
} arguments;

static void push(arguments *a, const char *word) {
    if (word && a->n < ARGS_CAP) a->at[a->n++] = strdup(word);
}

static void push_option(arguments *a, const char *name, const char *value) {
    if (!value) return;
    push(a, name);
    push(a, value);
}

static void push_int(arguments *a, const char *name, int value) {
    char text[16];
    snprintf(text, sizeof text, "%d", value);
    push_option(a, name, text);
}

static void describe(const bench_spec *s, arguments *a) {
    push(a, "tq");
    push(a, "bench");
    push(a, "cell");
    push_option(a, "--model", s->from.model);
    push_option(a, "--kernels", s->from.kernels);
    push_option(a, "--prefill-precision", s->from.prefill);
    push_int(a, "--threads", s->from.threads);
    push_option(a, "--memory", s->from.memory);
    if (s->from.no_memory_check) push(a, "--no-memory-check");
    push_option(a, "--kv", s->kv);
    push_option(a, "--text", s->text);
    push_option(a, "--text-file", s->text_file);
    push_int(a, "--decode", s->decode);
    if (!s->text && !s->text_file) {
        push_int(a, "--context", s->context);
        push_option(a, "--fill", s->fill_prefill ? "prefill" : "synthetic");
        if (!s->fill_prefill) push_int(a, "--prompt", s->prompt);
    }
    push_int(a, "--prefill-chunk", s->prefill_chunk);
    push_int(a, "--buffer-size", s->buffer_size);
    push_int(a, "--sinks", s->sinks);
    push_int(a, "--flush-batch-size", s->flush_batch_size);
    push_option(a, "--key-centre", s->key_centre_text);
}

/* Everything that comes out of a descriptor, NUL-terminated; free(). */
static char *read_text(int fd) {
    size_t cap = 1 << 16, n = 0;
    char *text = malloc(cap);
    for (ssize_t got; text && (got = read(fd, text + n, cap - 1 - n)) != 0;) {
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) break;
        n += (size_t)got;
        if (n + 1 < cap) continue;
        char *grown = realloc(text, cap *= 2);
        if (!grown) free(text);
        text = grown;
    }
    if (text) text[n] = 0;
    return text;
}

static double number_of(const json_t *j, const char *key) {
    const json_t *value = json_object_get(j, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static void copy_string(const json_t *j, const char *key, char *to, size_t cap) {
    const char *text = json_string_value(json_object_get(j, key));
    snprintf(to, cap, "%s", text ? text : "");
}

static bool parse_run(const char *text, bench_run *r) {
    json_t *j = json_loads(text, 0, NULL);
    if (!j) return false;
    r->context = (int)number_of(j, "context");
    r->decode_tokens_per_s = number_of(j, "decode_tokens_per_s");
    r->prefill_tokens_per_s = number_of(j, "prefill_tokens_per_s");
    r->ttft_ms = number_of(j, "ttft_ms");
    r->load_ms = number_of(j, "load_ms");
    r->cache_bytes = number_of(j, "cache_bytes");
    r->token_bytes = number_of(j, "token_bytes");
    r->peak_rss_bytes = number_of(j, "peak_rss_bytes");
    r->threads = (int)number_of(j, "threads");
    copy_string(j, "kv", r->kv, sizeof r->kv);
    copy_string(j, "weights", r->weights, sizeof r->weights);
    copy_string(j, "backend", r->backend, sizeof r->backend);
    const json_t *ids = json_object_get(j, "ids"), *id;
    size_t i;
    json_array_foreach(ids, i, id) if (i < BENCH_IDS_CAP) r->ids[r->n_ids++] = (int)json_integer_value(id);
    const char *said = json_string_value(json_object_get(j, "text"));
    r->text = said ? strdup(said) : NULL;
    json_decref(j);
    return true;
}

/* The last line of what a failed process said, without "tq bench cell: ". */
static void explain(const char *said, int status, char why[BENCH_TEXT_CAP]) {
    if (WIFSIGNALED(status)) {
        snprintf(why, BENCH_TEXT_CAP, "killed by signal %d%s", WTERMSIG(status), WTERMSIG(status) == 9 ? " (memory?)" : "");
        return;
    }
    const char *colon = said ? strstr(said, "cell: ") : NULL;
    snprintf(why, BENCH_TEXT_CAP, "%s", colon ? colon + 6 : said && *said ? said : "it printed nothing");
    why[strcspn(why, "\n")] = 0;
}

/* Run a program: what it printed and complained of (free() both), its exit status, its largest memory. */
static bool run_process(const char *path, char *const argv[], char **said, char **complained, int *status, double *peak_bytes,
                        char why[BENCH_TEXT_CAP]) {
    FILE *errors = tmpfile(); /* a file: two pipes read in turn could fill up */
    int out_pipe[2];
    *said = *complained = NULL;
    if (!errors || pipe2(out_pipe, O_CLOEXEC) != 0) {
        snprintf(why, BENCH_TEXT_CAP, "cannot start: %s", strerror(errno));
        if (errors) fclose(errors);
        return false;
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, out_pipe[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, fileno(errors), STDERR_FILENO);
    pid_t child;
    int failed = posix_spawn(&child, path, &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(out_pipe[1]);
    *said = read_text(out_pipe[0]);
    close(out_pipe[0]);
    struct rusage used = {0};
    if (failed) snprintf(why, BENCH_TEXT_CAP, "cannot start %s: %s", path, strerror(failed));
    else
        while (wait4(child, status, 0, &used) < 0 && errno == EINTR) {}
    *peak_bytes = 1024.0 * (double)used.ru_maxrss;
    rewind(errors);
    *complained = read_text(fileno(errors));
    fclose(errors);
    return !failed;
}

bool bench_cell_run(const bench_spec *spec, bench_run *out, char why[BENCH_TEXT_CAP]) {
    *out = (bench_run){0};
    arguments args = {0};
    describe(spec, &args);
    char *said, *complained;
    int status = 0;
    double peak;
    bool ok = run_process("/proc/self/exe", args.at, &said, &complained, &status, &peak, why);
    for (int i = 0; i < args.n; i++) free(args.at[i]);
    if (ok && !(WIFEXITED(status) && WEXITSTATUS(status) == 0 && said && parse_run(said, out))) {
        explain(complained, status, why);
        ok = false;
    }
    free(said);
    free(complained);
    return ok;
}

/* ---- other engines -------------------------------------------------------------------------------------------------- */

/* The number that the pattern's first group finds last; NAN. */
static double find_last(const char *text, const regex_t *regex) {
    double found = NAN;
    regmatch_t m[2];
    for (const char *at = text; at && *at && regexec(regex, at, 2, m, at == text ? 0 : REG_NOTBOL) == 0; at += m[0].rm_eo) {
        if (m[1].rm_so >= 0) found = strtod(at + m[1].rm_so, NULL);
        if (m[0].rm_eo == 0) break;
    }
    return found;
}

/* With {context} replaced; free(). */
static char *fill_command(const char *command, int context) {
    static const char mark[] = "{context}";
    size_t n = strlen(command), places = 0;
    for (const char *at = command; (at = strstr(at, mark)); at += sizeof mark - 1) places++;
    char *text = malloc(n + places * 16 + 1), *to = text;
    for (const char *at = command; text;) {
        const char *next = strstr(at, mark);
        size_t length = next ? (size_t)(next - at) : strlen(at);
        memcpy(to, at, length);
        to += length;
        if (!next) break;
        to += sprintf(to, "%d", context);
        at = next + sizeof mark - 1;
    }
    if (text) *to = 0;
    return text;
}

bool bench_peer_run(const char *command, const char *pattern, int context, bench_run *out, char why[BENCH_TEXT_CAP]) {
    *out = (bench_run){.prefill_tokens_per_s = NAN, .ttft_ms = NAN, .load_ms = NAN, .cache_bytes = NAN, .token_bytes = NAN,
                       .context = context};
    regex_t regex;
    if (regcomp(&regex, pattern, REG_EXTENDED) != 0 || regex.re_nsub < 1) {
        snprintf(why, BENCH_TEXT_CAP, "--peer-pattern: want a regular expression with a (group), got '%.200s'", pattern);
        return false;
    }
    char shell[] = "sh", flag[] = "-c", *text = fill_command(command, context), *said = NULL, *complained = NULL;
    int status = 0;
    bool ok = text && run_process("/bin/sh", (char *[]){shell, flag, text, NULL}, &said, &complained, &status,
                                  &out->peak_rss_bytes, why);
    if (ok) {
        out->decode_tokens_per_s = find_last(said, &regex);
        if (isnan(out->decode_tokens_per_s)) out->decode_tokens_per_s = find_last(complained, &regex);
        ok = WIFEXITED(status) && WEXITSTATUS(status) == 0 && !isnan(out->decode_tokens_per_s);
        if (!ok && WIFEXITED(status) && WEXITSTATUS(status) == 0)
            snprintf(why, BENCH_TEXT_CAP, "'%.200s' is nowhere in what it printed", pattern);
        else if (!ok) explain(complained, status, why);
    }
    regfree(&regex);
    free(text);
    free(said);
    free(complained);
    return ok;
}
