/* cmd_run.c - rvengine run: images and a prompt in, text out.
 *
 * The one idea: whatever can be wrong with the request is found before the weights are loaded.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tools/commands.h"
#include "tools/json_read.h"
#include "tools/run.h"
#include "tools/worker.h"

/* Reads a receipt with any model that follows instructions; the demo model was trained on it. */
#define DEFAULT_PROMPT "Extract the receipt as KEY: VALUE lines."

static const char NAME[] = "run";
static const uint32_t TILES[] = { 1, 2, 4 };
enum { DEFAULT_MAX_TOKENS = 1024 };
#define DEFAULT_TEMPERATURE 0.6

static const command_help help = {
    .command = "run",
    .usage = "rvengine run --model DIR --image FILE [--prompt TEXT] [options]\n"
             "       rvengine run --model DIR --messages FILE [options]\n"
             "       rvengine run --model DIR --raw TEXT [--image FILE] [options]",
    .about = "Reads images, or answers a prompt. The answer goes to stdout, all else to stderr.\n"
             "With images and no prompt it asks: \"" DEFAULT_PROMPT "\"",
    .after = "examples:\n"
             "  rvengine run -m /models/mllama -i receipt.jpg\n"
             "  rvengine run -m /models/mllama -i page1.png -i page2.png -p \"What changed?\" --stream\n"
             "  curl -s https://example.org/r.jpg | rvengine run -m /models/mllama -i - --json\n"
             "  rvengine run -m /models/mllama --messages talk.json --sample --seed 7\n\n"
             "A messages file is a list: [{\"role\": \"user\", \"content\": [{\"type\": \"image\", \"path\": \"a.png\"},\n"
             "{\"type\": \"text\", \"text\": \"..\"}]}, ..]; content may be a string, {\"type\": \"image\"} takes the\n"
             "next --image, and OpenAI's image_url works with data: URLs and paths (relative to the\n"
             "current folder). Nothing is fetched from a network.\n\n"
             "Exit codes: rvengine help exit-codes",
};

static parse_result parse(run_options *o, int argc, char **argv) {
    const option table[] = {
        { OPTION_GROUP, .name = "What is asked" },
        { OPTION_TEXT, .name = "model", .letter = 'm', .to = &o->load.model, .value = "DIR",
          .help = "model folder: config.json, tokenizer.json, *.safetensors" },
        { OPTION_LIST, .name = "image", .letter = 'i', .to = &o->images, .value = "FILE",
          .help = "an image; may be repeated; - reads stdin" },
        { OPTION_TEXT, .name = "prompt", .letter = 'p', .to = &o->prompt, .value = "TEXT",
          .help = "the question, behind the images" },
        { OPTION_TEXT, .name = "prompt-file", .to = &o->prompt_file, .value = "FILE",
          .help = "the question from a file (one final newline is dropped)" },
        { OPTION_TEXT, .name = "system", .to = &o->system, .value = "TEXT", .help = "a system message before it" },
        { OPTION_TEXT, .name = "messages", .to = &o->messages, .value = "FILE",
          .help = "a whole conversation as JSON, see below" },
        { OPTION_TEXT, .name = "raw", .to = &o->raw, .value = "TEXT",
          .help = "text without a chat template; control tokens count,\none <|image|> for each --image" },
        { OPTION_TEXT, .name = "raw-file", .to = &o->raw_file, .value = "FILE", .help = "the same from a file" },
        { OPTION_GROUP, .name = "Images" },
        { OPTION_CHOICE, .name = "max-tiles", .to = &o->max_tiles, .choices = "1|2|4",
          .help = "tiles an image is cut into at most (default 4): fewer\nare faster and coarser" },
        { OPTION_FLAG, .name = "no-exif", .to = &o->no_exif, .help = "do not turn photos as their EXIF tag asks" },
        { OPTION_GROUP, .name = "The answer" },
        { OPTION_WHOLE, .name = "max-tokens", .letter = 'n', .to = &o->max_tokens, .max = 1048576, .value = "N",
          .help = "stop after N tokens (default 1024; 0: no limit but the\ncontext)" },
        { OPTION_LIST, .name = "stop", .to = &o->stop, .value = "TEXT",
          .help = "end before this text; may be repeated" },
        { OPTION_TEXT, .name = "json-schema", .to = &o->json_schema, .value = "FILE",
          .help = "the answer is JSON that fits this JSON Schema (a file, or\n\"any\": a JSON object, nested at most four deep); exit code 1\nwhere it was cut short, and --output is not written" },
        { OPTION_FLAG, .name = "stream", .to = &o->stream, .help = "print text as it comes" },
        { OPTION_FLAG, .name = "json", .to = &o->json, .help = "one JSON object: text, tokens, times, .." },
        { OPTION_FLAG, .name = "logprobs", .to = &o->logprobs, .help = "with --json: each token's log-probability" },
        { OPTION_TEXT, .name = "output", .letter = 'o', .to = &o->output, .value = "FILE",
          .help = "write the answer there instead, whole or not at all;\n-: stdout" },
        { OPTION_FLAG, .name = "verbose", .letter = 'v', .to = &o->load.verbose, .help = "memory and times on stderr" },
        { OPTION_GROUP, .name = "Sampling (default: the most likely token, the same answer every time)" },
        { OPTION_FLAG, .name = "sample", .to = &o->sample,
          .help = "sample as the model's generation_config.json says" },
        { OPTION_REAL, .name = "temperature", .to = &o->temperature, .given = &o->temperature_given, .max = 100,
          .value = "T", .help = "sample with this temperature; 0: do not sample\n(with --sample: the model's own, else 0.6)" },
        { OPTION_WHOLE, .name = "top-k", .to = &o->top_k, .given = &o->top_k_given, .max = UINT32_MAX, .value = "K",
          .help = "among the K most likely; 0: all (default: the model's)" },
        { OPTION_REAL, .name = "top-p", .to = &o->top_p, .given = &o->top_p_given, .min = 1e-6, .max = 1, .value = "P",
          .help = "among those that make up P; 1: all (default: the model's)" },
        { OPTION_REAL, .name = "repetition-penalty", .to = &o->repetition_penalty, .min = 0.01, .max = 100, .value = "R",
          .help = "above 1: fewer repetitions; 1: none (default: as the\nmodel's generation_config.json says)" },
        { OPTION_WHOLE, .name = "seed", .to = &o->seed, .given = &o->seed_given, .value = "N",
          .help = "another seed, another sample (default 0)" },
        { OPTION_GROUP, .name = "The prompt's form" },
        { OPTION_CHOICE, .name = "template", .to = &o->chat_template, .choices = "auto|A|B",
          .help = "revision of the Llama 3.2 chat template (default auto:\nas the model folder shows, else B)" },
        { OPTION_TEXT, .name = "date", .to = &o->date, .value = "TEXT",
          .help = "date in the system block, \"26 Jul 2024\" (default: today)" },
        { OPTION_FLAG, .name = "control-tokens", .to = &o->control_tokens,
          .help = "<|eot_id|> and the like in a prompt are control tokens" },
        { OPTION_FLAG, .name = "hf-double-bos", .to = &o->double_bos,
          .help = "begin-of-text twice, as HF's processor(text=chat) does" },
        { OPTION_FLAG, .name = "ignore-stop", .to = &o->ignore_stop,
          .help = "go on past the model's stop tokens (benchmarks)" },
        LOAD_OPTIONS(o->load),
        { OPTION_GROUP, .name = "The process" },
        { OPTION_CHOICE, .name = "worker", .to = &o->worker, .choices = "auto|on|off",
          .help = "compute in a process of its own, which is started once more\nwhen the GPU fails (default auto: with a GPU)" },
        { OPTION_END },
    };
    return options_parse(&help, table, argc, argv, NULL);
}

/* ---- the request, before anything is loaded ------------------------------------------------ */

static rv_status usage(rv_error *err, const char *why) { return fail(err, RV_ERR_ARGUMENT, "%s", why); }

/* Options that read stdin while the request is put together; --env-file was read with the options. */
static size_t stdin_readers(const run_options *o) {
    const char *files[] = { o->prompt_file, o->messages, o->raw_file, o->json_schema };
    size_t n = 0;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) n += files[i] && strcmp(files[i], "-") == 0;
    for (size_t i = 0; i < o->images.count; i++) n += strcmp(o->images.items[i], "-") == 0;
    return n;
}

static rv_status check_stdin(const run_options *o, rv_error *err) {
    const bool settings = o->load.env_file && strcmp(o->load.env_file, "-") == 0;
    return stdin_readers(o) + settings <= 1 ? RV_OK : usage(err, "stdin (-) can be read only once");
}

/* A stop text that no answer can contain would be ignored for ever. */
static rv_status check_stop(const run_options *o, rv_error *err) {
    for (size_t i = 0; i < o->stop.count; i++) {
        json_t *text = json_string(o->stop.items[i]);          /* NULL: not UTF-8 */
        if (!text) return fail(err, RV_ERR_FORMAT, "--stop: text %zu is not valid UTF-8", i + 1);
        json_decref(text);
        if (!o->stop.items[i][0]) return usage(err, "--stop: must not be empty");
    }
    return RV_OK;
}

static rv_status check(const run_options *o, rv_error *err) {
    int ways = (o->prompt || o->prompt_file) + (o->raw || o->raw_file) + (o->messages != NULL);
    bool greedy = o->temperature_given ? o->temperature <= 0 : !o->sample;
    if (!o->load.model) return usage(err, "--model is missing: give the model's folder");
    if (o->prompt && o->prompt_file) return usage(err, "--prompt and --prompt-file exclude each other");
    if (o->raw && o->raw_file) return usage(err, "--raw and --raw-file exclude each other");
    if (ways > 1) return usage(err, "--prompt, --messages and --raw exclude each other");
    if (o->system && (o->raw || o->raw_file || o->messages))
        return usage(err, "--system goes with --prompt: in --messages or --raw, write it there");
    if (ways == 0 && o->images.count == 0) return usage(err, "nothing to do: give --image, --prompt, --messages or --raw");
    if (o->stream && o->json) return usage(err, "--stream and --json exclude each other");
    if (o->stream && o->output) return usage(err, "--stream and --output exclude each other");
    if (o->json_schema && o->stop.count) return usage(err, "--stop and --json-schema exclude each other: such an answer ends by itself");
    if (o->logprobs && !o->json) return usage(err, "--logprobs needs --json");
    if (greedy && (o->top_k_given || o->top_p_given || o->seed_given))
        return usage(err, "--top-k, --top-p and --seed change nothing without sampling: add --sample or --temperature");
    return check_stdin(o, err);
}

/* generation_config.json's temperature; 0.6 where there is none to use. */
static double model_temperature(const char *dir) {
    char path[4096];
    double t = 0;
    if (snprintf(path, sizeof path, "%s/generation_config.json", dir) < (int)sizeof path) {
        input file = { 0 };
        rv_error err;
        json_t *root = input_read(path, &file, &err) ? NULL : json_read(file.data, file.bytes, 0, NULL);      /* damage: loading the model says it better */
        t = json_number_value(json_object_get(root, "temperature"));
        json_decref(root);
        input_free(&file);
    }
    return t > 0 && t <= 100 ? t : DEFAULT_TEMPERATURE;
}

/* The folder's files, whether it fits, and --context, in milliseconds. */
static rv_status check_model(const run_options *o, rv_error *err) {
    const rv_session_options room = { .size = sizeof room, .slots = 1, .context = (uint32_t)o->load.context };
    rv_memory unused;
    return load_check(&o->load, &room, &unused, err);
}

/* "image 2: why" as "receipt.png: why": the library knows images by number only. */
static rv_status name_image(const run *r, rv_error *err) {
    unsigned number;
    int length = 0;
    rv_error why = *err;
    if (sscanf(why.message, "image %u: %n", &number, &length) != 1 || length == 0) return err->code;
    if (number < 1 || number > r->talk.n_images) return err->code;
    return fail(err, why.code, "%.200s: %.300s", r->talk.files[number - 1].name, why.message + length);
}

/* "message 1, part 2: why" as "talk.json: message 1, part 2: why": what the library finds wrong there is wrong in the file. */
static rv_status name_message(const run *r, rv_error *err) {
    rv_error why = *err;
    if (!r->talk.name || strncmp(why.message, "message ", strlen("message ")) != 0) return err->code;
    return fail(err, why.code == RV_ERR_ARGUMENT ? RV_ERR_FORMAT : why.code, "%.200s: %.300s", r->talk.name, why.message);
}

/* The answer's form, made with the folder's tokenizer before its weights are loaded. */
static rv_status read_form(run *r, rv_error *err) {
    rv_tokenizer *t;
    input schema = { 0 };
    bool any = strcmp(r->o.json_schema, "any") == 0;
    rv_status st = rv_tokenizer_open(r->o.load.model, &t, err);
    if (st) return st;
    if (any) st = rv_constraint_any_json(t, &r->form, err);
    else if ((st = input_read(r->o.json_schema, &schema, err)) == RV_OK) st = rv_constraint_json(t, schema.data, schema.bytes, &r->form, err);
    input_free(&schema);
    rv_tokenizer_free(t);
    return st;
}

static rv_status read_inputs(run *r, rv_error *err) {
    run_options *o = &r->o;
    image_choice how = { .max_tiles = TILES[o->max_tiles], .ignore_exif = o->no_exif };
    const char *file = o->prompt_file ? o->prompt_file : o->raw_file;
    rv_status st = check_stop(o, err);
    if (st) return st;
    if (file) {
        if ((st = input_read_text(file, &r->text, err))) return st;
        *(o->prompt_file ? &o->prompt : &o->raw) = r->text.data;
    }
    if ((st = check_model(o, err))) return st;
    if (o->json_schema && (st = read_form(r, err))) return st;
    if (o->messages) st = conversation_read(o->messages, &o->images, &how, &r->talk, err);
    else st = conversation_images(&o->images, &how, &r->talk, err);
    if (st) return st;
    for (uint32_t i = 0; i < r->talk.n_images; i++) {       /* a damaged image: seconds earlier, and with its name */
        rv_image_info info = { .size = sizeof info };
        st = rv_inspect_image(&r->talk.images[i], o->load.model, &info, err);
        if (st) {
            rv_error why = *err;
            return fail(err, st, "%.200s: %.300s", r->talk.files[i].name, why.message);
        }
    }
    if (!o->prompt && !o->raw && !o->messages) o->prompt = DEFAULT_PROMPT;
    return RV_OK;
}

/* ---- running ------------------------------------------------------------------------------- */

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static rv_status load(run *r, rv_error *err) {
    rv_session_options room = { .size = sizeof room, .slots = 1, .queue = 1, .context = (uint32_t)r->o.load.context,
                                .images = r->talk.n_images ? r->talk.n_images : 1 };
    rv_constraint_info form = { .size = sizeof form };
    if (r->form && rv_constraint_get_info(r->form, &form, NULL) == RV_OK) room.constraint_bytes = form.bytes;
    rv_session_options planned = room;                   /* the weights as `plan` has them, which counts on two images at least */
    if (planned.images <= 2) planned.images = 0;
    rv_load_options options = load_options_for(&r->o.load, &planned);
    double start = now_ms();
    rv_status st = rv_model_load(r->o.load.model, &options, &r->model, err);
    if (st == RV_OK) st = rv_session_new(r->model, &room, &r->session, err);
    r->load_ms = now_ms() - start;
    progress_end();
    return st;
}

static int32_t on_token(void *user, rv_job *job, const rv_token *token) {
    run *r = user;
    (void)job;
    if (!r->o.stream) return 0;
    print_text(token->text, token->bytes);
    if (!stdout_flush()) r->failed = 1;
    return r->failed;
}

static rv_request request_of(run *r) {
    const run_options *o = &r->o;
    double temperature = o->temperature_given ? o->temperature : o->sample ? model_temperature(o->load.model) : 0;
    return (rv_request){
        .size = sizeof(rv_request),
        .images = o->messages ? NULL : r->talk.images,
        .n_images = o->messages ? 0 : r->talk.n_images,
        .system = o->system,
        .prompt = o->prompt,
        .messages = r->talk.messages,
        .n_messages = r->talk.n_messages,
        .raw = o->raw,
        .flags = (o->control_tokens ? RV_REQUEST_CONTROL_TOKENS : 0u) | (o->double_bos ? RV_REQUEST_DOUBLE_BOS : 0u) |
                 (o->ignore_stop ? RV_REQUEST_IGNORE_STOP : 0u),
        .chat_template = o->chat_template,
        .date = o->date,
        .max_tokens = (uint32_t)o->max_tokens,
        .temperature = (float)temperature,
        .top_k = !o->top_k_given ? 0 : o->top_k == 0 ? UINT32_MAX : (uint32_t)o->top_k,
        .top_p = (float)o->top_p,
        .repetition_penalty = (float)o->repetition_penalty,
        .seed = o->seed,
        .stop = o->stop.items,
        .n_stop = (uint32_t)o->stop.count,
        .on_token = on_token,
        .user = r,
        .constraint = r->form,
    };
}

/* Submits and steps to the end; Ctrl-C cancels before the next token. */
static rv_status generate(run *r, rv_error *err) {
    rv_request request = request_of(r);
    uint32_t active = 1;
    rv_status st = rv_submit(r->session, &request, &r->job, err);
    if (st) return r->o.messages ? name_message(r, err) : name_image(r, err);
    while (st == RV_OK && active > 0) {
        if (interrupted()) rv_cancel(r->job);
        st = rv_step(r->session, &active, err);
    }
    if (st == RV_OK) st = rv_job_get_error(r->job, err);
    return st;
}

/* Half an object is no object: what reads the answer hears of it by the exit code, and no file is made of it. */
static int finish(run *r) {
    rv_stats stats = { .size = sizeof stats };
    bool cut = rv_job_get_state(r->job) == RV_JOB_CUT_SHORT, looped = cut && rv_job_get_stats(r->job, &stats) == RV_OK && stats.looped;
    bool half = cut && r->form;
    run_say_times(r);
    if (cut)
        say("rvengine run: note: the answer was cut short %s%s", looped ? "because the model repeated itself" : "by --max-tokens or --context",
            !half ? "" : !r->o.output || r->o.json ? ": it is not whole JSON" : ": it is not whole JSON, and nothing was written");
    int code = half && r->o.output && !r->o.json ? EXIT_OK : run_print_answer(r);
    return code == EXIT_OK && half ? EXIT_FOUND : code;
}

static int compute(run *r) {
    rv_error err = { 0 };
    rv_status st = read_inputs(r, &err);
    if (st == RV_OK) st = load(r, &err);
    if (st == RV_OK && r->o.load.verbose) run_say_memory(r);
    if (st == RV_OK) st = generate(r, &err);
    if (r->failed) return stdout_finish(NAME);
    if (interrupted()) st = fail(&err, RV_ERR_CANCELLED, "interrupted");
    if (st == RV_OK) return finish(r);
    if (r->o.stream && r->job) putchar('\n'), stdout_flush();
    return report(NAME, &err);
}

static void clear(run *r) {
    rv_job_free(r->job);
    rv_constraint_free(r->form);
    rv_session_free(r->session);
    rv_model_free(r->model);
    conversation_free(&r->talk);
    input_free(&r->text);
    text_list_free(&r->o.images);
    text_list_free(&r->o.stop);
}

/* In a worker process: what it holds ends with it, but for files that are still being written. */
static int compute_apart(void *user, int restarts) {
    run *r = user;
    r->restarts = restarts;
    int code = compute(r);
    clear(r);
    return code;
}

static int work(run *r) {
    enum { AUTO, ON };
    rv_error err = { 0 };
    rv_status st = check(&r->o, &err);
    if (st == RV_OK && r->o.output) st = output_check(r->o.output, &err);
    else if (st == RV_OK && stdout_check(NAME)) return EXIT_IO;
    if (st) return report(NAME, &err);
    if (r->o.worker != ON && (r->o.worker != AUTO || !worker_pays(r->o.load.backend))) return compute(r);
    worker w = { .command = NAME, .streams = r->o.stream, .reads_stdin = stdin_readers(&r->o) > 0, .work = compute_apart, .user = r };
    return worker_run(&w);
}

int cmd_run(int argc, char **argv) {
    run r = { .o = { .max_tokens = DEFAULT_MAX_TOKENS, .max_tiles = 2 } };
    parse_result parsed = parse(&r.o, argc, argv);
    if (r.o.output && is_stdout(r.o.output)) r.o.output = NULL;
    int code = parsed == PARSE_OK ? work(&r) : parse_exit(parsed, NAME);
    clear(&r);
    return code;
}
