/* completion.c - what bash and zsh complete a program's lines with, from the tables that --help comes from: see
 * program.h.
 *
 * The one idea: what may stand behind an option is said by its row: choices are words, "FILE" and "DIR" are paths,
 * names come from the library itself (document types, GPUs).  Words behind a command are read off its usage lines.
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "engine/rvextract.h"
#include "tools/program.h"
#include "tools/report.h"

enum { WORDS_BYTES = 1024 };

typedef struct words {
    char text[WORDS_BYTES];
    bool files, folders;
} words; /* text: separated by blanks */

static void add_word(words *w, const char *word, size_t n) {
    size_t at = strlen(w->text);
    if (at + n + 2 < sizeof w->text) snprintf(w->text + at, sizeof w->text - at, "%s%.*s", at ? " " : "", (int)n, word);
}

static void add_profiles(words *w) {
    for (uint32_t i = 0; i < rv_profile_count(); i++) {
        rv_profile profile = {.size = sizeof profile};
        if (rv_profile_at(i, &profile, NULL) == RV_OK) add_word(w, profile.name, strlen(profile.name));
    }
}

/* "auto|cpu|cuda", "DIR|off": lower-case parts stand for themselves. */
static void add_parts(words *w, const char *text) {
    for (size_t n; text && *text; text += n + (text[n] == '|')) {
        n = strcspn(text, "|");
        if (n == 3 && memcmp(text, "DIR", 3) == 0) w->folders = true;
        else if (n == 4 && (memcmp(text, "FILE", 4) == 0 || memcmp(text, "PATH", 4) == 0)) w->files = true;
        else if (n && !isupper((unsigned char)text[0])) add_word(w, text, n);
    }
}

static words values_of(const option *o) {
    words w = {0};
    if (o->kind == OPTION_CHOICE)
        for (const char *c = o->choices; *c; c += strcspn(c, "|"), c += *c == '|') add_word(&w, c, strcspn(c, "|"));
    else add_parts(&w, o->value);
    if (strcmp(o->name, "gpu-profile") == 0) add_profiles(&w);
    if (strcmp(o->name, "schema") == 0 || strcmp(o->name, "json-schema") == 0) w.files = true;
    for (uint32_t i = 0; strcmp(o->name, "schema") == 0 && i < rv_schema_count(); i++)
        add_word(&w, rv_schema_name(i), strlen(rv_schema_name(i)));
    return w;
}

/* Of "rvengine schema list [--json]": list. */
static words verbs_of(const program *p, const command_help *help) {
    words w = {0};
    for (const char *line = help->usage; line; line = strchr(line, '\n'), line += line ? 1 : 0) {
        char name[32], word[32], verb[32] = "";
        if (sscanf(line, " %31s %31s %31[a-z]", name, word, verb) == 3 && strcmp(name, p->name) == 0 &&
            strcmp(word, help->command) == 0)
            add_word(&w, verb, strlen(verb));
    }
    return w;
}

static bool is_option(const option *o) { return o->kind != OPTION_GROUP; }

/* ---- bash ---- */

static void bash_values(const option *o) {
    words w = values_of(o);
    printf("        --%s", o->name);
    if (o->letter) printf("|-%c", o->letter);
    printf(") words=\"%s\"; paths=%s;;\n", w.text, w.folders ? "d" : w.files ? "f" : "");
}

static void bash_command(void *user, const command_help *help, const option *table) {
    const program *p = user;
    printf("    %s%s)\n        verbs=\"%s\" options=\"",
           p->fallback && strcmp(p->fallback, help->command) == 0 ? "-*|" : "", help->command, verbs_of(p, help).text);
    for (const option *o = table; o->kind != OPTION_END; o++) {
        if (is_option(o)) printf("--%s ", o->name);
        if (is_option(o) && o->letter) printf("-%c ", o->letter);
    }
    puts("--help -h\"\n        case $before in");
    for (const option *o = table; o->kind != OPTION_END; o++)
        if (is_option(o) && o->kind != OPTION_FLAG) bash_values(o);
    puts("        *) value=;;\n        esac;;");
}

static void print_commands(const program *p) {
    for (size_t i = 0; i < p->n_commands; i++) printf("%s ", p->commands[i].name);
}

void completion_print_bash(const program *p) {
    printf("# %s(1) for bash, made by `%s help bash`\n"
           "_%s() {\n"
           "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} first=${COMP_WORDS[1]}\n"
           "    local value=1 words= paths= verbs= options=\n"
           "    COMPREPLY=()\n"
           "    # --name=value comes as three words\n"
           "    if [[ $word == = ]]; then word=\n"
           "    elif [[ $before == = ]]; then before=${COMP_WORDS[COMP_CWORD-2]}\n"
           "    fi\n"
           "    if ((COMP_CWORD == 1))%s; then\n"
           "        COMPREPLY=($(compgen -W '",
           p->name, p->name, p->name, p->fallback ? " && [[ $first != -* ]]" : "");
    print_commands(p);
    puts("help --help --version' -- \"$word\"))\n        return\n    fi\n    case $first in");
    fputs("    help)\n        ((COMP_CWORD == 2)) && COMPREPLY=($(compgen -W 'exit-codes man bash zsh ", stdout);
    if (p->topic) printf("%s ", p->topic);
    print_commands(p);
    puts("' -- \"$word\"))\n        return;;");
    program_each(p, bash_command, (void *)p);
    printf("    esac\n"
           "    if [[ $value ]]; then\n"
           "        COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
           "    elif [[ $word == -* ]]; then\n"
           "        COMPREPLY=($(compgen -W \"$options%s\" -- \"$word\"))\n"
           "        return\n"
           "    elif [[ $verbs ]] && ((COMP_CWORD == 2)); then\n"
           "        COMPREPLY=($(compgen -W \"$verbs\" -- \"$word\"))\n"
           "        paths=f\n"
           "    else\n"
           "        paths=f\n"
           "    fi\n"
           "    [[ $paths ]] || return\n"
           "    local IFS=$'\\n'\n"
           "    COMPREPLY+=($(compgen -\"$paths\" -- \"$word\"))\n"
           "    compopt -o filenames 2> /dev/null\n"
           "}\n"
           "complete -F _%s %s\n",
           p->fallback ? " --version" : "", p->name, p->name);
}

/* ---- zsh ---- */

/* Inside single quotes, inside [..] or behind ':' of _arguments. */
static void zsh_text(const char *text) {
    for (; *text; text++) {
        if (*text == '\'') fputs("'\\''", stdout);
        else if (*text == '\n') putchar(' ');
        else if (strchr("[]:\\`$", *text)) printf("\\%c", *text);
        else putchar(*text);
    }
}

static void zsh_values(const option *o) {
    words w = values_of(o);
    const char *value = o->value ? o->value : "value";
    putchar(':');
    zsh_text(value);
    putchar(':');
    if (w.text[0] && (w.files || w.folders))
        printf("{_alternative \"words\\:word\\:(%s)\" \"paths\\:path\\:_files%s\"}", w.text, w.folders ? " -/" : "");
    else if (w.text[0]) printf("(%s)", w.text);
    else if (w.folders) fputs("_files -/", stdout);
    else if (w.files) fputs("_files", stdout);
    else putchar(' ');
}

static void zsh_option(const option *o) {
    const char *many = o->kind == OPTION_LIST ? "*" : "";
    for (int form = o->letter ? 0 : 1; form < 2; form++) {
        if (o->letter && !*many) printf("        '(-%c --%s)", o->letter, o->name);
        else printf("        '%s", many);
        if (form == 0) printf("-%c", o->letter);
        else printf("--%s%s", o->name, o->kind == OPTION_FLAG ? "" : "=");
        if (form == 0 && o->kind != OPTION_FLAG) putchar('+');
        putchar('[');
        zsh_text(o->help);
        putchar(']');
        if (o->kind != OPTION_FLAG) zsh_values(o);
        puts("' \\");
    }
}

static void zsh_command(void *user, const command_help *help, const option *table) {
    const program *p = user;
    words verbs = verbs_of(p, help);
    printf("    %s)\n        _arguments -s : \\\n", help->command);
    for (const option *o = table; o->kind != OPTION_END; o++)
        if (is_option(o)) zsh_option(o);
    puts("        '(-h --help)'{-h,--help}'[how it is used]' \\");
    if (verbs.text[0])
        printf("        '1: :{_alternative \"verbs\\:verb\\:(%s)\" \"paths\\:path\\:_files\"}' \\\n", verbs.text);
    puts("        '*:file:_files';;");
}

void completion_print_zsh(const program *p) {
    printf("#compdef %s\n# %s(1) for zsh, made by `%s help zsh`\n"
           "_%s() {\n"
           "    local -a commands=(\n",
           p->name, p->name, p->name, p->name);
    for (size_t i = 0; i < p->n_commands; i++) {
        printf("        '%s:", p->commands[i].name);
        zsh_text(p->commands[i].about);
        puts("'");
    }
    puts("        'help:what commands, options and exit codes mean'\n"
         "    )\n"
         "    if ((CURRENT == 2)) && [[ $words[2] != -* ]]; then\n"
         "        _describe command commands\n"
         "        return\n"
         "    fi");
    if (p->fallback)
        puts("    if [[ $words[2] == -* ]]; then words=($words[1] '' \"${(@)words[2,-1]}\"); ((CURRENT++)); fi");
    puts("    local command=$words[2]\n"
         "    shift words\n"
         "    ((CURRENT--))");
    if (p->fallback) printf("    [[ $command ]] || command=%s\n", p->fallback);
    printf("    case $command in\n"
           "    help) _values topic exit-codes man bash zsh %s ${commands%%%%:*};;\n",
           p->topic ? p->topic : "");
    program_each(p, zsh_command, (void *)p);
    printf("    esac\n"
           "}\n"
           "_%s \"$@\"\n",
           p->name);
}
