/* cmd_plan.c - rvengine plan: what a model and a session would take, from the file headers alone. */
#include <stdio.h>

#include "tools/commands.h"
#include "tools/load.h"
#include "tools/plan_profile.h"
#include "tools/synth_shape.h"

static const char NAME[] = "plan";

static const command_help help = {
    .command = "plan",
    .usage = "rvengine plan --model DIR [options]\n"
             "       rvengine plan --gpu-profile NAME [--model DIR] [--devices N] [options]",
    .about = "How much memory a model and a session take, without loading anything. What is printed is\n"
             "exactly what run will allocate with the same options. With --gpu-profile: on that GPU, which\n"
             "need not be there, why its weights have that format, and without --model for the 11B shape.\n"
             "Exit code 0 when it fits, 7 when it does not.",
    .after = "examples:\n"
             "  rvengine plan -m /models/mllama --context 8192\n"
             "  rvengine plan --gpu-profile v100\n"
             "  rvengine plan --gpu-profile a10g --devices 2\n"
             "  rvengine plan -m /models/mllama --memory-limit 12G --json",
};

typedef struct plan_options {
    load_choice load;
    uint64_t    slots, images, devices;
    bool        slots_given, json, published;
} plan_options;

static parse_result parse(plan_options *o, int argc, char **argv, text_list *plain) {
    const option table[] = {
        { OPTION_GROUP, .name = "What is planned" },
        { OPTION_TEXT, .name = "model", .letter = 'm', .to = &o->load.model, .value = "DIR", .help = "model folder" },
        { OPTION_WHOLE, .name = "slots", .to = &o->slots, .given = &o->slots_given, .max = 64, .value = "N",
          .help = "sequences computed together; 0: as many as fit (default 1,\nwith --gpu-profile 0)" },
        { OPTION_WHOLE, .name = "devices", .to = &o->devices, .min = 1, .max = 64, .value = "N",
          .help = "with --gpu-profile: so many of that GPU (default 1)" },
        { OPTION_WHOLE, .name = "images", .to = &o->images, .min = 1, .max = 1024, .value = "N",
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

static void print_steps(uint32_t steps) {
    if (!steps) return;
    printf("\nto make it fit: %s\n", steps_text(steps).text);
}

/* What the available memory is. */
static const char *limit_note(const plan_options *o, const rv_memory *m) {
    const bool profile = o->load.profile && *o->load.profile, limited = o->load.memory_limit != 0;
    if (limited && m->available >= o->load.memory_limit) return "--memory-limit";
    if (profile) return limited ? "what the profile calls usable; --memory-limit is more" : "what the profile calls usable";
    return limited ? "all that the GPU has; --memory-limit is more" : "";
}

static void print_table(const plan_options *o, const rv_memory *m) {
    char note[96];
    printf("%s: %s weights, %s products, on %s", o->published ? "the published 11B shape" : o->load.model, weights_name(m->weights_format),
           compute_name(m->compute), backend_name(m->backend));
    if (m->kernels) printf(" (sm%d kernels)", m->kernels);
    printf("; %u sequence%s of %u tokens, %u images\n\n", m->slots, m->slots == 1 ? "" : "s", m->context, m->images);
    snprintf(note, sizeof note, "%s of it mapped from the model's files", bytes_text(m->mapped).text);
    print_row("weights", m->weights, m->mapped ? note : "");
    snprintf(note, sizeof note, "%s a token of context, %s a tile", bytes_text(m->cache_per_token).text,
             bytes_text(m->cache_per_tile).text);
    print_row("cache", m->cache, note);
    print_row("scratch", m->scratch, "");
    print_row("total", m->total, "");
    print_row("available", m->available, limit_note(o, m));
    if (m->host_weights > m->streamed) print_row("host tables", m->host_weights - m->streamed, "embedding and tile positions, pinned; not in the total");
    if (m->streamed) {
        snprintf(note, sizeof note, "weights of all text layers but %d, pinned; they stream over PCIe", m->gpu_layers);
        print_row("host layers", m->streamed, note);
    }
    if (m->host_weights && m->host_limit == UINT64_MAX) puts("host limit   none is assumed: what the machine of that GPU has is not known here (--host-memory says it)");
    if (m->host) print_row("host peak", m->host, "pinned, while loading");
    print_steps(m->steps);
    if (m->fits) printf("\nIt fits.\n");
    else printf("\nIt does not fit: %s too much.\n", bytes_text(m->total - m->available).text);
}

static json_t *plan_json(const plan_options *o, const rv_memory *m, const profile_story *story) {
    json_t *root = json_pack("{s:o, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "model",
                     json_textz(o->published ? "11b" : o->load.model), "backend", backend_name(m->backend), "weights_format",
                     weights_name(m->weights_format), "compute", compute_name(m->compute), "embedding", embedding_name(m->embedding), "weights",
                     (json_int_t)m->weights, "mapped", (json_int_t)m->mapped, "cache", (json_int_t)m->cache, "scratch",
                     (json_int_t)m->scratch, "total", (json_int_t)m->total, "available", (json_int_t)m->available,
                     "host", (json_int_t)m->host, "host_weights", (json_int_t)m->host_weights, "cache_per_token", (json_int_t)m->cache_per_token, "cache_per_tile",
                     (json_int_t)m->cache_per_tile, "fits", m->fits);
    json_t *more = json_pack("{s:i, s:i, s:i, s:i, s:I, s:i, s:s}", "slots", (int)m->slots, "context", (int)m->context, "images", (int)m->images, "gpu_layers",
                             (int)m->gpu_layers, "streamed", (json_int_t)m->streamed, "kernels", (int)m->kernels, "steps", steps_text(m->steps).text);
    json_object_set_new(more, "host_limit", m->host_limit == UINT64_MAX ? json_null() : json_integer((json_int_t)m->host_limit));
    json_object_update(root, more);
    json_decref(more);
    if (story) json_object_set_new(root, "profile", story_json(story));
    return root;
}

static int tell(plan_options *o, const rv_memory *m, const profile_story *story) {
    int code = EXIT_OK;
    if (o->json) code = json_print(NAME, plan_json(o, m, story), 0);
    else {
        if (story) story_print(story);
        print_table(o, m);
        code = stdout_finish(NAME);
    }
    return code ? code : m->fits ? EXIT_OK : EXIT_DOES_NOT_FIT;
}

static int plan(plan_options *o) {
    rv_error err;
    rv_memory memory;
    profile_story story;
    rv_session_options room = { .size = sizeof room, .slots = (uint32_t)o->slots, .context = (uint32_t)o->load.context,
                                .images = (uint32_t)o->images };
    rv_load_options load = load_options_for(&o->load, &room);
    if (load_plan(&o->load, &load, &room, &memory, &err)) return report(NAME, &err);
    if (o->load.profile && story_tell(&o->load, &room, (uint32_t)o->devices, &memory, &story, &err)) return report(NAME, &err);
    return tell(o, &memory, o->load.profile ? &story : NULL);
}

/* The published shape, from a folder of holes that lives as long as the plan. */
static int plan_published(plan_options *o) {
    rv_error err;
    char folder[4096];
    if (shape_make("11b", folder, sizeof folder, &err)) return report(NAME, &err);
    o->load.model = folder;
    o->published = true;
    int code = plan(o);
    shape_drop(folder);
    return code;
}

static int work(plan_options *o, const text_list *plain) {
    if (plain->count > 1 || (plain->count == 1 && o->load.model)) {
        say_error("plan: one model folder at a time");
        return EXIT_USAGE;
    }
    if (plain->count == 1) o->load.model = plain->items[0];
    if (o->devices && !o->load.profile) {
        say_error("plan: --devices goes with --gpu-profile: it is about GPUs that need not be there");
        return EXIT_USAGE;
    }
    if (o->load.profile && !o->slots_given) o->slots = 0;
    if (!o->load.model && o->load.profile) return plan_published(o);
    if (!o->load.model) {
        say_error("plan: --model is missing: give the model's folder");
        return EXIT_USAGE;
    }
    return plan(o);
}

int cmd_plan(int argc, char **argv) {
    plan_options o = { .slots = 1 };
    text_list plain = { 0 };
    parse_result parsed = parse(&o, argc, argv, &plain);
    int code = parsed == PARSE_OK ? work(&o, &plain) : parse_exit(parsed, NAME);
    text_list_free(&plain);
    return code;
}
