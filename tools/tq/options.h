/* options.h: the options of a command, from one table: parsing and --help text both come out of it.
 *
 *     options o;
 *     options_begin(&o, "tq generate --prompt TEXT [OPTIONS]", "Answer one prompt.");
 *     options_heading(&o, "Prompt");
 *     options_add(&o, (option_row){.name = "prompt", .letter = 'p', .argument = "TEXT", .type = OPTION_STRING,
 *                                  .to = &prompt, .help = "the user's message"});
 *     options_add_model(&o, &model);                     // the shared groups: model, cache, sampling
 *     int code = options_parse(&o, argc, argv, &first);
 *     if (code != OPTIONS_RUN) return code;              // --help, or a usage error that has been printed
 *
 * What is stored in `to` before parsing is the default.  A number is the whole argument and within its range; an
 * option unknown or abbreviated is refused; of an option given twice the last counts. */
#ifndef TQ_TOOL_OPTIONS_H
#define TQ_TOOL_OPTIONS_H

#include <stdbool.h>

#include "turboquant/tq.h"

enum { EXIT_USAGE = 2, OPTIONS_RUN = -1, OPTIONS_CAP = 64 };

typedef enum option_type {
    OPTION_FLAG,   /* bool *, set to true */
    OPTION_INT,    /* int * */
    OPTION_FLOAT,  /* float * */
    OPTION_DOUBLE, /* double * */
    OPTION_U64,    /* uint64_t *; any value, min and max are not looked at */
    OPTION_STRING, /* const char **, points into argv */
} option_type;

typedef struct option_row {
    const char *name;     /* long name without dashes; NULL for a heading */
    char letter;          /* short name, or 0 */
    const char *argument; /* its name in the help; NULL for a flag */
    const char *help;     /* what it does, and its default in words; '\n' starts another line */
    option_type type;
    void *to;
    double min, max; /* of a number, both included */
    bool *given;     /* set when the option was given; may be NULL */
} option_row;

typedef struct options {
    const char *usage; /* "tq generate --prompt TEXT [OPTIONS]" */
    const char *about;
    option_row rows[OPTIONS_CAP];
    int n_rows;
} options;

void options_begin(options *o, const char *usage, const char *about);
void options_heading(options *o, const char *title);
void options_add(options *o, option_row row);
option_row *options_find(options *o, const char *name); /* to change a row of a shared group; NULL if there is none */

/* Parse.  argv[0] is the command's name.  *first (may be NULL: then operands are refused) becomes the index of the
 * first operand in argv, which is permuted; argc if there is none.  OPTIONS_RUN, or the code to exit with. */
int options_parse(options *o, int argc, char **argv, int *first);

/* "tq generate: TEXT" and where to find help, on stderr.  Returns EXIT_USAGE. */
int options_usage_error(const options *o, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- shared groups ----------------------------------------------------------------------------------------------- */

typedef struct model_options {
    const char *model; /* a directory; NULL: the bundled one (setup.h) */
    int threads;       /* 0: one a usable processor */
    const char *kernels;
    const char *prefill; /* "f32", "bf16"; NULL: f32 */
    const char *memory; /* "8GB"; NULL: what the system has */
    bool no_memory_check;
} model_options;

/* --model --threads --kernels --prefill-precision --memory --no-memory-check */
void options_add_model(options *o, model_options *model);

typedef struct cache_options {
    tq_cache_config config;
    int ctx; /* 0: not given */
    bool no_turboquant;
    const char *key_centre;     /* as given */
    bool kv_given, codec_given; /* --kv; any of --key-bits --value-bits --value-group-size */
    bool buffer_given;
} cache_options;

/* After parsing: MODEL as an operand, at most one and not beside --model.  OPTIONS_RUN or the code to exit with. */
int options_take_model(const options *o, model_options *model, int argc, char **argv, int first);

/* "8GB", "512M", "1000000": bytes (1 GB is 10^9, 1 GiB and 1G are 2^30); false for anything else. */
bool options_parse_bytes(const char *text, int64_t *bytes);

/* --memory and --no-memory-check as tq_model_params.memory_limit.  OPTIONS_RUN, or the code of a usage error. */
int options_get_memory(const char *command, const model_options *model, int64_t *limit);
/* --prefill-precision as tq_model_params.prefill.  Likewise. */
int options_get_prefill(const char *command, const model_options *model, tq_precision *precision);

/* --kv --key-bits --value-bits --value-group-size --key-centre --buffer-size --sinks --flush-batch-size --no-turboquant --ctx */
void options_add_cache(options *o, cache_options *cache);

/* --key-centre alone; and after parsing what it says, NULL where it was not given: *out stays.  OPTIONS_RUN or the code to exit
 * with. */
void options_add_key_centre(options *o, const char **to);
int options_read_key_centre(const options *o, const char *text, tq_key_centre *out);
extern const char *const options_key_centres[]; /* names, by tq_key_centre */

/* After parsing: the same, refuse what contradicts itself, and turn --no-turboquant into the codec f16.  OPTIONS_RUN or the code
 * to exit with. */
int options_check_cache(const options *o, cache_options *cache);

typedef struct sampling_options {
    tq_sampling value;
    bool temp_given, top_p_given, top_k_given, min_p_given, repeat_penalty_given, presence_penalty_given, frequency_penalty_given,
        seed_given;
} sampling_options;

/* --temp --top-p --top-k --min-p --repeat-penalty --presence-penalty --frequency-penalty --seed */
void options_add_sampling(options *o, sampling_options *sampling);

/* What was given, over what the model's generation_config.json asks for.  Without --seed, sampling takes a new one
 * from the system. */
tq_sampling options_get_sampling(const sampling_options *sampling, const tq_model *model);

#endif
