/* cmd_run.c - rvbench run: what was asked, and the order of things.
 *
 * The one idea: the hardware is measured before and after the model, in the same process; every number stands
 * beside what that hardware allows.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/commands.h"
#include "bench/profile.h"
#include "bench/run.h"
#include "tools/synth_shape.h"

static const char NAME[] = "run";
enum { DEFAULT_REPEAT = 5, DEFAULT_TOKENS = 128, DEFAULT_PROMPT = 200, DEFAULT_LONG = 2048, MOST_BATCH = 64, PROFILE_CONTEXT = 4096 };

static const command_help help = {
    .command = "run",
    .usage = "rvbench run --model DIR [options]\n"
             "       rvbench [run] --gpu-profile NAME [--model DIR] [options]",
    .about = "Loads a model, sends it requests about a drawn page, and prints how long every stage took:\n"
             "median, spread, and percent of what this device allows, measured in the same run.\n"
             "Any model will do, also one with random weights (rvengine synth).\n"
             "With --gpu-profile: pages read with that GPU's kernels, formats and memory on the GPU that is there, what they\n"
             "cost in time, energy and dollars, and a projection for the GPU that is not; without --model the 11B shape.\n"
             "--batch, --long-prompt, --cold and --hf do not go with it. Exit code 7 when a phase's plan does not fit.",
    .after = "examples:\n"
             "  rvbench run -m /tmp/11b\n"
             "  rvbench run -m /tmp/11b --batch 1,8,32 --json now.json\n"
             "  rvbench --gpu-profile v100 --json v100.json && rvbench report v100.json h100.json\n"
             "  python3 tools/reference/hf_bench.py /tmp/11b --json hf.json && rvbench run -m /tmp/11b --hf hf.json\n\n"
             "What each line means: bench/README.md",
};

static parse_result parse(run_options *o, int argc, char **argv) {
    const option table[] = {
        { OPTION_GROUP, .name = "What is measured" },
        { OPTION_TEXT, .name = "model", .letter = 'm', .to = &o->load.model, .value = "DIR", .help = "model folder" },
        { OPTION_TEXT, .name = "image", .letter = 'i', .to = &o->image, .value = "FILE",
          .help = "this image (default: a page drawn in memory)" },
        { OPTION_CHOICE, .name = "tiles", .to = &o->tiles, .choices = "1|2|4", .help = "tiles of the image (default 4)" },
        { OPTION_WHOLE, .name = "prompt-tokens", .to = &o->prompt, .min = 1, .max = 1048576, .value = "N",
          .help = "of the prompt, template included (default 200)" },
        { OPTION_WHOLE, .name = "long-prompt", .to = &o->long_prompt, .given = &o->long_given, .max = 1048576, .value = "N",
          .help = "of the long prompt, text only (default 2048, or what\nthe context holds; 0: none)" },
        { OPTION_WHOLE, .name = "tokens", .letter = 'n', .to = &o->tokens, .min = 2, .max = 65536, .value = "N",
          .help = "of an answer (default 128)" },
        { OPTION_TEXT, .name = "batch", .to = &o->batch, .given = &o->batch_given, .value = "LIST", .help = "sequences answering together, e.g. 1,8,32 (default 1)" },
        { OPTION_WHOLE, .name = "repeat", .to = &o->repeat, .min = 1, .max = MOST_REPEATS, .value = "N", .help = "default 5" },
        { OPTION_FLAG, .name = "cold", .to = &o->cold,
          .help = "also load once with the files dropped from the page\ncache, beside reading them once in order: twice what\nthe disk takes for them" },
        { OPTION_REAL, .name = "price", .to = &o->price, .given = &o->price_given, .min = 0.001, .max = 1000, .value = "DOLLARS",
          .help = "with --gpu-profile: of an hour of that GPU (default: the\nprofile's)" },
        { OPTION_GROUP, .name = "What is told" },
        { OPTION_TEXT, .name = "json", .to = &o->json, .value = "FILE", .help = "everything as JSON, whole or not at all; -: stdout, and no table" },
        { OPTION_TEXT, .name = "hf", .to = &o->hf, .given = &o->hf_given, .value = "FILE", .help = "what tools/reference/hf_bench.py measured, for comparison" },
        { OPTION_FLAG, .name = "verbose", .letter = 'v', .to = &o->load.verbose, .help = "the library's messages on stderr" },
        LOAD_OPTIONS(o->load),
        { OPTION_END },
    };
    return options_parse(&help, table, argc, argv, NULL);
}

result *run_result(run *r, const char *unit, const char *name, const char *title, ...) {
    for (size_t i = 0; i < r->n_results; i++)
        if (strcmp(r->results[i].name, name) == 0) return &r->results[i];
    if (r->n_results + 1 < MOST_RESULTS) r->n_results++;
    result *new = &r->results[r->n_results - 1];
    va_list args;
    *new = (result){ .unit = unit };
    snprintf(new->name, sizeof new->name, "%s", name);
    va_start(args, title);
    vsnprintf(new->title, sizeof new->title, title, args);
    va_end(args);
    return new;
}

/* What would change nothing is refused. */
static int check_options(const run_options *o) {
    const bool profile = o->load.profile != NULL;
    const struct { const char *name; bool given; } others[] = { { "batch", o->batch_given }, { "long-prompt", o->long_given }, { "cold", o->cold }, { "hf", o->hf_given } };
    for (size_t i = 0; i < sizeof others / sizeof *others && profile; i++)
        if (others[i].given) return say_error("run: --%s: has no meaning with --gpu-profile", others[i].name), EXIT_USAGE;
    if (o->price_given && !profile) return say_error("run: --price goes with --gpu-profile"), EXIT_USAGE;
    return EXIT_OK;
}

/* ---- before anything is loaded ---------------------------------------------------------------- */

static uint64_t fact(const run *r, const char *key) {
    const char *text = rv_model_info_get(r->info, key);
    return text ? strtoull(text, NULL, 10) : 0;
}

/* A session's context: what the longest request takes, of a profile's phases the library's default if that is more, unless --context
 * says otherwise. */
static rv_status choose_context(run *r, rv_error *err) {
    const bool profile = r->o.load.profile;
    uint64_t limit = fact(r, "context"), most = 1, others = profile ? PROFILE_CONTEXT : r->o.long_prompt + 2;
    for (size_t i = 0; i < r->batches.count; i++) most = r->batches.n[i] > most ? r->batches.n[i] : most;
    uint64_t answer = r->o.prompt + r->o.tokens + 2 * most, room = answer > others ? answer : others;
    if (room > limit) room = limit;
    if (r->o.load.context) room = r->o.load.context;
    if (answer > room)
        return fail(err, RV_ERR_TOO_LONG, "--prompt-tokens%s take %llu tokens together, the context is %llu", profile ? " and --tokens" : ", --tokens and --batch",
                    (unsigned long long)answer, (unsigned long long)room);
    r->context = (uint32_t)room;
    return RV_OK;
}

static rv_status make_images(run *r, rv_error *err) {
    static const uint32_t shapes[][3] = { { 1, 1, 1 }, { 2, 1, 2 }, { 2, 2, 4 } };     /* columns, rows, most tiles */
    const uint32_t *shape = shapes[r->o.tiles], tile = (uint32_t)fact(r, "tile");
    rv_image_info info = { .size = sizeof info };
    rv_status st = RV_OK;
    if (r->o.image) {
        if ((st = input_read(r->o.image, &r->file, err))) return st;
        r->image = (rv_image){ .size = sizeof r->image, .data = r->file.data, .bytes = r->file.bytes, .max_tiles = shape[2] };
        r->single = r->image;
        r->single.max_tiles = 1;
    } else {
        if ((st = page_draw(shape[0] * tile, shape[1] * tile, &r->page, err)) || (st = page_encode(&r->page, err)) ||
            (st = page_draw(tile, tile, &r->small, err)))
            return st;
        r->image = page_image(&r->page);
        r->single = page_image(&r->small);
    }
    if ((st = rv_inspect_image(&r->image, r->o.load.model, &info, err))) return st;
    r->tiles = info.rows * info.cols;
    return RV_OK;
}

static rv_status prepare_inputs(run *r, rv_error *err) {
    rv_status st = RV_OK;
    if (!r->o.load.model) return fail(err, RV_ERR_ARGUMENT, "--model is missing: give the model's folder");
    if ((st = number_list_read(r->o.batch, "batch", MOST_BATCH, &r->batches, err))) return st;
    if (r->o.json && strcmp(r->o.json, "-") != 0 && (st = output_check(r->o.json, err))) return st;
    if (r->o.hf && (st = run_read_hf(r, err))) return st;
    if ((st = rv_inspect(r->o.load.model, &r->info, err))) return st;
    if ((st = choose_context(r, err))) return st;
    return make_images(r, err);
}

static rv_status prepare(run *r, rv_error *err) {
    rv_status st = prepare_inputs(r, err);
    if (st) return st;
    rv_session_options room = run_room(r, 1);
    rv_load_options load = load_options_for(&r->o.load, &room);
    r->memory.plan.size = sizeof r->memory.plan;
    load.log = NULL;                                     /* loading says the same                */
    if ((st = rv_memory_plan(r->o.load.model, &load, &room, &r->memory.plan, err))) return st;
    r->device.size = sizeof r->device;
    rv_backend_id backend = r->memory.plan.backend;
    return rv_device_get(backend, backend == RV_BACKEND_CUDA ? (uint32_t)r->o.load.device : 0, &r->device, err);
}

/* --gpu-profile: without --model random weights of the published shape, of which plans need the headers alone. */
static int work_profile(run *r) {
    rv_error err = { 0 };
    char folder[4096];
    const bool holes = !r->o.load.model && rv_device_count(RV_BACKEND_CUDA) == 0;
    rv_status st = RV_OK;
    if (stdout_check(NAME)) return EXIT_IO;
    if (!r->o.load.model) {
        st = holes ? shape_make("11b", folder, sizeof folder, &err) : profile_model(folder, sizeof folder, &err);
        if (st) return report(NAME, &err);       /* and `folder` may be anybody's */
        r->o.load.model = folder;
    }
    st = prepare_inputs(r, &err);
    int code = st ? report(NAME, &err) : profile_work(r);
    if (holes) shape_drop(folder);
    return code;
}

/* ---- the run ---------------------------------------------------------------------------------- */

static rv_status measure_device(run *r, rv_ceilings *out, rv_error *err) {
    rv_load_options load = load_options(&r->o.load);
    load.backend = r->memory.plan.backend;
    load.compute = r->memory.plan.compute;
    out->size = sizeof *out;
    if (load.backend == RV_BACKEND_CPU) measure_libraries(r->o.load.threads, &r->libraries);
    return rv_measure_ceilings(&load, out, err);
}

static void set_floors(run *r) {
    r->ceilings = better_of(&r->before, &r->after);
    if (r->ceilings.backend == RV_BACKEND_CPU) libraries_are_the_ceiling(&r->libraries, &r->ceilings);
    for (size_t i = 0; i < r->n_results; i++) set_floor(&r->results[i], r->ceilings.read_bytes_s, r->ceilings.flop_s);
}

static int tell(const run *r) {
    if (r->o.json && strcmp(r->o.json, "-") == 0) return json_print(NAME, run_json(r), 0);
    run_print(r);
    int code = stdout_finish(NAME);
    return code || !r->o.json ? code : json_write(NAME, r->o.json, run_json(r));
}

static int work(run *r) {
    rv_error err = { 0 };
    if (stdout_check(NAME)) return EXIT_IO;
    if (r->o.load.backend != RV_BACKEND_CPU) second_process_start(&r->second);
    rv_status st = prepare(r, &err);
    if (st == RV_OK) st = measure_device(r, &r->before, &err);
    if (st == RV_OK) st = run_load(r, &err);
    if (st == RV_OK) st = run_stages(r, &err);
    rv_session_free(r->session);
    rv_model_free(r->model);
    if (st == RV_OK) st = measure_device(r, &r->after, &err);
    second_process_end(&r->second);
    if (interrupted()) st = fail(&err, RV_ERR_CANCELLED, "interrupted");
    if (st) return report(NAME, &err);
    set_floors(r);
    run_compare(r);
    return tell(r);
}

int cmd_run(int argc, char **argv) {
    run *r = calloc(1, sizeof *r);
    if (!r) {
        say_error("run: out of memory");
        return EXIT_MEMORY;
    }
    r->o = (run_options){ .batch = "1", .repeat = DEFAULT_REPEAT, .tokens = DEFAULT_TOKENS, .prompt = DEFAULT_PROMPT, .long_prompt = DEFAULT_LONG, .tiles = 2 };
    r->second = (second_process){ .ask = -1, .answer = -1 };
    parse_result parsed = parse(&r->o, argc, argv);
    if (!r->o.load.cache) r->o.load.cache = "off";       /* nothing is to be written beside what is measured */
    int code = parsed == PARSE_OK ? check_options(&r->o) : parse_exit(parsed, NAME);
    if (parsed == PARSE_OK && code == EXIT_OK) code = (r->o.load.profile ? work_profile : work)(r);
    rv_model_info_free(r->info);
    weight_files_free(&r->files);
    page_free(&r->page);
    page_free(&r->small);
    input_free(&r->file);
    json_decref(r->hf);
    free(r->prompt);
    free(r->text_prompt);
    free(r->long_prompt);
    free(r);
    return code;
}
