/* main.c - rvengine: which subcommand, and help about all of them. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tools/commands.h"
#include "tools/files.h"
#include "tools/options.h"
#include "tools/report.h"

typedef struct command {
    const char *name, *about;
    int (*run)(int argc, char **argv);
} command;

static const command commands[] = {
    { "run", "read images, or answer a prompt", cmd_run },
    { "inspect", "what a model folder or an image is, without running it", cmd_inspect },
    { "plan", "how much memory a model takes, without loading it", cmd_plan },
    { "doctor", "what this build and this machine can do", cmd_doctor },
    { "tokenize", "text to token ids and back", cmd_tokenize },
    { "synth", "write a model with random weights, for benchmarks", cmd_synth },
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static int print_help(void) {
    puts("rvengine reads documents with Llama-3.2-Vision models (HF \"Mllama\" folders).\n\n"
         "usage: rvengine COMMAND [options]\n\ncommands:");
    for (size_t i = 0; i < N_COMMANDS; i++) printf("  %-10s %s\n", commands[i].name, commands[i].about);
    puts("\n  rvengine help COMMAND       its options, with defaults and examples\n"
         "  rvengine help exit-codes    what the exit codes mean\n"
         "  rvengine --version\n\n"
         "examples:\n"
         "  rvengine run --model /models/Llama-3.2-11B-Vision-Instruct --image receipt.jpg\n"
         "  rvengine plan --model /models/Llama-3.2-11B-Vision-Instruct --weights int8");
    return stdout_finish("help");
}

static int unknown(const char *what, const char *word) {
    const char *names[N_COMMANDS + 1];
    for (size_t i = 0; i < N_COMMANDS; i++) names[i] = commands[i].name;
    names[N_COMMANDS] = "help";
    const char *near = nearest_word(word, names, N_COMMANDS + 1);
    if (near) say("rvengine: unknown %s \"%s\": did you mean %s?", what, word, near);
    else say("rvengine: unknown %s \"%s\": see rvengine --help", what, word);
    return EXIT_USAGE;
}

static const command *find(const char *name) {
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0) return &commands[i];
    return NULL;
}

static int help(const char *topic) {
    if (!topic) return print_help();
    if (strcmp(topic, "exit-codes") == 0) {
        printf("exit codes of every command:\n%s\n", exit_codes_text());
        return stdout_finish("help");
    }
    const command *c = find(topic);
    char name[16], flag[] = "--help", *argv[] = { name, flag, NULL };
    if (!c) return unknown("command", topic);
    snprintf(name, sizeof name, "%s", topic);
    return c->run(2, argv);
}

int main(int argc, char **argv) {
    static char buffer[1 << 16];       /* errno of a failed write stays known until the end of a shorter answer */
    stdout_prepare();
    signals_prepare();
    if (!isatty(STDOUT_FILENO)) setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    if (argc < 2) {
        say("rvengine: a command is missing: run, inspect, plan, doctor, tokenize or synth (see rvengine --help)");
        return EXIT_USAGE;
    }
    const char *word = argv[1];
    if (rv_abi() != RV_ABI) {
        say("rvengine: the program was built for library ABI %u, this library has %u: rebuild it", RV_ABI, rv_abi());
        return EXIT_INTERNAL;
    }
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) return help(NULL);
    if (strcmp(word, "help") == 0) return help(argc > 2 ? argv[2] : NULL);
    if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0) {
        printf("rvengine %s\n", rv_version());
        return stdout_finish("version");
    }
    const command *c = find(word);
    if (c) return c->run(argc - 1, argv + 1);
    return unknown(word[0] == '-' ? "option" : "command", word);
}
