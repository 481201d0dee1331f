/* main.c: `tq COMMAND ...`: the table of commands. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "options.h"

typedef struct command {
    const char *name, *help;
    int (*run)(int argc, char **argv);
} command;

static const command commands[] = {
    {"generate", "answer one prompt", cmd_generate},
    {"chat", "talk with a model", cmd_chat},
    {"serve", "serve a model to OpenAI clients, with a page to chat", cmd_serve},
    {"quantize", "write a smaller copy of a model", cmd_quantize},
    {"quality", "check which compressed caches a model can be trusted with", cmd_quality},
    {"eval", "measure what compressed caches cost: divergence, recall, needles, perplexity, ...", cmd_eval},
    {"bench", "measure speed and memory: by context, by kernel, against other engines", cmd_bench},
    {"pull", "fetch a model from the Hugging Face hub", cmd_pull},
    {"inspect", "tell what a model is made of, and what a cache of it costs", cmd_inspect},
    {"plan", "tell which contexts and caches fit into memory, and how fast they can be", cmd_plan},
    {"codecs", "list the codecs and what they cost", cmd_codecs},
};

enum { N_COMMANDS = sizeof commands / sizeof *commands };

static const command *find(const char *name) {
    for (int i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0) return &commands[i];
    return NULL;
}

static void print_usage(FILE *to) {
    fprintf(to, "Usage: tq COMMAND [OPTIONS]\n\nLanguage models with a compressed KV cache.\n\nCommands:\n");
    for (int i = 0; i < N_COMMANDS; i++) fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].help);
    fprintf(to, "\n'tq help COMMAND' tells the options of a command; 'tq --version' the version.\n");
}

static int refuse(const char *name) {
    fprintf(stderr, "tq: unknown %s '%s'; the commands are", name[0] == '-' ? "option" : "command", name);
    for (int i = 0; i < N_COMMANDS; i++) fprintf(stderr, "%s %s", i ? "," : "", commands[i].name);
    fprintf(stderr, "\nTry 'tq --help'.\n");
    return EXIT_USAGE;
}

static int help(int argc, char **argv) {
    if (argc < 3) {
        print_usage(stdout);
        return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
    }
    const command *c = find(argv[2]);
    if (!c) return refuse(argv[2]);
    char flag[] = "--help";
    char *words[] = {argv[2], flag, NULL};
    return c->run(2, words);
}

int main(int argc, char **argv) {
    if (argc < 2) {
        print_usage(stderr);
        return EXIT_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) return help(argc, argv);
    if (strcmp(name, "--version") == 0) {
        printf("tq %s\n", tq_version());
        return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
    }
    const command *c = find(name);
    return c ? c->run(argc - 1, argv + 1) : refuse(name);
}
