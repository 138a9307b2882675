/* manual.c - a program's manual page, from the tables that its --help comes from: see program.h.
 *
 * The one idea: nobody writes this page, so it cannot say what the program does not do.  A group of options that an
 * earlier command has too ("Where it runs") is named there, not told again.
 */
#include <stdio.h>
#include <string.h>

#include "tools/program.h"
#include "tools/report.h"
#include "tools/settings.h"

enum { MOST_GROUPS = 48, MOST_SETTINGS = 96 };

typedef struct manual {
    const program *p;
    size_t commands; /* told so far */
    struct {
        const char *name, *command;
        uint64_t hash;
    } groups[MOST_GROUPS];
    size_t n_groups;
    char settings[MOST_SETTINGS][64];
    size_t n_settings;
} manual;

/* ---- text ---- */

static void put_char(char c) {
    if (c == '\\') fputs("\\e", stdout);
    else if (c == '-') fputs("\\-", stdout);
    else if (c == '`') fputs("\\(ga", stdout);
    else if (c == '^') fputs("\\(ha", stdout);
    else if (c == '~') fputs("\\(ti", stdout);
    else if (c == '\'') fputs("\\(aq", stdout);
    else putchar(c);
}

static void put(const char *text, size_t n) {
    for (size_t i = 0; i < n; i++) put_char(text[i]);
}

static void put_text(const char *text) { put(text, strlen(text)); }

/* Filled: line ends do not matter. */
static void put_filled(const char *text) {
    for (size_t n;; text += n + 1) {
        n = strcspn(text, "\n");
        if (*text == '.') fputs("\\&", stdout);
        put(text, n);
        putchar('\n');
        if (!text[n]) return;
    }
}

/* As it stands, but for blanks that lines begin with where `flush`. */
static void put_block(const char *text, bool flush) {
    puts(".nf");
    for (;;) {
        if (flush) text += strspn(text, " ");
        size_t n = strcspn(text, "\n");
        if (n == 0 && text[n]) puts(".sp");
        else {
            if (*text == '.') fputs("\\&", stdout);
            put(text, n);
            putchar('\n');
        }
        if (!text[n]) break;
        text += n + 1;
    }
    puts(".fi");
}

/* ---- options ---- */

static uint64_t hash_text(uint64_t hash, const char *text) {
    for (; text && *text; text++) hash = (hash ^ (unsigned char)*text) * 1099511628211u;
    return hash;
}

/* Of the rows of a group, up to the next one. */
static uint64_t hash_group(const option *o) {
    uint64_t hash = 14695981039346656037u;
    for (; o->kind != OPTION_END && o->kind != OPTION_GROUP; o++)
        hash = hash_text(hash_text(hash_text(hash, o->name), o->help), o->choices);
    return hash;
}

/* The command that had the same group before, or NULL. */
static const char *told_by(manual *m, const option *group, const char *teller) {
    uint64_t hash = hash_group(group + 1);
    for (size_t i = 0; i < m->n_groups; i++)
        if (m->groups[i].hash == hash && strcmp(m->groups[i].name, group->name) == 0) return m->groups[i].command;
    if (m->n_groups < MOST_GROUPS) {
        m->groups[m->n_groups].name = group->name;
        m->groups[m->n_groups].command = teller;
        m->groups[m->n_groups++].hash = hash;
    }
    return NULL;
}

static void keep_setting(manual *m, const char *name) {
    for (size_t i = 0; i < m->n_settings; i++)
        if (strcmp(m->settings[i], name) == 0) return;
    if (m->n_settings < MOST_SETTINGS) snprintf(m->settings[m->n_settings++], sizeof m->settings[0], "%s", name);
}

static void put_option(manual *m, const option *o) {
    const char *value = o->kind == OPTION_CHOICE && !o->value ? o->choices : o->value;
    fputs(".TP\n\\fB", stdout);
    if (o->letter) printf("\\-%c\\fR, \\fB", o->letter);
    fputs("\\-\\-", stdout);
    put_text(o->name);
    fputs("\\fR", stdout);
    if (value) {
        fputs(" \\fI", stdout);
        put_text(value);
        fputs("\\fR", stdout);
    }
    putchar('\n');
    put_filled(o->help);
    if (o->setting) keep_setting(m, setting_name_of(o->name).text);
}

static void put_options(manual *m, const command_help *help, const option *table) {
    for (const option *o = table; o->kind != OPTION_END; o++) {
        if (o->kind != OPTION_GROUP) {
            put_option(m, o);
            continue;
        }
        const char *before = told_by(m, o, help->command);
        fputs(".PP\n\\fI", stdout);
        put_text(o->name);
        if (!before) puts("\\fR");
        else {
            printf("\\fR: as for \\fB%s\\fR\n", before);
            while (o[1].kind != OPTION_END && o[1].kind != OPTION_GROUP) o++;
        }
    }
}

static void put_command(void *user, const command_help *help, const option *table) {
    manual *m = user;
    const command *c = &m->p->commands[m->commands++];
    fputs(".SS ", stdout);
    put_text(c->name);
    putchar('\n');
    put_block(help->usage, true);
    puts(".PP");
    put_filled(help->about);
    put_options(m, help, table);
    if (!help->after) return;
    puts(".PP");
    put_block(help->after, false);
}

/* ---- the page ---- */

static void put_upper(const char *text) {
    for (; *text; text++) put_char((char)(*text >= 'a' && *text <= 'z' ? *text - 32 : *text));
}

static void put_head(const program *p) {
    size_t own = strlen(p->name);
    const char *about = strncmp(p->about, p->name, own) == 0 ? p->about + own + 1 : p->about;
    fputs(".TH ", stdout);
    put_upper(p->name);
    printf(" 1 \"\" \"rvengine %s\" \"User Commands\"\n.SH NAME\n%s \\- ", rv_version(), p->name);
    put(about, strlen(about) - (about[strlen(about) - 1] == '.'));
    printf("\n.SH SYNOPSIS\n.B %s\n.I COMMAND\n[\\fIoptions\\fR]\n.br\n.B %s "
           "help\n[\\fICOMMAND\\fR|\\fBexit\\-codes\\fR|\\fB%s\\fR|\\fBman\\fR|\\fBbash\\fR|\\fBzsh\\fR]\n"
           ".br\n.B %s \\-\\-version\n",
           p->name, p->name, p->topic ? p->topic : "man", p->name);
    puts(".SH DESCRIPTION");
    put_filled(p->about);
    for (size_t i = 0; i < p->n_commands; i++) {
        printf(".TP\n.B %s\n", p->commands[i].name);
        put_filled(p->commands[i].about);
    }
    if (p->fallback) printf(".PP\nA line that begins with an option means \\fB%s\\fR.\n", p->fallback);
}

static void put_environment(const manual *m) {
    if (!m->n_settings) return;
    puts(".SH ENVIRONMENT\nThese variables stand for the options of the same name, in the commands that have these, where the line does not give them; "
         "so do lines "
         "NAME=VALUE of a file given with \\fB\\-\\-env\\-file\\fR, which they win over.\n.PP");
    for (size_t i = 0; i < m->n_settings; i++)
        printf("\\fB%s\\fR%s\n", m->settings[i], i + 1 < m->n_settings ? "," : "");
    puts(".TP\n\\fBXDG_CACHE_HOME\\fR, \\fBHOME\\fR\nwhere the user\\(aqs cache folder is.");
}

void manual_print(const program *p) {
    manual m = {.p = p};
    put_head(p);
    puts(".SH COMMANDS");
    program_each(p, put_command, &m);
    put_environment(&m);
    puts(".SH EXIT STATUS");
    put_block(exit_codes_text(), false);
    puts(".SH EXAMPLES");
    put_block(p->examples, true);
    puts(".SH SEE ALSO");
    printf(".BR %s (1)\n", strcmp(p->name, "rvengine") == 0 ? "rvbench" : "rvengine");
}
