/* batch_inputs.c - see batch.h. */
#include <dirent.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "tools/batch.h"
#include "tools/json_read.h"

enum { MOST_DEPTH = 32 };
static const unsigned REPEATED = ~0u;      /* as a line: given before */

static rv_status no_memory(rv_error *err) { return fail(err, RV_ERR_MEMORY, "list of documents: out of memory"); }

static rv_status add_from(document_list *list, const char *path, const char *id, const char *file, unsigned line, rv_error *err) {
    if (list->count == list->room) {
        size_t room = list->room ? 2 * list->room : 256;
        document *more = realloc(list->items, room * sizeof *more);
        if (!more) return no_memory(err);
        list->items = more;
        list->room = room;
    }
    document d = { .path = strdup(path), .id = strdup(id ? id : path), .list = file, .line = line };
    if (d.path && d.id) return list->items[list->count++] = d, RV_OK;
    free(d.path);
    free(d.id);
    return no_memory(err);
}

static rv_status add(document_list *list, const char *path, const char *id, rv_error *err) { return add_from(list, path, id, NULL, 0, err); }

static bool is_document(const char *name) {
    static const char *const endings[] = { ".jpg", ".jpeg", ".png", ".bmp", ".gif", ".pnm", ".ppm", ".pgm", ".pbm", ".pdf" };
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < sizeof endings / sizeof *endings; i++)
        if (!strcasecmp(dot, endings[i])) return true;
    return false;
}

static rv_status add_folder(document_list *list, const char *folder, int depth, rv_error *err) {
    struct dirent **entries;
    int n = scandir(folder, &entries, NULL, versionsort);
    rv_status st = RV_OK;
    if (n < 0) return fail(err, RV_ERR_IO, "%s: cannot be read", folder);
    for (int i = 0; i < n; i++) {
        char path[4096];
        const char *name = entries[i]->d_name;
        bool fits = snprintf(path, sizeof path, "%s/%s", folder, name) < (int)sizeof path;
        if (st == RV_OK && fits && name[0] != '.') {
            if (is_folder(path)) st = depth < MOST_DEPTH && entries[i]->d_type != DT_LNK ? add_folder(list, path, depth + 1, err) : RV_OK;
            else if (is_document(name)) st = add(list, path, NULL, err);
        }
        free(entries[i]);
    }
    free(entries);
    return st;
}

/* ---- lists ---- */

static bool leaves(const char *path) {
    if (path[0] == '/') return true;
    for (const char *at = path; at; at = strchr(at, '/'), at = at ? at + 1 : NULL)
        if (!strncmp(at, "..", 2) && (at[2] == '/' || at[2] == '\0')) return true;
    return false;
}

static rv_status add_line(document_list *list, const char *file, unsigned number, const json_t *line, bool any_path, rv_error *err) {
    static const char *const keys[] = { "image", "file", "path" };
    const char *path = NULL, *slash = strrchr(file, '/');
    const json_t *id = json_object_get(line, "id");
    char whole[4096], number_id[32];
    for (size_t i = 0; i < 3 && !path; i++) path = json_string_value(json_object_get(line, keys[i]));
    if (!path || !*path) return fail(err, RV_ERR_FORMAT, "%s: line %u: names no \"image\"", file, number);
    if (leaves(path) && !any_path) return fail(err, RV_ERR_ARGUMENT, "%s: line %u: \"%.200s\" is outside the list's folder: say --any-path if it is meant", file, number, path);
    int n = path[0] == '/' || !slash ? snprintf(whole, sizeof whole, "%s", path) : snprintf(whole, sizeof whole, "%.*s/%s", (int)(slash - file), file, path);
    if (n >= (int)sizeof whole) return fail(err, RV_ERR_FORMAT, "%s: line %u: the path is too long", file, number);
    if (json_is_integer(id)) snprintf(number_id, sizeof number_id, "%" JSON_INTEGER_FORMAT, json_integer_value(id));
    if (id && !json_is_integer(id) && !json_string_length(id)) return fail(err, RV_ERR_FORMAT, "%s: line %u: \"id\" must be a text or a whole number", file, number);
    return add_from(list, whole, !id ? NULL : json_is_integer(id) ? number_id : json_string_value(id), file, number, err);
}

static rv_status add_list(document_list *list, const char *file, bool any_path, rv_error *err) {
    input text;
    rv_status st = input_read_text(file, &text, err);
    unsigned number = 0;
    for (char *at = text.data, *next; st == RV_OK && at && *at; at = next) {
        char *newline = strchr(at, '\n');
        json_error_t why;
        next = newline ? newline + 1 : NULL;
        if (newline) *newline = '\0';
        number++;
        if (at[strspn(at, " \t\r")] == '\0') continue;
        json_t *line = json_read(at, strlen(at), JSON_REJECT_DUPLICATES, &why);
        st = line ? add_line(list, file, number, line, any_path, err) : fail(err, RV_ERR_FORMAT, "%s: line %u: %s", file, number, why.text);
        json_decref(line);
    }
    input_free(&text);
    return st;
}

/* ---- all of them ---- */

static rv_status add_glob(document_list *list, const char *pattern, rv_error *err) {
    glob_t found;
    int rc = glob(pattern, 0, NULL, &found);
    rv_status st = rc == GLOB_NOSPACE ? no_memory(err) : rc ? fail(err, RV_ERR_IO, "%s: there is no such file, nor any that it stands for", pattern) : RV_OK;
    for (size_t i = 0; rc == 0 && i < found.gl_pathc && st == RV_OK; i++) st = is_folder(found.gl_pathv[i]) ? add_folder(list, found.gl_pathv[i], 0, err) : add(list, found.gl_pathv[i], NULL, err);
    if (rc == 0) globfree(&found);
    return st;
}

static bool ends_in(const char *text, const char *end) {
    size_t n = strlen(text), k = strlen(end);
    return n > k && !strcasecmp(text + n - k, end);
}

static int by_id(const void *a, const void *b) {
    const document *x = *(document *const *)a, *y = *(document *const *)b;
    int order = strcmp(x->id, y->id);
    return order ? order : (x > y) - (x < y);
}

static rv_status named_twice(const document *a, const document *b, rv_error *err) {
    const document *by = b->list ? b : a;
    return fail(err, RV_ERR_ARGUMENT, "%s: line %u: \"%.200s\" is there twice, for %.300s and for %.300s: results are found by name", by->list ? by->list : "list", by->line, b->id, a->path, b->path);
}

/* A document that was given twice is read once. */
static rv_status drop_repeated(document_list *list, rv_error *err) {
    document **sorted = malloc((list->count + 1) * sizeof(document *));
    rv_status st = RV_OK;
    size_t kept = 0;
    if (!sorted) return no_memory(err);
    for (size_t i = 0; i < list->count; i++) sorted[i] = &list->items[i];
    qsort(sorted, list->count, sizeof(document *), by_id);
    for (size_t i = 1; i < list->count && st == RV_OK; i++) {
        if (strcmp(sorted[i - 1]->id, sorted[i]->id)) continue;
        if (strcmp(sorted[i - 1]->path, sorted[i]->path)) st = named_twice(sorted[i - 1], sorted[i], err);
        sorted[i]->line = REPEATED;
    }
    free(sorted);
    if (st) return st;
    for (size_t i = 0; i < list->count; i++) {
        document d = list->items[i];
        if (d.line != REPEATED) list->items[kept++] = d;
        else free(d.path), free(d.id);
    }
    list->count = kept;
    return RV_OK;
}

rv_status documents_find(const text_list *inputs, bool any_path, document_list *out, rv_error *err) {
    rv_status st = RV_OK;
    *out = (document_list){ 0 };
    for (size_t i = 0; i < inputs->count && st == RV_OK; i++) {
        const char *name = inputs->items[i];
        if (is_folder(name)) st = add_folder(out, name, 0, err);
        else if (ends_in(name, ".jsonl")) st = add_list(out, name, any_path, err);
        else st = add_glob(out, name, err);
    }
    if (st == RV_OK) st = drop_repeated(out, err);
    if (st == RV_OK && out->count == 0) st = fail(err, RV_ERR_ARGUMENT, "there is no document in what was given");
    if (st) documents_free(out);
    return st;
}

void documents_free(document_list *list) {
    for (size_t i = 0; i < list->count; i++) {
        free(list->items[i].path);
        free(list->items[i].id);
    }
    free(list->items);
    *list = (document_list){ 0 };
}
