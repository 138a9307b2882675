/* cmd_schema.c - rvengine schema: the document types that are built in, and whether a schema file is right. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/rvextract.h"
#include "tools/commands.h"
#include "tools/files.h"
#include "tools/options.h"
#include "tools/report.h"

static const char NAME[] = "schema";

static const command_help help = {
    .command = "schema",
    .usage = "rvengine schema list [--json]\n"
             "       rvengine schema show NAME|FILE.json [--source | --prompt [--part N]]\n"
             "       rvengine schema check FILE.json..",
    .about = "Schemas say which fields a type of document has, of what kind they are, how to ask for them and what must\n"
             "hold. A NAME is built in; own ones are JSON files (a JSON Schema subset with x- keys: extract/README.md).",
    .after = "examples:\n"
             "  rvengine schema list\n"
             "  rvengine schema show receipt --prompt\n"
             "  rvengine schema show receipt --source > my.json; rvengine schema check ./my.json",
};

typedef struct schema_options {
    text_list plain;
    uint64_t  part;
    bool      json, source, prompt, part_given;
} schema_options;

static parse_result parse(schema_options *o, int argc, char **argv) {
    const option table[] = {
        { OPTION_GROUP, .name = "Options" },
        { OPTION_FLAG, .name = "json", .to = &o->json, .help = "list, show: as JSON" },
        { OPTION_FLAG, .name = "source", .to = &o->source, .help = "show: the file of a built-in schema" },
        { OPTION_FLAG, .name = "prompt", .to = &o->prompt, .help = "show: the question it asks" },
        { OPTION_WHOLE, .name = "part", .to = &o->part, .given = &o->part_given, .min = 1, .max = 1000, .value = "N",
          .help = "with --prompt: of its Nth part (several prompts over one image)" },
        { OPTION_END },
    };
    return options_parse(&help, table, argc, argv, &o->plain);
}

/* ---- list -------------------------------------------------------------------------------------- */

static json_t *info_json(const rv_schema_info *info) {
    char hash[20];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)info->hash);
    return json_pack("{s:s,s:s,s:s,s:s,s:s,s:i,s:i,s:i,s:i,s:s,s:s}", "name", info->name, "title", info->title, "version", info->version,
                     "doctype", info->doctype, "description", info->description, "fields", (int)info->fields, "required",
                     (int)info->required, "lists", (int)info->lists, "parts", (int)info->parts, "strategy", info->strategy, "hash", hash);
}

static int list(const schema_options *o) {
    json_t *all = json_array();
    rv_error err;
    if (!o->json) printf("%-18s %-15s %6s  %s\n", "name", "type", "fields", "what it is");
    for (uint32_t i = 0; i < rv_schema_count(); i++) {
        rv_schema *schema = NULL;
        rv_schema_info info = { .size = sizeof info };
        rv_status st = rv_schema_open(rv_schema_name(i), &schema, &err);
        if (st == RV_OK) st = rv_schema_get_info(schema, &info, &err);
        if (st == RV_OK && !o->json) printf("%-18s %-15s %6u  %s\n", info.name, info.doctype, info.fields, info.description);
        else if (st == RV_OK && json_array_append_new(all, info_json(&info))) st = fail(&err, RV_ERR_MEMORY, "list: out of memory");
        rv_schema_free(schema);
        if (st) {
            json_decref(all);
            return report(NAME, &err);
        }
    }
    if (o->json) return json_print(NAME, all, 0);
    json_decref(all);
    return stdout_finish(NAME);
}

/* ---- show -------------------------------------------------------------------------------------- */

static json_t *field_json(const rv_field_info *f) {
    return json_pack("{s:s,s:s,s:s,s:b,s:s,s:b,s:b,s:s,s:i,s:i}", "key", f->key, "title", f->title, "kind", f->kind, "list", f->list,
                     "group", f->group, "required", f->required, "critical", f->critical, "prompt", f->prompt, "aliases", (int)f->aliases,
                     "choices", (int)f->choices);
}

static int show_fields(const rv_schema *schema, const rv_schema_info *info, bool as_json) {
    json_t *fields = json_array();
    if (!as_json)
        printf("%s %s: %s (%s)\n%s\n\n%-30s %-11s %-13s %s\n", info->name, info->version, info->title, info->doctype, info->description,
               "key", "kind", "list of", "");
    for (uint32_t i = 0; i < info->fields; i++) {
        rv_field_info f = { .size = sizeof f };
        rv_error err;
        if (rv_schema_get_field(schema, i, &f, &err)) {
            json_decref(fields);
            return report(NAME, &err);
        }
        if (as_json && json_array_append_new(fields, field_json(&f))) {
            json_decref(fields);
            return json_print(NAME, NULL, 0);
        }
        if (!as_json)
            printf("%-30s %-11s %-13s %s%s\n", f.key, f.kind, f.list ? *f.group ? f.group : "(its own)" : "", f.required ? "required " : "",
                   f.critical ? "critical" : "");
    }
    if (as_json) {
        json_t *root = info_json(info);
        if (json_object_set_new(root, "field_list", fields)) json_decref(root), root = NULL;
        return json_print(NAME, root, 0);
    }
    json_decref(fields);
    return stdout_finish(NAME);
}

static int show_prompt(const rv_schema *schema, const rv_schema_info *info, const schema_options *o) {
    rv_error err;
    char *text;
    if (o->part_given && o->part > info->parts) {
        say_error("schema: part %u: schema %s has %u part%s", (unsigned)o->part, info->name, info->parts, info->parts == 1 ? "" : "s");
        return EXIT_USAGE;
    }
    if (rv_schema_question(schema, o->part_given ? (int32_t)o->part - 1 : -1, &text, &err)) return report(NAME, &err);
    puts(text);
    rv_text_free(text);
    return stdout_finish(NAME);
}

static int show(const schema_options *o) {
    rv_schema *schema;
    rv_schema_info info = { .size = sizeof info };
    rv_error err;
    size_t bytes;
    if (o->plain.count != 2) {
        say_error("schema: show takes one name or file (rvengine schema list has the names)");
        return EXIT_USAGE;
    }
    if (o->source) {
        const char *text = rv_schema_source(o->plain.items[1], &bytes);
        if (text) {
            fwrite(text, 1, bytes, stdout);
            return stdout_finish(NAME);
        }
        say_error("schema: \"%s\": no built-in schema of that name (--source shows those alone; a file is its own source)", o->plain.items[1]);
        return EXIT_USAGE;
    }
    if (rv_schema_open(o->plain.items[1], &schema, &err)) return report(NAME, &err);
    int code = rv_schema_get_info(schema, &info, &err) ? report(NAME, &err)
               : o->prompt                             ? show_prompt(schema, &info, o)
                                                       : show_fields(schema, &info, o->json);
    rv_schema_free(schema);
    return code;
}

/* ---- check ------------------------------------------------------------------------------------- */

static int check(const schema_options *o) {
    int worst = 0;
    if (o->plain.count < 2) {
        say_error("schema: check takes files");
        return EXIT_USAGE;
    }
    for (size_t i = 1; i < o->plain.count; i++) {
        rv_schema *schema;
        rv_schema_info info = { .size = sizeof info };
        rv_error err;
        const char *name = o->plain.items[i];
        rv_status st = rv_schema_open(name, &schema, &err);
        if (st == RV_OK) {
            st = rv_schema_get_info(schema, &info, &err);
            if (st == RV_OK) printf("%s: good: %s %s, %u fields\n", name, info.doctype, info.version, info.fields);
            rv_schema_free(schema);
        }
        if (st) worst = report(NAME, &err);
    }
    int printed = stdout_finish(NAME);
    return worst ? worst : printed;
}

/* Options that would change nothing. */
static const char *misuse(const schema_options *o, const char *verb) {
    const bool showing = strcmp(verb, "show") == 0;
    if (o->part_given && !o->prompt) return "--part needs --prompt";
    if (!showing && (o->source || o->prompt)) return "--source and --prompt are for show";
    if (strcmp(verb, "check") == 0 && o->json) return "--json is for list and show";
    if (o->source + o->prompt + o->json > 1) return "--source, --prompt and --json exclude each other";
    return NULL;
}

static int work(const schema_options *o) {
    const char *verb = o->plain.count ? o->plain.items[0] : "list";
    if (stdout_check(NAME)) return EXIT_IO;
    const char *why = misuse(o, verb);
    if (why) {
        say_error("schema: %s", why);
        return EXIT_USAGE;
    }
    if (strcmp(verb, "list") == 0 && o->plain.count <= 1) return list(o);
    if (strcmp(verb, "show") == 0) return show(o);
    if (strcmp(verb, "check") == 0) return check(o);
    static const char *const verbs[] = { "list", "show", "check" };
    const char *near = nearest_word(verb, verbs, 3);
    if (near && strcmp(near, verb)) say_error("schema: \"%s\": did you mean %s?", verb, near);
    else say_error("schema: list, show NAME or check FILE was expected");
    return EXIT_USAGE;
}

int cmd_schema(int argc, char **argv) {
    schema_options o = { 0 };
    parse_result parsed = parse(&o, argc, argv);
    int code = parsed == PARSE_OK ? work(&o) : parse_exit(parsed, NAME);
    text_list_free(&o.plain);
    return code;
}
