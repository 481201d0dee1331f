/* cmd_chat.c: `tq chat`: messages and /commands, from a person or a pipe. */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "chat_turn.h"
#include "commands.h"
#include "line_edit.h"
#include "line_history.h"
#include "setup.h"

static const char *const NAME = "chat";

typedef struct chat_options {
    model_options model;
    cache_options cache;
    sampling_options sampling;
    const char *system;
    int max_tokens;
} chat_options;

typedef struct chat {
    const chat_options *o;
    chat_turn turn;
    tq_cache_config config; /* of the session, changed by /kv */
    char *kv;               /* owns config.kv once /kv was used */
    line_edit *editor;
    char *files; /* texts brought in by /file, for the next message; NULL: none */
    bool leave, failed;
} chat;

/* ---- talking to the person --------------------------------------------------------------------------------------- */

/* Greetings are for people; in a pipe stdout holds replies and answers to commands. */
static void greet(const chat *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void greet(const chat *c, const char *format, ...) {
    FILE *to = line_edit_is_interactive(c->editor) ? stdout : stderr;
    va_list args;
    va_start(args, format);
    vfprintf(to, format, args);
    va_end(args);
    fflush(to);
}

/* A remark about the conversation, on stderr, dim where that is possible. */
static void remark(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void remark(const char *format, ...) {
    const char *term = getenv("TERM");
    bool dim = isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0;
    fflush(stdout);
    if (dim) fputs("\x1b[2m", stderr);
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputs(dim ? "\x1b[0m\n" : "\n", stderr);
}

static void remark_reply(const chat *c) {
    const chat_turn *t = &c->turn;
    tq_cache_stats stats;
    char bytes[32], f16[32];
    tq_session_get_cache_stats(t->session, &stats);
    double rate = t->decode_seconds > 0 ? t->n_replied / t->decode_seconds : 0;
    remark("[%d tokens, %.1f tok/s, %.1f s, cache %s of %s as f16]", t->n_replied, rate, t->seconds,
           terminal_bytes(bytes, stats.bytes), terminal_bytes(f16, stats.f16_bytes));
    if (t->finish == TQ_FINISH_CANCELLED) remark("[stopped; what was said is kept]");
    if (t->finish != TQ_FINISH_LENGTH) return;
    int length = tq_session_length(t->session), ctx = tq_session_ctx(t->session);
    if (t->n_replied >= t->max_tokens) remark("[cut off after %d tokens, see --max-tokens]", t->max_tokens);
    else remark("[the context is full: %d tokens of %d; /reset starts anew]", length, ctx);
}

/* ---- messages ---------------------------------------------------------------------------------------------------- */

/* The texts of /file and an empty line before what was typed; NULL: out of memory. */
static char *compose(const chat *c, const char *text) {
    size_t n = (c->files ? strlen(c->files) + 2 : 0) + strlen(text) + 1;
    char *message = malloc(n);
    if (message) snprintf(message, n, "%s%s%s", c->files ? c->files : "", c->files ? "\n\n" : "", text);
    return message;
}

static void say(chat *c, const char *text) {
    tq_error err;
    char *message = compose(c, text);
    if (!message) {
        setup_fail(NAME, "out of memory for the message");
        c->failed = true;
        return;
    }
    tq_status status = chat_turn_say(&c->turn, message, &err);
    free(message);
    if (c->turn.reply_n > 0 && c->turn.reply[c->turn.reply_n - 1] != '\n') putchar('\n');
    if (fflush(stdout) != 0) c->turn.write_failed = true;
    if (status == TQ_CANCELLED) {
        remark("[stopped; the message is taken back]");
        return;
    }
    free(c->files); /* said, or too long to be said */
    c->files = NULL;
    if (status == TQ_OK) {
        remark_reply(c);
    } else {
        setup_fail(NAME, "%s", err.text);
        c->failed = true;
    }
}

/* ---- commands ---------------------------------------------------------------------------------------------------- */

static void do_help(chat *c, const char *rest);

static void do_quit(chat *c, const char *rest) {
    (void)rest;
    c->leave = true;
}

static void do_reset(chat *c, const char *rest) {
    (void)rest;
    tq_error err;
    conversation_reset(&c->turn.talk);
    free(c->files);
    c->files = NULL;
    if (tq_session_rewind(c->turn.session, 0, &err) != TQ_OK) setup_fail(NAME, "%s", err.text);
    printf("Conversation cleared.%s\n", conversation_system(&c->turn.talk) ? " The system message stays." : "");
}

static void do_system(chat *c, const char *rest) {
    const char *now = conversation_system(&c->turn.talk);
    if (!*rest) {
        printf("%s%s\n", now ? "System message: " : "There is no system message.", now ? now : "");
        return;
    }
    bool none = strcmp(rest, "-") == 0;
    if (!conversation_set_system(&c->turn.talk, none ? NULL : rest)) setup_fail(NAME, "out of memory");
    else printf(none ? "System message removed.\n" : "System message set.\n");
}

/* "~/x" is what people type, and no shell sees it here.  buf or NULL after saying why not. */
static const char *expand_path(const char *rest, const char *suffix, char buf[PATH_MAX]) {
    const char *home = rest[0] == '~' && rest[1] == '/' ? getenv("HOME") : NULL;
    int n = snprintf(buf, PATH_MAX, "%s%s%s", home ? home : "", home ? rest + 1 : rest, suffix);
    if (n >= 0 && n < PATH_MAX && *rest) return buf;
    setup_fail(NAME, *rest ? "the file name is too long" : "which file? (/help)");
    return NULL;
}

static void do_save(chat *c, const char *rest) {
    char path[PATH_MAX], cache[PATH_MAX];
    tq_error err;
    if (!expand_path(rest, "", path) || !expand_path(rest, ".kv", cache)) return;
    const tq_session *session = c->turn.session;
    /* The cache first: a conversation whose cache is older or missing is only read again. */
    if (tq_session_save(session, cache, &err) != TQ_OK) {
        setup_fail(NAME, "%s", err.text);
        return;
    }
    const char *model = tq_model_get_info(c->turn.model)->path;
    if (conversation_save(&c->turn.talk, NAME, path, model, tq_session_kv(session)) != EXIT_SUCCESS) return;
    printf("Saved %zu messages to %s, and %d tokens of cache to %s.\n", c->turn.talk.n, path,
           tq_session_length(session), cache);
}

static void do_load(chat *c, const char *rest) {
    char path[PATH_MAX], cache[PATH_MAX];
    tq_error err;
    if (!expand_path(rest, "", path) || !expand_path(rest, ".kv", cache)) return;
    if (conversation_load(&c->turn.talk, NAME, path) != EXIT_SUCCESS) return;
    if (tq_session_load(c->turn.session, cache, &err) == TQ_OK) {
        printf("Loaded %zu messages from %s, and %d tokens of cache.\n", c->turn.talk.n, path,
               tq_session_length(c->turn.session));
        return;
    }
    printf("Loaded %zu messages from %s.\n", c->turn.talk.n, path);
    remark("[%s; the conversation is read again with the next message]", err.text);
}

static void do_stats(chat *c, const char *rest) {
    (void)rest;
    const chat_turn *t = &c->turn;
    const tq_model_info *info = tq_model_get_info(t->model);
    tq_cache_stats stats;
    char bytes[32], f16[32], peak[32];
    tq_session_get_cache_stats(t->session, &stats);
    double ratio = stats.bytes > 0 ? (double)stats.f16_bytes / (double)stats.bytes : 0;
    printf("model:     %s (%s, %s, %d threads)\n", info->path, info->weights, info->backend, info->n_threads);
    printf("context:   %d tokens of %d, %zu messages\n", tq_session_length(t->session), tq_session_ctx(t->session),
           t->talk.n);
    printf("cache:     %s as %s, %s as f16 (ratio %.2f), %.2f bits a packed value\n",
           terminal_bytes(bytes, stats.bytes), tq_session_kv(t->session), terminal_bytes(f16, stats.f16_bytes), ratio,
           stats.bits_per_value);
    printf("           %d tokens packed, %d exact\n", stats.packed_tokens, stats.exact_tokens);
    printf("last turn: %d tokens were in the cache, %d read, %d replied\n", t->n_kept, t->n_read, t->n_replied);
    printf("memory:    %s at its peak\n", terminal_bytes(peak, terminal_peak_rss()));
}

static void do_kv(chat *c, const char *rest) {
    if (!*rest) {
        printf("KV %s\n", tq_session_kv(c->turn.session));
        return;
    }
    char *kv = strdup(rest);
    if (!kv) {
        setup_fail(NAME, "out of memory");
        return;
    }
    tq_cache_config config = c->config;
    config.kv = kv;
    config.key_bits = config.value_bits = config.value_group_size = 0; /* they belonged to the codec before */
    tq_session *session;
    tq_error err;
    if (setup_session(NAME, c->turn.model, &config, c->o->cache.ctx, &session) != EXIT_SUCCESS) {
        free(kv);
        return;
    }
    tq_session_free(c->turn.session);
    c->turn.session = session;
    c->config = config;
    free(c->kv);
    c->kv = kv;
    tq_status status = chat_turn_catch_up(&c->turn, &err);
    if (status != TQ_OK) remark("[%s; the rest is read with the next message]", err.text);
    printf("KV %s, %d tokens read again.\n", tq_session_kv(session), tq_session_length(session));
}

/* Keep the text for the next message, behind those of earlier /file commands. */
static void do_file(chat *c, const char *rest) {
    char path[PATH_MAX], *text;
    size_t n, n_ids;
    if (!expand_path(rest, "", path)) return;
    if (strcmp(path, "-") == 0) {
        setup_fail(NAME, "/file - would read what you type; name a file");
        return;
    }
    if (setup_read_text(NAME, path, &text, &n) != EXIT_SUCCESS) return;
    tq_error err;
    int32_t *ids = NULL;
    if (tq_tokenize(c->turn.model, text, n, false, &ids, &n_ids, &err) != TQ_OK) {
        setup_fail(NAME, "%s: %s", path, err.text);
        free(text);
        return;
    }
    tq_free(ids);
    size_t bytes = n;
    while (n > 0 && isspace((unsigned char)text[n - 1])) text[--n] = 0;
    char *all = c->files ? compose(c, text) : strdup(text);
    free(text);
    if (!all) {
        setup_fail(NAME, "out of memory for %s", path);
        return;
    }
    free(c->files);
    c->files = all;
    printf("%s: %zu bytes, %zu tokens; it goes with your next message.\n", path, bytes, n_ids);
}

typedef struct chat_command {
    const char *name, *argument, *help;
    void (*run)(chat *c, const char *rest);
} chat_command;

static const chat_command commands[] = {
    {"/help", "", "this list", do_help},
    {"/reset", "", "forget the conversation", do_reset},
    {"/system", "[TEXT]", "show or set the system message; - removes it", do_system},
    {"/file", "PATH", "bring in a text: it goes before your next message", do_file},
    {"/save", "FILE", "the messages to FILE (JSON), the cache to FILE.kv", do_save},
    {"/load", "FILE", "both back; without FILE.kv the messages are read again", do_load},
    {"/kv", "[CODEC]", "show the cache's codec, or change it and read the conversation again", do_kv},
    {"/stats", "", "context, cache and memory", do_stats},
    {"/quit", "", "leave, as do /exit and Ctrl-D", do_quit},
    {"/exit", "", "leave", do_quit},
};

enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void do_help(chat *c, const char *rest) {
    (void)c;
    (void)rest;
    for (int i = 0; i < N_COMMANDS; i++)
        printf("  %-8s %-8s %s\n", commands[i].name, commands[i].argument, commands[i].help);
    printf("  \"\"\"               starts and ends a message of several lines\n");
    printf("  Ctrl-C            stops a reply; at the prompt it clears the line, and twice it leaves\n");
}

static void run_command(chat *c, const char *line) {
    size_t n = strcspn(line, " \t");
    const char *rest = line + n + strspn(line + n, " \t");
    for (int i = 0; i < N_COMMANDS; i++) {
        if (strlen(commands[i].name) != n || strncasecmp(commands[i].name, line, n) != 0) continue;
        if (!*commands[i].argument && *rest) setup_fail(NAME, "%s takes no argument", commands[i].name);
        else commands[i].run(c, rest);
        if (fflush(stdout) != 0) c->turn.write_failed = true;
        return;
    }
    setup_fail(NAME, "Unknown command: %.*s. Type /help for commands.", (int)n, line);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

/* A message on its way in. */
typedef struct entry {
    char *text;
    size_t n, cap;
} entry;

static bool append(entry *to, const char *text, size_t n) {
    if (to->n + n + 1 > to->cap) {
        size_t cap = 2 * (to->n + n + 1);
        char *grown = realloc(to->text, cap);
        if (!grown) return false;
        to->text = grown;
        to->cap = cap;
    }
    memcpy(to->text + to->n, text, n);
    to->n += n;
    to->text[to->n] = 0;
    return true;
}

static void trim_end(entry *to) {
    while (to->n > 0 && isspace((unsigned char)to->text[to->n - 1])) to->text[--to->n] = 0;
}

/* Take the closing quotes off, if the entry ends in them. */
static bool close_quotes(entry *to) {
    size_t end = to->n;
    while (end > 0 && isspace((unsigned char)to->text[end - 1])) end--;
    if (end < 3 || strncmp(to->text + end - 3, "\"\"\"", 3) != 0) return false;
    to->text[to->n = end - 3] = 0;
    return true;
}

/* One entry: a line, a paste, or what stands between triple quotes (*quoted).  Reading stops at the end of input, which
 * also closes quotes. */
static line_result read_entry(chat *c, entry *to, bool *quoted) {
    const char *line;
    size_t n;
    to->n = 0;
    *quoted = false;
    line_result result = line_edit_read(c->editor, ">>> ", &line, &n);
    if (result != LINE_OK) return result;
    size_t lead = strspn(line, " \t");
    *quoted = strncmp(line + lead, "\"\"\"", 3) == 0;
    if (*quoted) lead += 3;
    for (;;) {
        if (!append(to, line + lead, n - lead)) return LINE_FAILED;
        if (!*quoted || close_quotes(to)) break;
        result = line_edit_read(c->editor, "... ", &line, &n);
        if (result == LINE_END) break; /* the next read ends the chat */
        if (result != LINE_OK) return result == LINE_INTERRUPTED ? LINE_DROPPED : result;
        lead = 0;
        if (!append(to, "\n", 1)) return LINE_FAILED;
    }
    trim_end(to);
    return LINE_OK;
}

static void take_entry(chat *c, const entry *typed, bool quoted) {
    const char *text = typed->text + (quoted ? strspn(typed->text, "\n") : 0);
    if (!*text && typed->n == 0) return;
    bool is_text = strlen(typed->text) == typed->n;
    if (!is_text) setup_fail(NAME, "a message cannot hold NUL bytes");
    if (!is_text || setup_check_utf8(NAME, "the message", text) != EXIT_SUCCESS) {
        c->failed = true;
        return;
    }
    line_edit_remember(c->editor, text);
    if (!quoted && text[0] == '/' && !strchr(text, '\n')) run_command(c, text);
    else say(c, text);
}

static int talk(chat *c) {
    entry typed = {0};
    int n_interrupts = 0;
    line_result result = LINE_OK;
    while (!c->leave && !c->turn.write_failed) {
        bool quoted;
        result = read_entry(c, &typed, &quoted);
        if (result == LINE_END || result == LINE_FAILED) break;
        n_interrupts = result == LINE_INTERRUPTED ? n_interrupts + 1 : 0;
        if (n_interrupts >= 2) break;
        if (n_interrupts == 1) remark("[Ctrl-C again leaves]");
        if (result == LINE_OK) take_entry(c, &typed, quoted);
    }
    free(typed.text);
    if (c->turn.write_failed) return setup_fail(NAME, "writing to stdout failed");
    if (result == LINE_FAILED) return setup_fail(NAME, "reading the next message failed: %s", strerror(errno));
    greet(c, "Bye!\n");
    /* A person has seen what went wrong; a script sees the exit code. */
    return c->failed && !line_edit_is_interactive(c->editor) ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static int parse(chat_options *g, int argc, char **argv) {
    *g = (chat_options){.max_tokens = 1024};
    options o;
    options_begin(&o, "tq chat [OPTIONS]",
                  "Talk with a model.  From a pipe, every line is a message or a /command; /help lists them.");
    options_heading(&o, "Chat");
    options_add(&o, (option_row){.name = "system",
                                 .argument = "TEXT",
                                 .type = OPTION_STRING,
                                 .to = &g->system,
                                 .help = "a system message before the conversation"});
    options_add(&o, (option_row){.name = "max-tokens",
                                 .letter = 'm',
                                 .argument = "N",
                                 .type = OPTION_INT,
                                 .to = &g->max_tokens,
                                 .min = 1,
                                 .max = 1 << 24,
                                 .help = "tokens of a reply at most (default 1024)"});
    options_add_sampling(&o, &g->sampling);
    options_add_cache(&o, &g->cache);
    options_add_model(&o, &g->model);
    int code = options_parse(&o, argc, argv, NULL);
    return code == OPTIONS_RUN ? options_check_cache(&o, &g->cache) : code;
}

/* "bookworm" of "models/bookworm/": what people call the model. */
static void greet_with_name(const chat *c) {
    const char *path = tq_model_get_info(c->turn.model)->path;
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') end--;
    size_t start = end;
    while (start > 0 && path[start - 1] != '/') start--;
    greet(c, "Chat with %.*s (KV %s)\nType /help for commands, /quit to exit.\n", (int)(end - start), path + start,
          tq_session_kv(c->turn.session));
}

static int open_chat(chat *c) {
    const chat_options *o = c->o;
    int code = o->system ? setup_check_utf8(NAME, "the system message", o->system) : EXIT_SUCCESS;
    if (code == EXIT_SUCCESS) code = setup_model(NAME, &o->model, &c->turn.model, NULL);
    if (code != EXIT_SUCCESS) return code;
    if (!tq_model_get_info(c->turn.model)->has_chat_template)
        return setup_fail(NAME, "the model has no chat template, so it cannot chat; try tq generate --raw");
    code = setup_session(NAME, c->turn.model, &c->config, o->cache.ctx, &c->turn.session);
    if (code != EXIT_SUCCESS) return code;
    if (o->system && !conversation_set_system(&c->turn.talk, o->system)) return setup_fail(NAME, "out of memory");
    c->turn.sampling = options_get_sampling(&o->sampling, c->turn.model);
    c->turn.max_tokens = o->max_tokens;
    char *history = line_history_default_path();
    c->editor = line_edit_new(history);
    free(history);
    return c->editor ? EXIT_SUCCESS : setup_fail(NAME, "out of memory");
}

int cmd_chat(int argc, char **argv) {
    chat_options o;
    int code = parse(&o, argc, argv);
    if (code != OPTIONS_RUN) return code;
    chat c = {.o = &o, .config = o.cache.config};
    code = open_chat(&c);
    if (code == EXIT_SUCCESS) {
        greet_with_name(&c);
        code = talk(&c);
    }
    line_edit_free(c.editor);
    conversation_free(&c.turn.talk);
    free(c.turn.reply);
    free(c.files);
    tq_session_free(c.turn.session);
    tq_model_free(c.turn.model);
    free(c.kv);
    return code;
}
