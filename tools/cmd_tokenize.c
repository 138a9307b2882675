/* cmd_tokenize.c - rvengine tokenize: text to token ids and back. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/commands.h"
#include "tools/files.h"
#include "tools/json_read.h"
#include "tools/options.h"
#include "tools/report.h"

static const char NAME[] = "tokenize";

static const command_help help = {
    .command = "tokenize",
    .usage = "rvengine tokenize --model DIR [TEXT]\n"
             "       rvengine tokenize --model DIR --ids [ID..]\n"
             "       rvengine tokenize --model DIR --jsonl [--ids]",
    .about = "Prints the token ids of a text, or the text of token ids. Without TEXT or ID, reads stdin (every\n"
             "byte counts, a final newline too).",
    .after = "examples:\n"
             "  rvengine tokenize -m /models/mllama \"TOTAL: $12.50\"\n"
             "  rvengine tokenize -m /models/mllama --ids 51812 25 400\n"
             "  printf '\"one\"\\n\"two\"\\n' | rvengine tokenize -m /models/mllama --jsonl",
};

typedef struct tokenize_options {
    const char *model;
    text_list   plain;
    bool        ids, jsonl, bos, control, skip_control;
} tokenize_options;

static parse_result parse(tokenize_options *o, int argc, char **argv) {
    const option table[] = {
        { OPTION_GROUP, .name = "Options" },
        { OPTION_TEXT, .name = "model", .letter = 'm', .to = &o->model, .value = "PATH",
          .help = "model folder, or a tokenizer.json" },
        { OPTION_FLAG, .name = "ids", .to = &o->ids, .help = "the other way: ids to text" },
        { OPTION_FLAG, .name = "jsonl", .to = &o->jsonl,
          .help = "stdin has one JSON string a line, stdout gets one array of\nids a line (with --ids: arrays in, strings out)" },
        { OPTION_FLAG, .name = "bos", .to = &o->bos, .help = "begin-of-text first" },
        { OPTION_FLAG, .name = "control", .to = &o->control,
          .help = "<|eot_id|> and the like in the text are control tokens" },
        { OPTION_FLAG, .name = "skip-control", .to = &o->skip_control,
          .help = "with --ids: leave control tokens out of the text" },
        { OPTION_END },
    };
    return options_parse(&help, table, argc, argv, &o->plain);
}

typedef struct id_list { int32_t *ids; size_t count, capacity; } id_list;

static rv_status id_add(id_list *list, int32_t id, rv_error *err) {
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 256;
        int32_t *ids = realloc(list->ids, capacity * sizeof *ids);
        if (!ids) return fail(err, RV_ERR_MEMORY, "ids: out of memory");
        list->ids = ids;
        list->capacity = capacity;
    }
    list->ids[list->count++] = id;
    return RV_OK;
}

/* Replaces the list by the ids of the text. */
static rv_status encode(const tokenize_options *o, const rv_tokenizer *t, const char *text, size_t bytes, id_list *list,
                        rv_error *err) {
    rv_encode_flags flags = (o->bos ? RV_ENCODE_BOS : 0u) | (o->control ? RV_ENCODE_CONTROL : 0u);
    size_t need = 0;
    rv_status st = rv_tokenizer_encode(t, text, bytes, flags, list->ids, list->capacity, &need, err);
    if (st == RV_OK && need > list->capacity) {
        int32_t *ids = realloc(list->ids, need * sizeof *ids);
        if (!ids) return fail(err, RV_ERR_MEMORY, "ids: out of memory");
        list->ids = ids;
        list->capacity = need;
        st = rv_tokenizer_encode(t, text, bytes, flags, ids, need, &need, err);
    }
    if (st == RV_OK) list->count = need;
    return st;
}

/* *text is the caller's to free. */
static rv_status decode(const tokenize_options *o, const rv_tokenizer *t, const id_list *list, char **text, size_t *bytes,
                        rv_error *err) {
    rv_status st = rv_tokenizer_decode(t, list->ids, list->count, o->skip_control, NULL, 0, bytes, err);
    if (st) return st;
    *text = malloc(*bytes + 1);
    if (!*text) return fail(err, RV_ERR_MEMORY, "text: out of memory");
    st = rv_tokenizer_decode(t, list->ids, list->count, o->skip_control, *text, *bytes, bytes, err);
    if (st) free(*text), *text = NULL;
    return st;
}

static void print_ids(const id_list *list, const char *open, const char *between, const char *close) {
    fputs(open, stdout);
    for (size_t i = 0; i < list->count; i++) printf("%s%d", i ? between : "", list->ids[i]);
    puts(close);
}

/* ---- one text ------------------------------------------------------------------------------- */

/* Numbers between blanks, commas and brackets: what this command prints, and JSON arrays. */
static rv_status parse_ids(const char *text, id_list *list, rv_error *err) {
    static const char between[] = " \t\r\n,[]";
    for (const char *at = text + strspn(text, between); *at; at += strspn(at, between)) {
        char *end;
        errno = 0;
        long id = strtol(at, &end, 10);
        if (end == at || errno || id < 0 || id > INT32_MAX || (*end && !strchr(between, *end)))
            return fail(err, RV_ERR_ARGUMENT, "\"%.*s\": not a token id", (int)strcspn(at, between), at);
        rv_status st = id_add(list, (int32_t)id, err);
        if (st) return st;
        at = end;
    }
    return RV_OK;
}

static rv_status ids_to_text(const tokenize_options *o, const rv_tokenizer *t, rv_error *err) {
    id_list list = { 0 };
    input in = { 0 };
    char *text = NULL;
    size_t bytes = 0;
    rv_status st = RV_OK;
    for (size_t i = 0; i < o->plain.count && st == RV_OK; i++) st = parse_ids(o->plain.items[i], &list, err);
    if (o->plain.count == 0) {
        st = input_read_text("-", &in, err);
        if (st == RV_OK) st = parse_ids(in.data, &list, err);
    }
    if (st == RV_OK) st = decode(o, t, &list, &text, &bytes, err);
    if (st == RV_OK) {
        print_text(text, bytes);
        if (bytes == 0 || text[bytes - 1] != '\n') putchar('\n');
    }
    free(text);
    free(list.ids);
    input_free(&in);
    return st;
}

static rv_status text_to_ids(const tokenize_options *o, const rv_tokenizer *t, rv_error *err) {
    id_list list = { 0 };
    input in = { 0 };
    rv_status st;
    if (o->plain.count > 1) return fail(err, RV_ERR_ARGUMENT, "one text at a time: put it in quotes");
    if (o->plain.count == 1) st = encode(o, t, o->plain.items[0], strlen(o->plain.items[0]), &list, err);
    else {
        st = input_read("-", &in, err);
        if (st == RV_OK) st = encode(o, t, in.data, in.bytes, &list, err);
    }
    if (st == RV_OK) print_ids(&list, "", " ", "");
    free(list.ids);
    input_free(&in);
    return st;
}

/* ---- one JSON value a line ------------------------------------------------------------------- */

static rv_status jsonl_encode(const tokenize_options *o, const rv_tokenizer *t, const json_t *value, id_list *list,
                              rv_error *err) {
    if (!json_is_string(value)) return fail(err, RV_ERR_FORMAT, "must be a JSON string");
    rv_status st = encode(o, t, json_string_value(value), json_string_length(value), list, err);
    if (st == RV_OK) print_ids(list, "[", ",", "]");
    return st;
}

static rv_status jsonl_decode(const tokenize_options *o, const rv_tokenizer *t, const json_t *value, id_list *list,
                              rv_error *err) {
    if (!json_is_array(value)) return fail(err, RV_ERR_FORMAT, "must be a JSON array of token ids");
    rv_status st = RV_OK;
    list->count = 0;
    for (size_t i = 0; i < json_array_size(value) && st == RV_OK; i++) {
        json_t *id = json_array_get(value, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
            return fail(err, RV_ERR_FORMAT, "value %zu of the array is not a token id", i + 1);
        st = id_add(list, (int32_t)json_integer_value(id), err);
    }
    char *text = NULL;
    size_t bytes;
    if (st == RV_OK) st = decode(o, t, list, &text, &bytes, err);
    if (st) return st;
    json_t *string = json_text(text, bytes);
    free(text);
    if (!string) return fail(err, RV_ERR_MEMORY, "out of memory");
    if (json_dumpf(string, stdout, JSON_ENCODE_ANY) == 0) putchar('\n');
    json_decref(string);
    return RV_OK;
}

static rv_status jsonl_line(const tokenize_options *o, const rv_tokenizer *t, const char *line, size_t bytes, id_list *list,
                            rv_error *err) {
    json_error_t why;
    json_t *value = json_read(line, bytes, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
    if (!value) return fail(err, RV_ERR_FORMAT, "not JSON: %s", why.text);
    rv_status st = o->ids ? jsonl_decode(o, t, value, list, err) : jsonl_encode(o, t, value, list, err);
    json_decref(value);
    return st;
}

/* Answers each line before it reads the next, so that another program can talk through pipes. */
static rv_status jsonl(const tokenize_options *o, const rv_tokenizer *t, rv_error *err) {
    id_list list = { 0 };
    char *line = NULL;
    size_t capacity = 0, number = 0;
    ssize_t n;
    rv_status st = RV_OK;
    while (st == RV_OK && !ferror(stdout) && (errno = 0, n = getline(&line, &capacity, stdin)) >= 0) {
        number++;
        st = jsonl_line(o, t, line, (size_t)n, &list, err);
        if (st == RV_OK) stdout_flush();
        else {
            rv_error why = *err;
            fail(err, st, "stdin: line %zu: %.400s", number, why.message);
        }
    }
    if (st == RV_OK && interrupted()) st = fail(err, RV_ERR_CANCELLED, "interrupted");
    else if (st == RV_OK && ferror(stdin))
        st = fail(err, errno == ENOMEM ? RV_ERR_MEMORY : RV_ERR_IO, "stdin: cannot read: %s", strerror(errno));
    free(line);
    free(list.ids);
    return st;
}

static int work(const tokenize_options *o) {
    rv_error err;
    rv_tokenizer *t;
    const char *why = NULL;
    if (!o->model) why = "--model is missing: give the model's folder or a tokenizer.json";
    else if (o->jsonl && o->plain.count) why = "--jsonl reads stdin: no text on the command line";
    else if (o->ids && (o->bos || o->control)) why = "--bos and --control change nothing with --ids";
    else if (o->skip_control && !o->ids) why = "--skip-control needs --ids";
    if (why) {
        say_error("tokenize: %s", why);
        return EXIT_USAGE;
    }
    if (stdout_check(NAME)) return EXIT_IO;
    if (rv_tokenizer_open(o->model, &t, &err)) return report(NAME, &err);
    rv_status st = o->jsonl ? jsonl(o, t, &err) : o->ids ? ids_to_text(o, t, &err) : text_to_ids(o, t, &err);
    rv_tokenizer_free(t);
    int printed = stdout_finish(NAME);
    return st ? report(NAME, &err) : printed;
}

int cmd_tokenize(int argc, char **argv) {
    tokenize_options o = { 0 };
    parse_result parsed = parse(&o, argc, argv);
    int code = parsed == PARSE_OK ? work(&o) : parse_exit(parsed, NAME);
    text_list_free(&o.plain);
    return code;
}
