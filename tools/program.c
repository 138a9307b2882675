/* program.c - a program of subcommands: see program.h. */
#include "tools/program.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tools/files.h"
#include "tools/options.h"
#include "tools/report.h"

enum { MOST_COMMANDS = 16 };

static int print_help(const program *p) {
    printf("%s\n\nusage: %s COMMAND [options]\n\ncommands:\n", p->about, p->name);
    for (size_t i = 0; i < p->n_commands; i++) printf("  %-10s %s\n", p->commands[i].name, p->commands[i].about);
    printf("\n  %s help COMMAND       its options, with defaults and examples\n"
           "  %s help exit-codes    what the exit codes mean\n", p->name, p->name);
    if (p->topic) printf("  %s help %s      the GPUs that --gpu-profile knows\n", p->name, p->topic);
    printf("  %s help man|bash|zsh  a manual page; what a shell completes with\n"
           "  %s --version          and what it was built with\n\n"
           "examples:\n%s\n", p->name, p->name, p->examples);
    return stdout_finish("help");
}

static int unknown(const program *p, const char *what, const char *word) {
    const char *names[MOST_COMMANDS + 1];
    size_t n = 0;
    while (n < p->n_commands && n < MOST_COMMANDS) names[n] = p->commands[n].name, n++;
    names[n++] = "help";
    const char *near = nearest_word(word, names, n);
    if (near) say("%s: unknown %s \"%s\": did you mean %s?", p->name, what, word, near);
    else say("%s: unknown %s \"%s\": see %s --help", p->name, what, word, p->name);
    return EXIT_USAGE;
}

static const command *find(const program *p, const char *name) {
    for (size_t i = 0; i < p->n_commands; i++)
        if (strcmp(p->commands[i].name, name) == 0) return &p->commands[i];
    return NULL;
}

void program_each(const program *p, help_fn each, void *user) {
    char name[16], flag[] = "--help", *argv[] = { name, flag, NULL };
    options_show_with(each, user);
    for (size_t i = 0; i < p->n_commands; i++) {
        snprintf(name, sizeof name, "%s", p->commands[i].name);
        p->commands[i].run(2, argv);
    }
    options_show_with(NULL, NULL);
}

static void exit_codes_print(const program *p) {
    (void)p;
    printf("exit codes of every command:\n%s\n", exit_codes_text());
}

static int help(const program *p, const char *topic) {
    static const struct { const char *topic; void (*print)(const program *); } texts[] = {
        { "exit-codes", exit_codes_print }, { "man", manual_print }, { "bash", completion_print_bash }, { "zsh", completion_print_zsh } };
    if (!topic) return print_help(p);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (strcmp(topic, texts[i].topic) == 0) return texts[i].print(p), stdout_finish("help");
    if (p->topic && strcmp(topic, p->topic) == 0) return p->print_topic(), stdout_finish("help");
    const command *c = find(p, topic);
    char name[16], flag[] = "--help", *argv[] = { name, flag, NULL };
    if (!c) return unknown(p, "command", topic);
    snprintf(name, sizeof name, "%s", topic);
    return c->run(2, argv);
}

/* The first line for programs that read it, the build's facts below. */
static int print_version(const program *p) {
    const char *facts = rv_build_info(), *own = strchr(facts, '\n');      /* behind "version: .." */
    printf("%s %s\n%s", p->name, rv_version(), own ? own + 1 : "");
    return stdout_finish("version");
}

/* "run, inspect, .. or synth" */
static int say_missing(const program *p) {
    char names[256] = "";
    for (size_t i = 0, at = 0; i < p->n_commands && at < sizeof names; i++)
        at += (size_t)snprintf(names + at, sizeof names - at, "%s%s", i == 0 ? "" : i + 1 < p->n_commands ? ", " : " or ", p->commands[i].name);
    say("%s: a command is missing: %s (see %s --help)", p->name, names, p->name);
    return EXIT_USAGE;
}

int program_main(const program *p, int argc, char **argv) {
    static char buffer[1 << 16];       /* errno of a failed write stays known until the end of a shorter answer */
    program_name = p->name;
    stdout_prepare();
    signals_prepare();
    if (!isatty(STDOUT_FILENO)) setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    if (argc < 2) return say_missing(p);
    const char *word = argv[1];
    if (rv_abi() != RV_ABI) {
        say("%s: the program was built for library ABI %u, this library has %u: rebuild it", p->name, RV_ABI, rv_abi());
        return EXIT_INTERNAL;
    }
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) return help(p, NULL);
    if (strcmp(word, "help") == 0) return help(p, argc > 2 ? argv[2] : NULL);
    if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0) return print_version(p);
    const command *c = find(p, word);
    if (c) return c->run(argc - 1, argv + 1);
    if (p->fallback && word[0] == '-' && word[1]) return find(p, p->fallback)->run(argc, argv);
    return unknown(p, word[0] == '-' ? "option" : "command", word);
}
