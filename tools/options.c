/* options.c - a command line, read by a table: see options.h. */
#include "tools/options.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/report.h"
#include "tools/settings.h"

enum { WORD_MAX = 40, HELP_COLUMN = 27, MOST_OPTIONS = 128 };

void text_list_free(text_list *list) {
    free(list->items);
    *list = (text_list){ 0 };
}

static bool list_add(text_list *list, const char *text) {
    const char **items = realloc(list->items, (list->count + 1) * sizeof *items);
    if (!items) return false;
    items[list->count++] = text;
    list->items = items;
    return true;
}

/* ---- "did you mean" ---------------------------------------------------------------------- */

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/* Edit distance with swaps of neighbours (Damerau's), of words shorter than WORD_MAX. */
static size_t distance(const char *a, const char *b) {
    size_t n = strlen(a), m = strlen(b), d[WORD_MAX + 1][WORD_MAX + 1];
    for (size_t i = 0; i <= n; i++) d[i][0] = i;
    for (size_t j = 0; j <= m; j++) d[0][j] = j;
    for (size_t i = 1; i <= n; i++) {
        for (size_t j = 1; j <= m; j++) {
            size_t best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            best = smaller(best, smaller(d[i - 1][j], d[i][j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) best = smaller(best, d[i - 2][j - 2] + 1);
            d[i][j] = best;
        }
    }
    return d[n][m];
}

const char *nearest_word(const char *text, const char *const *words, size_t n) {
    const char *best = NULL;
    size_t length = strlen(text), least = length / 3 + 2;      /* further off is no likely slip */
    if (length == 0 || length > WORD_MAX) return NULL;
    for (size_t i = 0; i < n; i++) {
        if (strlen(words[i]) > WORD_MAX) continue;
        size_t d = distance(text, words[i]);
        if (length >= 3 && strncmp(words[i], text, length) == 0) d = 1;    /* --temp: --temperature */
        if (d < least) least = d, best = words[i];
    }
    return best;
}

static const char *nearest_option(const option *table, const char *text) {
    const char *names[128];
    size_t n = 0;
    for (const option *o = table; o->kind != OPTION_END && n < 127; o++)
        if (o->kind != OPTION_GROUP) names[n++] = o->name;
    names[n++] = "help";
    return nearest_word(text, names, n);
}

/* ---- help -------------------------------------------------------------------------------- */

static void print_option(const option *o) {
    char left[80];
    int n = o->letter ? snprintf(left, sizeof left, "  -%c, --%s", o->letter, o->name)
                      : snprintf(left, sizeof left, "      --%s", o->name);
    const char *value = o->kind == OPTION_CHOICE && !o->value ? o->choices : o->value;
    if (value && n > 0 && (size_t)n < sizeof left) n += snprintf(left + n, sizeof left - (size_t)n, " %s", value);
    if (n < HELP_COLUMN - 1) printf("%-*s", HELP_COLUMN, left);
    else printf("%s\n%*s", left, HELP_COLUMN, "");
    for (const char *line = o->help;;) {
        const char *end = strchr(line, '\n');
        if (!end) {
            puts(line);
            return;
        }
        printf("%.*s\n%*s", (int)(end - line), line, HELP_COLUMN, "");
        line = end + 1;
    }
}

static void print_help(const command_help *help, const option *table) {
    printf("usage: %s\n\n%s\n", help->usage, help->about);
    for (const option *o = table; o->kind != OPTION_END; o++) {
        if (o->kind == OPTION_GROUP) printf("\n%s:\n", o->name);
        else print_option(o);
    }
    printf("  -h, --help               this text\n");
    if (help->after) printf("\n%s\n", help->after);
}

static help_fn show_help;
static void   *show_user;

void options_show_with(help_fn show, void *user) {
    show_help = show;
    show_user = user;
}

static const option *find(const option *table, const char *name, size_t length, char letter) {
    for (const option *o = table; o->kind != OPTION_END; o++) {
        if (o->kind == OPTION_GROUP) continue;
        if (letter ? o->letter == letter : strlen(o->name) == length && memcmp(o->name, name, length) == 0) return o;
    }
    return NULL;
}

/* ---- values ------------------------------------------------------------------------------ */

static bool parse_whole(const char *text, uint64_t *out) {
    if (*text < '0' || *text > '9') return false;              /* strtoull takes signs and blanks */
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    *out = v;
    return errno == 0 && *end == '\0';
}

static bool parse_real(const char *text, char **end, double *out) {
    if (!(*text >= '0' && *text <= '9') && *text != '.' && *text != '-') return false;
    *out = strtod(text, end);
    return *end != text && isfinite(*out) && strcspn(text, "xX") >= (size_t)(*end - text);      /* strtod takes 0x10 */
}

static bool parse_bytes(const char *text, uint64_t *out) {
    static const char units[] = "KMGT";
    char *end;
    double v, scale = 1;
    if (!parse_real(text, &end, &v)) return false;
    const char *unit = *end ? strchr(units, *end & ~0x20) : NULL;
    if (unit && *unit) {
        for (const char *u = units; u <= unit; u++) scale *= 1024;
        end++;
        if (*end == 'i') end++;
    }
    if (*end == 'B' || *end == 'b') end++;
    if (*end || v * scale >= 9.0e18 || v * scale < 1) return false;     /* 0 would be the default */
    *out = (uint64_t)(v * scale);
    return true;
}

enum { MUST_BYTES = 96 };

static bool take_whole(const option *o, const char *value, char must[MUST_BYTES]) {
    uint64_t v;
    if (parse_whole(value, &v) && (double)v >= o->min && (o->max == 0 || (double)v <= o->max)) return *(uint64_t *)o->to = v, true;
    if (o->max != 0) snprintf(must, MUST_BYTES, "a whole number from %.0f to %.0f", o->min, o->max);
    else snprintf(must, MUST_BYTES, "a whole number, at least %.0f", o->min);
    return false;
}

static bool take_real(const option *o, const char *value, char must[MUST_BYTES]) {
    char *end;
    double v;
    if (parse_real(value, &end, &v) && *end == '\0' && v >= o->min && v <= o->max) return *(double *)o->to = v, true;
    snprintf(must, MUST_BYTES, "a number from %g to %g", o->min, o->max);
    return false;
}

static bool take_choice(const option *o, const char *value, char must[MUST_BYTES]) {
    size_t n = strlen(value);
    int32_t place = 0;
    for (const char *c = o->choices; n > 0; place++) {
        size_t length = strcspn(c, "|");
        if (length == n && memcmp(c, value, n) == 0) return *(int32_t *)o->to = place, true;
        if (c[length] == '\0') break;
        c += length + 1;
    }
    snprintf(must, MUST_BYTES, "one of %s", o->choices);
    return false;
}

/* A flag of the command line has no value; one that is a setting may say yes or no. */
static bool take_flag(const option *o, const char *value, char must[MUST_BYTES]) {
    static const char *const words[] = { "0", "1", "no", "yes", "off", "on", "false", "true" };
    for (size_t i = 0; i < sizeof words / sizeof *words && value; i++)
        if (strcmp(value, words[i]) == 0) return *(bool *)o->to = i % 2, true;
    if (!value) return *(bool *)o->to = true;
    snprintf(must, MUST_BYTES, "1 or 0, yes or no, on or off, true or false");
    return false;
}

/* False: `must` says what the value has to be. */
static bool take_value(const option *o, const char *value, char must[MUST_BYTES]) {
    switch (o->kind) {
    case OPTION_FLAG: return take_flag(o, value, must);
    case OPTION_TEXT: return *(const char **)o->to = value, true;
    case OPTION_LIST:
        snprintf(must, MUST_BYTES, "short enough: the machine is out of memory");
        return list_add(o->to, value);
    case OPTION_WHOLE: return take_whole(o, value, must);
    case OPTION_REAL: return take_real(o, value, must);
    case OPTION_BYTES:
        snprintf(must, MUST_BYTES, "a size such as 12G, 500M or 1.5G, at least 1 byte");
        return parse_bytes(value, o->to);
    case OPTION_CHOICE: return take_choice(o, value, must);
    default: return false;
    }
}

static parse_result take(const command_help *help, const option *o, const char *value) {
    char must[MUST_BYTES] = "";
    if (o->given) *o->given = true;
    if (take_value(o, value, must)) return PARSE_OK;
    say_error("%s: --%s: must be %s, is \"%s\"", help->command, o->name, must, value);
    return PARSE_WRONG;
}

/* ---- settings ---- */

bool option_accepts(const option *o, const char *value, char *must, size_t bytes) {
    char text[MUST_BYTES] = "";
    bool good = take_value(o, value, text);
    snprintf(must, bytes, "%s", text);
    return good;
}

/* The value of --env-file; NULL: not given, or no option of the command. */
static const char *env_file_of(const option *table) {
    static const char NAME[] = "env-file";
    const option *o = find(table, NAME, sizeof NAME - 1, 0);
    return o ? *(const char *const *)o->to : NULL;
}

/* For the options that the line does not give. */
static parse_result take_settings(const command_help *help, const option *table, const bool given[MOST_OPTIONS]) {
    rv_error err;
    if (settings_read(env_file_of(table), &err)) {
        say_error("%s: --env-file: %s", help->command, err.message);
        return err.code == RV_ERR_IO ? PARSE_UNREADABLE : PARSE_WRONG;
    }
    for (const option *o = table; o->kind != OPTION_END; o++) {
        const char *from, *value = o->setting && !given[o - table] && !help->reports_settings ? setting_of(o, &from) : NULL;
        char must[MUST_BYTES] = "";
        if (!value) continue;
        if (o->given) *o->given = true;
        if (take_value(o, value, must)) continue;
        say_error("%s: %s: must be %s, is \"%s\" (%s)", help->command, setting_name_of(o->name).text, must, value, from);
        return PARSE_WRONG;
    }
    return PARSE_OK;
}

/* ---- the line ---------------------------------------------------------------------------- */

static parse_result unknown(const command_help *help, const option *table, const char *arg, const char *name, size_t n) {
    char word[WORD_MAX + 1];
    const char *near = NULL;
    if (name && n <= WORD_MAX) {
        memcpy(word, name, n);
        word[n] = '\0';
        near = nearest_option(table, word);
    }
    if (near) say_error("%s: unknown option %s: did you mean --%s?", help->command, arg, near);
    else say_error("%s: unknown option %s: see %s %s --help", help->command, arg, program_name, help->command);
    return PARSE_WRONG;
}

/* A setting that is given as "" stays at its default, whatever variables say. */
static parse_result take_given(const command_help *help, const option *o, const char *value) { return o->setting && value && !*value ? PARSE_OK : take(help, o, value); }

/* Reads the option at argv[*i] and its value, which may be the next argument. */
static parse_result parse_option(const command_help *help, const option *table, int argc, char **argv, int *i, bool given[MOST_OPTIONS]) {
    const char *arg = argv[*i], *value = NULL;
    const option *o;
    if (arg[1] == '-') {
        size_t n = strcspn(arg + 2, "=");
        if (arg[2 + n] == '=') value = arg + 2 + n + 1;
        o = find(table, arg + 2, n, 0);
        if (!o && n == 4 && memcmp(arg + 2, "help", 4) == 0) return PARSE_HELP;
        if (!o) return unknown(help, table, arg, arg + 2, n);
    } else {
        o = find(table, NULL, 0, arg[1]);
        if (arg[2]) value = arg + 2;
        if (!o && arg[1] == 'h' && !value) return PARSE_HELP;
        if (!o) return unknown(help, table, arg, arg + 1, strlen(arg + 1));
    }
    given[o - table] = true;
    if (o->kind == OPTION_FLAG) {
        if (!value || (o->setting && arg[1] == '-')) return take_given(help, o, value);
        if (arg[1] != '-') return unknown(help, table, arg, NULL, 0);
        say_error("%s: --%s takes no value, was given \"%s\"", help->command, o->name, value);
        return PARSE_WRONG;
    }
    if (!value && *i + 1 < argc) value = argv[++*i];
    if (value) return take_given(help, o, value);
    say_error("%s: --%s needs a value: --%s %s", help->command, o->name, o->name, o->value ? o->value : o->choices);
    return PARSE_WRONG;
}

parse_result options_parse(const command_help *help, const option *table, int argc, char **argv, text_list *plain) {
    bool only_plain = false, given[MOST_OPTIONS] = { false };
    if (show_help) return show_help(show_user, help, table), PARSE_HELP;
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        parse_result result = PARSE_OK;
        if (!only_plain && strcmp(arg, "--") == 0) only_plain = true;
        else if (!only_plain && arg[0] == '-' && arg[1]) result = parse_option(help, table, argc, argv, &i, given);
        else if (!plain) {
            say_error("%s: unexpected argument \"%s\": see %s %s --help", help->command, arg, program_name, help->command);
            result = PARSE_WRONG;
        } else if (!list_add(plain, arg)) {
            say_error("%s: out of memory", help->command);
            result = PARSE_WRONG;
        }
        if (result == PARSE_HELP) print_help(help, table);
        if (result != PARSE_OK) return result;
    }
    return take_settings(help, table, given);        /* last, so that --help needs none of them */
}

int parse_exit(parse_result result, const char *command) { return result == PARSE_HELP ? stdout_finish(command) : result == PARSE_UNREADABLE ? EXIT_IO : EXIT_USAGE; }
