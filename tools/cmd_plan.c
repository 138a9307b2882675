/* cmd_plan.c - rvengine plan: what a model and a session would take, from the file headers alone. */
#include <stdio.h>

#include "tools/commands.h"
#include "tools/load.h"

static const char NAME[] = "plan";

static const command_help help = {
    .command = "plan",
    .usage = "rvengine plan --model DIR [options]",
    .about = "How much memory a model and a session take, without loading anything. What is printed is\n"
             "exactly what run will allocate with the same options.\n"
             "Exit code 0 when it fits, 7 when it does not.",
    .after = "examples:\n"
             "  rvengine plan -m /models/mllama --context 8192\n"
             "  rvengine plan -m /models/mllama --memory-limit 12G --json",
};

typedef struct plan_options {
    load_choice load;
    uint64_t    slots, images;
    bool        json;
} plan_options;

static parse_result parse(plan_options *o, int argc, char **argv, text_list *plain) {
    const option table[] = {
        { OPTION_GROUP, .name = "What is planned" },
        { OPTION_TEXT, .name = "model", .letter = 'm', .to = &o->load.model, .value = "DIR", .help = "model folder" },
        { OPTION_WHOLE, .name = "slots", .to = &o->slots, .min = 1, .max = 64, .value = "N",
          .help = "sequences computed together (default 1)" },
        { OPTION_WHOLE, .name = "images", .to = &o->images, .min = 1, .max = 65536, .value = "N",
          .help = "images held at once (default 2 a slot)" },
        { OPTION_FLAG, .name = "json", .to = &o->json, .help = "as a JSON object; sizes in bytes" },
        LOAD_OPTIONS(o->load),
        { OPTION_END },
    };
    return options_parse(&help, table, argc, argv, plain);
}

static void print_row(const char *name, uint64_t bytes, const char *note) {
    printf("%-12s %12s  %15llu bytes%s%s\n", name, bytes_text(bytes).text, (unsigned long long)bytes, *note ? "   " : "", note);
}

static void print_table(const plan_options *o, const rv_memory *m) {
    char note[96];
    printf("%s: %s weights, %s products, on %s\n\n", o->load.model, weights_name(m->weights_format),
           compute_name(m->compute), backend_name(m->backend));
    snprintf(note, sizeof note, "%s of it mapped from the model's files", bytes_text(m->mapped).text);
    print_row("weights", m->weights, m->mapped ? note : "");
    snprintf(note, sizeof note, "%s a token of context, %s a tile", bytes_text(m->cache_per_token).text,
             bytes_text(m->cache_per_tile).text);
    print_row("cache", m->cache, note);
    print_row("scratch", m->scratch, "");
    print_row("total", m->total, "");
    print_row("available", m->available, o->load.memory_limit ? "--memory-limit" : "");
    if (m->host_weights) print_row("host tables", m->host_weights, "embedding and tile positions, pinned; not in the total");
    if (m->host) print_row("host peak", m->host, "pinned, while loading");
    if (m->fits) printf("\nIt fits.\n");
    else printf("\nIt does not fit: %s too much.\n", bytes_text(m->total - m->available).text);
}

static json_t *plan_json(const plan_options *o, const rv_memory *m) {
    return json_pack("{s:o, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "model",
                     json_textz(o->load.model), "backend", backend_name(m->backend), "weights_format",
                     weights_name(m->weights_format), "compute", compute_name(m->compute), "embedding", embedding_name(m->embedding), "weights",
                     (json_int_t)m->weights, "mapped", (json_int_t)m->mapped, "cache", (json_int_t)m->cache, "scratch",
                     (json_int_t)m->scratch, "total", (json_int_t)m->total, "available", (json_int_t)m->available,
                     "host", (json_int_t)m->host, "host_weights", (json_int_t)m->host_weights, "cache_per_token", (json_int_t)m->cache_per_token, "cache_per_tile",
                     (json_int_t)m->cache_per_tile, "fits", m->fits);
}

static int work(plan_options *o, const text_list *plain) {
    rv_error err;
    rv_memory memory = { .size = sizeof memory };
    if (plain->count > 1 || (plain->count == 1 && o->load.model)) {
        say_error("plan: one model folder at a time");
        return EXIT_USAGE;
    }
    if (plain->count == 1) o->load.model = plain->items[0];
    if (!o->load.model) {
        say_error("plan: --model is missing: give the model's folder");
        return EXIT_USAGE;
    }
    rv_load_options load = load_options(&o->load);
    rv_session_options room = { .size = sizeof room, .slots = (uint32_t)o->slots, .context = (uint32_t)o->load.context,
                                .images = (uint32_t)o->images };
    if (rv_memory_plan(o->load.model, &load, &room, &memory, &err)) return report(NAME, &err);
    int code = EXIT_OK;
    if (o->json) code = json_print(NAME, plan_json(o, &memory), 0);
    else {
        print_table(o, &memory);
        code = stdout_finish(NAME);
    }
    return code ? code : memory.fits ? EXIT_OK : EXIT_DOES_NOT_FIT;
}

int cmd_plan(int argc, char **argv) {
    plan_options o = { .slots = 1 };
    text_list plain = { 0 };
    parse_result parsed = parse(&o, argc, argv, &plain);
    int code = parsed == PARSE_OK ? work(&o, &plain) : parsed == PARSE_HELP ? stdout_finish(NAME) : EXIT_USAGE;
    text_list_free(&plain);
    return code;
}
