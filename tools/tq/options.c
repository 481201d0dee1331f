/* options.c: option tables, parsed by getopt_long and printed as help; and the groups that commands share. */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <time.h>

enum { FIRST_LONG_ID = 256, HELP_COLUMN = 28 };

void options_begin(options *o, const char *usage, const char *about) { *o = (options){.usage = usage, .about = about}; }

void options_add(options *o, option_row row) {
    if (o->n_rows == OPTIONS_CAP) abort(); /* a table in this program is too long: seen by its first run */
    o->rows[o->n_rows++] = row;
}

void options_heading(options *o, const char *title) { options_add(o, (option_row){.help = title}); }

option_row *options_find(options *o, const char *name) {
    for (int i = 0; i < o->n_rows; i++)
        if (o->rows[i].name && strcmp(o->rows[i].name, name) == 0) return &o->rows[i];
    return NULL;
}

/* The words of a usage line that name the command: everything before the first operand or option. */
static int command_length(const char *usage) {
    int n = 0, end = 0;
    while (usage[n]) {
        int start = n;
        while (usage[n] && usage[n] != ' ') n++;
        if (strchr("-[<", usage[start]) || (usage[start] >= 'A' && usage[start] <= 'Z')) break;
        end = n;
        while (usage[n] == ' ') n++;
    }
    return end;
}

int options_usage_error(const options *o, const char *format, ...) {
    int n = command_length(o->usage);
    fprintf(stderr, "%.*s: ", n, o->usage);
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\nTry '%.*s --help'.\n", n, o->usage);
    return EXIT_USAGE;
}

/* ---- help -------------------------------------------------------------------------------------------------------- */

static void print_row(const option_row *row) {
    char left[96];
    int n = row->letter ? snprintf(left, sizeof left, "  -%c, --%s", row->letter, row->name)
                        : snprintf(left, sizeof left, "      --%s", row->name);
    if (row->argument && n > 0 && (size_t)n < sizeof left)
        n += snprintf(left + n, sizeof left - (size_t)n, " %s", row->argument);
    if (n >= HELP_COLUMN) printf("%s\n%*s", left, HELP_COLUMN, "");
    else printf("%-*s", HELP_COLUMN, left);
    for (const char *line = row->help; line;) {
        const char *end = strchr(line, '\n');
        printf("%.*s\n", end ? (int)(end - line) : (int)strlen(line), line);
        line = end ? end + 1 : NULL;
        if (line) printf("%*s", HELP_COLUMN, "");
    }
}

static int print_help(const options *o) {
    printf("Usage: %s\n\n%s\n", o->usage, o->about);
    for (int i = 0; i < o->n_rows; i++) {
        if (o->rows[i].name) print_row(&o->rows[i]);
        else printf("\n%s:\n", o->rows[i].help);
    }
    printf("\n  -h, --help                this text\n");
    return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* ---- parsing ----------------------------------------------------------------------------------------------------- */

static bool parse_int(const char *text, const option_row *row) {
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    bool digits = (text[0] >= '0' && text[0] <= '9') || (text[0] == '-' && text[1] >= '0' && text[1] <= '9');
    if (errno || *end || !digits || (double)value < row->min || (double)value > row->max) return false;
    *(int *)row->to = (int)value;
    return true;
}

static bool parse_u64(const char *text, const option_row *row) {
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno || *end || text[0] < '0' || text[0] > '9') return false;
    *(uint64_t *)row->to = value;
    return true;
}

static bool parse_real(const char *text, const option_row *row) {
    char *end;
    /* strtod also takes blanks, hexadecimal, "nan" and "inf": none of them is meant. */
    if (!*text || text[strspn(text, "0123456789+-.eE")]) return false;
    double value = strtod(text, &end);
    if (*end || end == text || !isfinite(value) || value < row->min || value > row->max) return false;
    if (row->type == OPTION_FLOAT) *(float *)row->to = (float)value;
    else *(double *)row->to = value;
    return true;
}

static int store(const options *o, const option_row *row, const char *text) {
    bool ok = true;
    const char *kind = "a number";
    switch (row->type) {
    case OPTION_FLAG: *(bool *)row->to = true; break;
    case OPTION_STRING: *(const char **)row->to = text; break;
    case OPTION_INT: kind = "a whole number", ok = parse_int(text, row); break;
    case OPTION_FLOAT:
    case OPTION_DOUBLE: ok = parse_real(text, row); break;
    case OPTION_U64:
        if (parse_u64(text, row)) break;
        return options_usage_error(o, "--%s: want a whole number from 0 to %" PRIu64 ", got '%s'", row->name,
                                   UINT64_MAX, text);
    }
    if (!ok)
        return options_usage_error(o, "--%s: want %s from %.10g to %.10g, got '%s'", row->name, kind, row->min,
                                   row->max, text);
    if (row->given) *row->given = true;
    return OPTIONS_RUN;
}

/* getopt_long's own tables, made from the rows: id FIRST_LONG_ID + i is row i. */
typedef struct getopt_tables {
    struct option longs[OPTIONS_CAP + 2];
    char shorts[2 * OPTIONS_CAP + 4];
} getopt_tables;

static void make_tables(const options *o, getopt_tables *t) {
    int n = 0;
    char *s = t->shorts;
    *s++ = ':'; /* tells a missing argument from an unknown option */
    *s++ = 'h';
    for (int i = 0; i < o->n_rows; i++) {
        const option_row *row = &o->rows[i];
        if (!row->name) continue;
        int wants = row->type == OPTION_FLAG ? no_argument : required_argument;
        t->longs[n++] = (struct option){row->name, wants, NULL, FIRST_LONG_ID + i};
        if (!row->letter) continue;
        *s++ = row->letter;
        if (wants) *s++ = ':';
    }
    t->longs[n++] = (struct option){"help", no_argument, NULL, 'h'};
    t->longs[n] = (struct option){0};
    *s = 0;
}

/* getopt_long takes "--max" for --max-tokens; a script that relied on it would break with the next option. */
static bool is_spelled(const char *word, const char *name) {
    size_t n = strlen(name);
    return strncmp(word, "--", 2) == 0 && strncmp(word + 2, name, n) == 0 && (word[2 + n] == 0 || word[2 + n] == '=');
}

/* What getopt_long would not take: it has moved past the word. */
static int refuse(const options *o, const getopt_tables *t, int id, char **argv) {
    const char *word = argv[optind - 1];
    if (id == ':') return options_usage_error(o, "%s wants an argument", word);
    for (const struct option *l = t->longs; l->name; l++)
        if (is_spelled(word, l->name)) return options_usage_error(o, "--%s takes no argument", l->name);
    if (optopt > 0 && optopt < FIRST_LONG_ID) return options_usage_error(o, "unknown option '-%c'", optopt);
    return options_usage_error(o, "unknown option '%s'", word);
}

int options_parse(options *o, int argc, char **argv, int *first) {
    getopt_tables tables;
    make_tables(o, &tables);
    optind = 0; /* glibc: start afresh */
    opterr = 0;
    for (;;) {
        int at = -1;
        int id = getopt_long(argc, argv, tables.shorts, tables.longs, &at);
        if (id == -1) break;
        if (id == '?' || id == ':') return refuse(o, &tables, id, argv);
        if (at >= 0) {
            const char *word = argv[optind - (optarg && optarg == argv[optind - 1] ? 2 : 1)];
            if (!is_spelled(word, tables.longs[at].name))
                return options_usage_error(o, "unknown option '%s' (is '--%s' meant?)", word, tables.longs[at].name);
        }
        if (id == 'h') return print_help(o);
        int row = id - FIRST_LONG_ID;
        for (int i = 0; at < 0 && i < o->n_rows; i++)
            if (o->rows[i].name && o->rows[i].letter == id) row = i;
        int code = store(o, &o->rows[row], optarg);
        if (code != OPTIONS_RUN) return code;
    }
    if (first) *first = optind;
    else if (optind < argc) return options_usage_error(o, "unexpected argument '%s'", argv[optind]);
    return OPTIONS_RUN;
}

/* ---- shared groups ----------------------------------------------------------------------------------------------- */

static void add_int(options *o, const char *name, const char *argument, int *to, int min, int max, const char *help) {
    options_add(
        o, (option_row){
               .name = name, .argument = argument, .type = OPTION_INT, .to = to, .min = min, .max = max, .help = help});
}

void options_add_model(options *o, model_options *model) {
    *model = (model_options){0};
    options_heading(o, "Model");
    options_add(o, (option_row){.name = "model",
                                .argument = "NAME",
                                .type = OPTION_STRING,
                                .to = &model->model,
                                .help = "a Hugging Face or MLX directory, or a GGUF file (default: $TQ_MODEL, else the bundled one);\n"
                                        "ORG/NAME[:QUANT] of the hub (pulled if need be), a name of Ollama's store; or\n"
                                        "synthetic:qwen2.5-0.5b and kin: random weights of a published shape"});
    add_int(o, "threads", "N", &model->threads, 0, 256, "workers (default 0: one a usable processor)");
    options_add(o, (option_row){.name = "kernels",
                                .argument = "NAME",
                                .type = OPTION_STRING,
                                .to = &model->kernels,
                                .help = "scalar, avx2, avx512, amx, neon or neon-dotprod (default: $TQ_KERNELS, else the best here)"});
    options_add(o, (option_row){.name = "prefill-precision",
                                .argument = "TYPE",
                                .type = OPTION_STRING,
                                .to = &model->prefill,
                                .help = "f32 (default), or bf16: prompts are multiplied in bf16, faster and coarser (AVX-512 BF16, AMX)"});
    options_add(o, (option_row){.name = "memory",
                                .argument = "BYTES",
                                .type = OPTION_STRING,
                                .to = &model->memory,
                                .help = "what model and cache may take: 8GB, 512M (default: what the system has); more is refused"});
    options_add(o, (option_row){.name = "no-memory-check",
                                .type = OPTION_FLAG,
                                .to = &model->no_memory_check,
                                .help = "do not look whether there is room, and risk being killed"});
}

int options_take_model(const options *o, model_options *model, int argc, char **argv, int first) {
    if (first + 1 < argc) return options_usage_error(o, "want one MODEL, got '%s' too", argv[first + 1]);
    if (first < argc && model->model) return options_usage_error(o, "want MODEL or --model, got both");
    if (first < argc) model->model = argv[first];
    return OPTIONS_RUN;
}

bool options_parse_bytes(const char *text, int64_t *bytes) {
    static const struct {
        const char *name;
        double scale;
    } units[] = {{"", 1}, {"B", 1}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"K", 1024}, {"M", 1 << 20}, {"G", 1 << 30},
                 {"KiB", 1024}, {"MiB", 1 << 20}, {"GiB", 1 << 30}};
    char *end;
    if (text[0] < '0' || text[0] > '9' || strpbrk(text, "xX")) return false;
    double value = strtod(text, &end);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (strcasecmp(end, units[i].name) == 0 && value * units[i].scale < 9e18) {
            *bytes = (int64_t)(value * units[i].scale);
            return *bytes > 0;
        }
    return false;
}

int options_get_memory(const char *command, const model_options *model, int64_t *limit) {
    *limit = model->no_memory_check ? -1 : 0;
    if (!model->memory) return OPTIONS_RUN;
    if (model->no_memory_check) fprintf(stderr, "tq %s: --memory and --no-memory-check: give one of them\n", command);
    else if (options_parse_bytes(model->memory, limit)) return OPTIONS_RUN;
    else fprintf(stderr, "tq %s: --memory: want a size such as 8GB, got '%s'\n", command, model->memory);
    return EXIT_USAGE;
}

int options_get_prefill(const char *command, const model_options *model, tq_precision *precision) {
    *precision = model->prefill && strcmp(model->prefill, "bf16") == 0 ? TQ_PRECISION_BF16 : TQ_PRECISION_F32;
    if (!model->prefill || *precision == TQ_PRECISION_BF16 || strcmp(model->prefill, "f32") == 0) return OPTIONS_RUN;
    fprintf(stderr, "tq %s: --prefill-precision: want f32 or bf16, got '%s'\n", command, model->prefill);
    return EXIT_USAGE;
}

static void add_codec_int(options *o, cache_options *cache, const char *name, int *to, int max, const char *help) {
    options_add(o, (option_row){.name = name,
                                .argument = "N",
                                .type = OPTION_INT,
                                .to = to,
                                .min = 1,
                                .max = max,
                                .help = help,
                                .given = &cache->codec_given});
}

void options_add_key_centre(options *o, const char **to) {
    options_add(o, (option_row){.name = "key-centre",
                                .argument = "WHEN",
                                .type = OPTION_STRING,
                                .to = to,
                                .help = "pages of rotated codecs keep the mean of their keys apart: on, off, or auto (default),\n"
                                        "by layer, where what the first page shows is worth its bytes"});
}

void options_add_cache(options *o, cache_options *cache) {
    *cache = (cache_options){.config = tq_cache_config_default()};
    options_heading(o, "Cache");
    options_add(o, (option_row){.name = "kv",
                                .argument = "CODEC",
                                .type = OPTION_STRING,
                                .to = &cache->config.kv,
                                .given = &cache->kv_given,
                                .help = "how keys and values are stored (default auto: tq3): tq4 tq3.5 tq3 tq2.5 tq2\n"
                                        "f32 f16 q8 lm2..4 tcq2..4 vq2.5 vq3 vq3.5 uniform:2..4 paper-mse:1..8\n"
                                        "paper-prod:2..4 paper-prod-orth:2..4 paper:2.5 paper:3.5 minmax:2|4[:G] q4-group[:G]\n"
                                        "q8-group[:G] mlx-k{2,3,4}v{2,4} tq:k=A,v=B\n"
                                        "CODEC,first=N,last=N:CODEC (other layers at both ends)\n"
                                        "window:N (a control: f16 that forgets all but N tokens)"});
    add_codec_int(o, cache, "key-bits", &cache->config.key_bits, 8, "bits of keys, in place of the codec's");
    add_codec_int(o, cache, "value-bits", &cache->config.value_bits, 8, "bits of values, in place of the codec's");
    add_codec_int(o, cache, "value-group-size", &cache->config.value_group_size, 1024,
                  "values that share a scale (min-max values only)");
    options_add_key_centre(o, &cache->key_centre);
    add_int(o, "buffer-size", "N", &cache->config.buffer_size, 0, 1 << 24, "newest tokens kept exact (default 128)");
    options_find(o, "buffer-size")->given = &cache->buffer_given;
    add_int(o, "sinks", "N", &cache->config.sinks, 0, 1 << 24, "first tokens kept exact (default 4)");
    add_int(o, "flush-batch-size", "N", &cache->config.flush_batch_size, 1, 1 << 24,
            "tokens packed at a time (default 32)");
    options_add(o, (option_row){.name = "no-turboquant",
                                .type = OPTION_FLAG,
                                .to = &cache->no_turboquant,
                                .help = "the plain cache: the same as --kv f16"});
    add_int(o, "ctx", "N", &cache->ctx, 0, 1 << 24, "tokens of context (default 0: what the model was made for)");
}

const char *const options_key_centres[] = {[TQ_KEY_CENTRE_AUTO] = "auto", [TQ_KEY_CENTRE_ON] = "on", [TQ_KEY_CENTRE_OFF] = "off"};

int options_read_key_centre(const options *o, const char *text, tq_key_centre *out) {
    if (!text) return OPTIONS_RUN;
    for (int i = TQ_KEY_CENTRE_AUTO; i <= TQ_KEY_CENTRE_OFF; i++) {
        if (strcmp(text, options_key_centres[i]) != 0) continue;
        *out = (tq_key_centre)i;
        return OPTIONS_RUN;
    }
    return options_usage_error(o, "--key-centre: want auto, on or off, got '%s'", text);
}

int options_check_cache(const options *o, cache_options *cache) {
    int code = options_read_key_centre(o, cache->key_centre, &cache->config.key_centre);
    if (code != OPTIONS_RUN) return code;
    const char *kv = cache->config.kv; /* with a comma it is a list, whose other codecs have a buffer */
    if (cache->buffer_given && strncmp(kv, "window:", 7) == 0 && !strchr(kv, ','))
        return options_usage_error(o, "--kv %s says how many tokens are kept: --buffer-size has no meaning with it",
                                   kv);
    if (!cache->no_turboquant) return OPTIONS_RUN;
    if (cache->kv_given)
        return options_usage_error(o, "--no-turboquant and --kv %s: give one of them", cache->config.kv);
    if (cache->codec_given || cache->key_centre)
        return options_usage_error(o, "--no-turboquant stores f16: --key-bits, --value-bits, --value-group-size and "
                                      "--key-centre have no meaning with it");
    cache->config.kv = "f16";
    return OPTIONS_RUN;
}

void options_add_sampling(options *o, sampling_options *s) {
    *s = (sampling_options){.value = tq_sampling_default()};
    tq_sampling *v = &s->value;
    options_heading(o, "Sampling (defaults: the model's generation_config.json)");
    options_add(o, (option_row){.name = "temp",
                                .argument = "X",
                                .type = OPTION_FLOAT,
                                .to = &v->temp,
                                .max = 100,
                                .given = &s->temp_given,
                                .help = "temperature; 0 takes the most likely token"});
    options_add(o, (option_row){.name = "top-p",
                                .argument = "X",
                                .type = OPTION_FLOAT,
                                .to = &v->top_p,
                                .max = 1,
                                .given = &s->top_p_given,
                                .help = "likeliest tokens that make up X (1: off)"});
    options_add(o, (option_row){.name = "top-k",
                                .argument = "N",
                                .type = OPTION_INT,
                                .to = &v->top_k,
                                .max = 1 << 24,
                                .given = &s->top_k_given,
                                .help = "N likeliest tokens (0: off)"});
    options_add(o, (option_row){.name = "min-p",
                                .argument = "X",
                                .type = OPTION_FLOAT,
                                .to = &v->min_p,
                                .max = 1,
                                .given = &s->min_p_given,
                                .help = "tokens at least X times as likely as the best (0: off)"});
    options_add(o, (option_row){.name = "repeat-penalty",
                                .argument = "X",
                                .type = OPTION_FLOAT,
                                .to = &v->repeat_penalty,
                                .min = 0.01,
                                .max = 100,
                                .given = &s->repeat_penalty_given,
                                .help = "make recent tokens X times less likely (1: off)"});
    options_add(o, (option_row){.name = "presence-penalty",
                                .argument = "X",
                                .type = OPTION_FLOAT,
                                .to = &v->presence_penalty,
                                .min = -2,
                                .max = 2,
                                .given = &s->presence_penalty_given,
                                .help = "off the logit of a token that the reply has (0: off)"});
    options_add(o, (option_row){.name = "frequency-penalty",
                                .argument = "X",
                                .type = OPTION_FLOAT,
                                .to = &v->frequency_penalty,
                                .min = -2,
                                .max = 2,
                                .given = &s->frequency_penalty_given,
                                .help = "the same for each time that it has it (0: off)"});
    options_add(o, (option_row){.name = "seed",
                                .argument = "N",
                                .type = OPTION_U64,
                                .to = &v->seed,
                                .given = &s->seed_given,
                                .help = "of the random numbers (default: a new one each run)"});
}

static uint64_t fresh_seed(void) {
    uint32_t seed; /* 32 bits: a number that a person can copy */
    if (getrandom(&seed, sizeof seed, 0) == (ssize_t)sizeof seed) return seed;
    return (uint64_t)time(NULL);
}

tq_sampling options_get_sampling(const sampling_options *given, const tq_model *model) {
    tq_sampling s = tq_model_get_sampling(model);
    if (given->temp_given) s.temp = given->value.temp;
    if (given->top_p_given) s.top_p = given->value.top_p;
    if (given->top_k_given) s.top_k = given->value.top_k;
    if (given->min_p_given) s.min_p = given->value.min_p;
    if (given->repeat_penalty_given) s.repeat_penalty = given->value.repeat_penalty;
    if (given->presence_penalty_given) s.presence_penalty = given->value.presence_penalty;
    if (given->frequency_penalty_given) s.frequency_penalty = given->value.frequency_penalty;
    const char *idle = given->top_p_given ? "--top-p" : given->top_k_given ? "--top-k" : "--min-p";
    if (s.temp == 0 && (given->top_p_given || given->top_k_given || given->min_p_given))
        fprintf(stderr, "note: %s changes nothing at temperature 0; --temp sets it\n", idle);
    s.seed = given->seed_given ? given->value.seed : fresh_seed();
    return s;
}
