/* program.h - a program of subcommands: which one, and help about all of them. */
#ifndef RV_TOOLS_PROGRAM_H
#define RV_TOOLS_PROGRAM_H
#include <stddef.h>

#include "tools/options.h"

typedef struct command {
    const char *name, *about;
    int (*run)(int argc, char **argv);       /* gets its own name as argv[0]; returns the exit code */
} command;

typedef struct program {
    const char    *name, *about;             /* "rvengine"; one sentence                        */
    const command *commands;
    size_t         n_commands;
    const char    *fallback;                 /* the command of a line that begins with an option; NULL: none */
    const char    *topic;                    /* of `help`, besides commands and exit-codes; NULL: none */
    void         (*print_topic)(void);
    const char    *examples;                 /* lines of --help                                 */
} program;

/* Prepares stdout and signals, then does what the line asks; returns the exit code. */
int program_main(const program *p, int argc, char **argv);
/* Calls `each` with the help and the options of every command, in order. */
void program_each(const program *p, help_fn each, void *user);

/* tools/manual.c: a manual page (man macros); tools/completion.c: what bash and zsh read to complete a line.  To stdout. */
void manual_print(const program *p);
void completion_print_bash(const program *p);
void completion_print_zsh(const program *p);
#endif
