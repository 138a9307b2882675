/* settings.c - RV_ variables and --env-file: see settings.h. */
#include "tools/settings.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/files.h"

extern char **environ;

static const char PREFIX[] = "RV_";
enum { MOST_LINES = 256 };

typedef struct pair { const char *name, *value; } pair;
static struct { input text; const char *path; pair pairs[MOST_LINES]; size_t n; } file;

static bool is_ours(const char *name) { return strncmp(name, PREFIX, sizeof PREFIX - 1) == 0; }

/* Without blanks at both ends, in place. */
static char *trimmed(char *text) {
    while (isspace((unsigned char)*text)) text++;
    size_t n = strlen(text);
    while (n > 0 && isspace((unsigned char)text[n - 1])) n--;
    text[n] = '\0';
    return text;
}

static char *unquoted(char *text) {
    size_t n = strlen(text);
    if (n < 2 || (text[0] != '"' && text[0] != '\'') || text[n - 1] != text[0]) return text;
    text[n - 1] = '\0';
    return text + 1;
}

static rv_status read_line(char *line, size_t number, rv_error *err) {
    line = trimmed(line);
    if (strncmp(line, "export ", 7) == 0) line = trimmed(line + 7);
    if (!*line || *line == '#') return RV_OK;
    char *equals = strchr(line, '=');
    if (!equals) return fail(err, RV_ERR_FORMAT, "%s: line %zu is not NAME=VALUE: \"%.60s\"", file.path, number, line);
    *equals = '\0';
    char *name = trimmed(line), *value = unquoted(trimmed(equals + 1));
    if (!is_ours(name)) return RV_OK;
    if (file.n == MOST_LINES) return fail(err, RV_ERR_FORMAT, "%s: more than %d settings", file.path, MOST_LINES);
    file.pairs[file.n++] = (pair){ name, value };
    return RV_OK;
}

rv_status settings_read(const char *path, rv_error *err) {
    input_free(&file.text);
    file.n = 0;
    file.path = path;
    if (!path) return RV_OK;
    rv_status st = input_read_text(path, &file.text, err);
    char *line = file.text.data;
    for (size_t number = 1; st == RV_OK && line; number++) {
        char *end = strchr(line, '\n');
        if (end) *end++ = '\0';
        st = read_line(line, number, err);
        line = end;
    }
    return st;
}

setting_name setting_name_of(const char *option_name) {
    setting_name s;
    snprintf(s.text, sizeof s.text, "%s%s", PREFIX, option_name);
    for (char *c = s.text; *c; c++) *c = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
    return s;
}

const char *setting_of(const option *o, const char **from) {
    setting_name name = setting_name_of(o->name);
    const char *value = getenv(name.text);
    *from = "environment";
    if (value && *value) return value;
    *from = file.path;
    for (size_t i = file.n; i-- > 0;)                    /* the last line counts */
        if (strcmp(file.pairs[i].name, name.text) == 0 && *file.pairs[i].value) return file.pairs[i].value;
    return NULL;
}

bool setting_gave(const char *option_name, const char *value, const char **from) {
    const option o = { .name = option_name };
    return value && setting_of(&o, from) == value;       /* the very text                        */
}

void settings_each(setting_fn each, void *user) {
    for (char **e = environ; e && *e; e++) {
        size_t n = strcspn(*e, "=");
        char *name = is_ours(*e) ? strndup(*e, n) : NULL;
        if (name) each(user, name, (*e)[n] ? *e + n + 1 : "", "environment");
        free(name);
    }
    for (size_t i = 0; i < file.n; i++) each(user, file.pairs[i].name, file.pairs[i].value, file.path);
}
