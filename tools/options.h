/* options.h - a command line, read by a table.
 *
 * The one idea: each subcommand writes one table of its options; parsing, range checks, "did you
 * mean" and --help all come from it, so that help and behaviour cannot disagree.
 */
#ifndef RV_TOOLS_OPTIONS_H
#define RV_TOOLS_OPTIONS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Texts given by repeating an option, or without one. `items` is allocated; texts are argv's. */
typedef struct text_list { const char **items; size_t count; } text_list;
void text_list_free(text_list *list);

typedef enum {
    OPTION_END,      /* last row                                                              */
    OPTION_GROUP,    /* a heading of --help: `name`                                           */
    OPTION_FLAG,     /* bool: set to true; a setting may say --name=no                        */
    OPTION_TEXT,     /* const char *                                                          */
    OPTION_LIST,     /* text_list, may be repeated                                            */
    OPTION_WHOLE,    /* uint64_t from min to max                                              */
    OPTION_REAL,     /* double from min to max                                                */
    OPTION_BYTES,    /* uint64_t, 1 or more: "12G", "1.5GiB", "500mb", "4096"; K, M, G, T are 1024's */
    OPTION_CHOICE    /* int32_t: place in `choices`, counted from 0                           */
} option_kind;

typedef struct option {
    option_kind kind;
    const char *name;        /* without dashes                                                */
    char        letter;      /* 0: none                                                       */
    void       *to;          /* see option_kind; what is in it is the default: initialise it */
    bool       *given;       /* may be NULL                                                   */
    double      min, max;
    const char *choices;     /* "auto|cpu|cuda"                                               */
    const char *value;       /* what stands for the value in help: "FILE"                     */
    const char *help;        /* lines are broken where it says "\n"                           */
    bool        setting;     /* may also come from RV_NAME or --env-file: tools/settings.h; --name "" then undoes that */
} option;

/* What --help says besides the options. */
typedef struct command_help {
    const char *command;     /* "run"                                                         */
    const char *usage;       /* lines after "usage: "; each starts with the program           */
    const char *about;
    const char *after;       /* examples and the like; may be NULL                            */
    bool        reports_settings;   /* the command names settings instead of taking them       */
} command_help;

typedef enum { PARSE_OK, PARSE_HELP, PARSE_WRONG, PARSE_UNREADABLE } parse_result;

/* Who shows --help; NULL: it is printed. Manual pages and completions listen here, so that they come from the same tables. */
typedef void (*help_fn)(void *user, const command_help *help, const option *table);
void options_show_with(help_fn show, void *user);

/* argv[0] is not looked at. `plain` collects arguments without a dash; NULL: there may be none.
 * PARSE_HELP: help was printed to stdout; PARSE_WRONG, PARSE_UNREADABLE (of
 * --env-file): the reason was printed to stderr. Lists are the caller's to free in every case. */
parse_result options_parse(const command_help *help, const option *table, int argc, char **argv, text_list *plain);

/* The exit code of a result that is not PARSE_OK. */
int parse_exit(parse_result result, const char *command);

/* Whether an option would take that value; if not, `must` says what it has to be. Writes what is behind `to`. */
bool option_accepts(const option *o, const char *value, char *must, size_t bytes);

/* The word of `words` (n of them) that `text` most likely meant, or NULL. */
const char *nearest_word(const char *text, const char *const *words, size_t n);
#endif
