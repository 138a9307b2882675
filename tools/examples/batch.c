/* batch.c - many images in, one JSON line each out, in the order of the arguments.
 *
 * The one idea: the library computes `slots` requests together, and as many again wait in its queue, so that a slot
 * that falls free is taken at once.  An answer never depends on its neighbours: the same lines come out, whatever --slots says.
 *
 *     batch --model DIR [--slots 16] [--backend cuda] [--compute bf16] [-o answers.jsonl] IMAGE..
 *
 * A line is {"file": .., "finish": "stop" or "length", "tokens": [..], "text": ..}, or for an image that could not be
 * answered {"file": .., "error": {"code": "RV_ERR_IO", "message": ..}}; the others are answered all the same.
 * Exit code: 0 all were answered; 1 some lines are errors; 2 usage; 3 nothing was written.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "engine/rvengine.h"

typedef struct batch batch;
typedef struct page { batch *in; const char *file; char *line; } page;      /* line NULL: not ended */
struct batch {
    const char *model_dir, *prompt, *output;
    rv_load_options load;
    rv_session_options room;
    rv_session *session;
    uint32_t max_tokens, in_flight, errors, n_pages;
    page *pages;
    char partial[4096];
    FILE *out;
};

static rv_status fail(rv_error *err, rv_status code, const char *what, const char *why) {
    err->code = code;
    snprintf(err->message, sizeof err->message, "%s: %s", what, why);
    return code;
}

/* ---- JSON ------------------------------------------------------------------------------------ */

/* Text is UTF-8 already; so are file names taken to be. */
static void put_string(FILE *to, const char *text, size_t bytes) {
    putc('"', to);
    for (size_t i = 0; i < bytes; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '\n') fputs("\\n", to);
        else if (c < 0x20 || c == 0x7f) fprintf(to, "\\u%04x", c);
        else fprintf(to, c == '"' || c == '\\' ? "\\%c" : "%c", c);
    }
    putc('"', to);
}

/* Sets the page's line: the job's answer, or the error. It stays NULL when memory is out. */
static void end_page(page *p, const rv_error *err, const rv_job *job) {
    size_t bytes;
    const int32_t *ids;
    FILE *to = open_memstream(&p->line, &bytes);
    if (!to) return;
    fputs("{\"file\": ", to);
    put_string(to, p->file, strlen(p->file));
    if (err) {
        p->in->errors++;
        fprintf(to, ", \"error\": {\"code\": \"%s\", \"message\": ", rv_status_name(err->code));
        put_string(to, err->message, strlen(err->message));
        fputs("}}\n", to);
    } else {
        const char *text = rv_job_text(job, &bytes);
        fprintf(to, ", \"finish\": \"%s\", \"tokens\": [", rv_job_get_state(job) == RV_JOB_CUT_SHORT ? "length" : "stop");
        for (uint32_t i = 0, n = rv_job_tokens(job, &ids, NULL); i < n; i++) fprintf(to, i ? ", %d" : "%d", ids[i]);
        fputs("], \"text\": ", to);
        put_string(to, text, bytes);
        fputs("}\n", to);
    }
    int bad = ferror(to);
    if (fclose(to) == 0 && !bad) return;
    free(p->line);
    p->line = NULL;
}

/* ---- requests -------------------------------------------------------------------------------- */

static void on_done(void *user, rv_job *job) {
    page *p = user;
    rv_error err;
    end_page(p, rv_job_get_error(job, &err) ? &err : NULL, job);
    p->in->in_flight--;
    rv_job_free(job);
}

static rv_status read_file(const char *path, char **data, size_t *bytes, rv_error *err) {
    rv_status st = RV_OK;
    struct stat is;
    FILE *file = fopen(path, "rb");
    if (!file || fstat(fileno(file), &is)) st = fail(err, RV_ERR_IO, path, strerror(errno));
    else if (!(*data = malloc((size_t)is.st_size + 1))) st = fail(err, RV_ERR_MEMORY, path, "out of memory");
    else if ((*bytes = fread(*data, 1, (size_t)is.st_size, file)) < (size_t)is.st_size) st = fail(err, RV_ERR_IO, path, "cannot be read whole");
    if (file) fclose(file);
    return st;
}

static void submit(batch *b, page *p) {
    rv_error err;
    rv_job *job;
    char *data = NULL;
    rv_image image = { .size = sizeof image };
    rv_request request = { .size = sizeof request, .images = &image, .n_images = 1, .prompt = b->prompt,
                           .max_tokens = b->max_tokens, .on_done = on_done, .user = p };
    rv_status st = read_file(p->file, &data, &image.bytes, &err);
    image.data = data;
    if (st == RV_OK) st = rv_submit(b->session, &request, &job, &err);
    if (st) end_page(p, &err, NULL);
    else b->in_flight++;                     /* on_done runs inside rv_step: not yet */
    free(data);
}

static rv_status answer_all(batch *b, rv_error *err) {
    rv_status st = RV_OK;
    uint32_t next = 0, active;
    while (st == RV_OK && (next < b->n_pages || b->in_flight)) {
        while (next < b->n_pages && b->in_flight < b->room.queue) submit(b, &b->pages[next++]);
        if (b->in_flight) st = rv_step(b->session, &active, err);
    }
    for (uint32_t i = 0; st == RV_OK && i < b->n_pages; i++)
        if (!b->pages[i].line) st = fail(err, RV_ERR_MEMORY, b->pages[i].file, "out of memory");
    return st;
}

/* ---- output: OUT.partial until it is whole; an interrupted run's is replaced ------------------- */

static rv_status open_output(batch *b, rv_error *err) {      /* before the work: a bad path is not to cost hours */
    struct stat is;
    if (!b->output) return b->out = stdout, RV_OK;
    if (stat(b->output, &is) == 0 && !S_ISREG(is.st_mode)) return fail(err, RV_ERR_IO, b->output, "cannot write: not a file");
    snprintf(b->partial, sizeof b->partial, "%s.partial", b->output);
    return (b->out = fopen(b->partial, "w")) ? RV_OK : fail(err, RV_ERR_IO, b->output, strerror(errno));
}

static rv_status write_lines(const batch *b, rv_error *err) {
    int ok = 1;
    for (uint32_t i = 0; ok && i < b->n_pages; i++) ok = fputs(b->pages[i].line, b->out) >= 0;
    ok = ok && fflush(b->out) == 0 && (!b->output || (fsync(fileno(b->out)) == 0 && rename(b->partial, b->output) == 0));
    return ok ? RV_OK : fail(err, RV_ERR_IO, b->output ? b->output : "stdout", strerror(errno));
}

/* ---- the command line ------------------------------------------------------------------------- */

static const char *const backends[] = { "auto", "cpu", "cuda", NULL }, *const computes[] = { "auto", "f32", "bf16", "f16", NULL },
                  *const formats[] = { "auto", "16bit", "int8", "nf4", "fp4", NULL };

static int choose(const char *const *words, const char *text, int32_t *out) {      /* the library counts in this order */
    for (*out = 0; words[*out]; (*out)++)
        if (strcmp(words[*out], text) == 0) return 1;
    return 0;
}

static int whole(const char *text, long most, uint32_t *out) {
    char *end;
    long value = strtol(text, &end, 10);
    *out = (uint32_t)value;
    return end != text && !*end && value >= 1 && value <= most;
}

static int parse(batch *b, int argc, char **argv) {
    static const struct option table[] = {
        { "model", 1, NULL, 'm' }, { "prompt", 1, NULL, 'p' }, { "backend", 1, NULL, 'b' }, { "compute", 1, NULL, 'c' }, { "weights", 1, NULL, 'w' },
        { "int8-threshold", 1, NULL, 't' }, { "nf4-single", 0, NULL, '1' },
        { "slots", 1, NULL, 's' }, { "max-tokens", 1, NULL, 'n' }, { "output", 1, NULL, 'o' }, { 0 } };
    int ok = 1;
    for (int letter; (letter = getopt_long(argc, argv, "m:p:n:o:", table, NULL)) != -1;)
        if (letter == 'm') b->model_dir = optarg;
        else if (letter == 'p') b->prompt = optarg;
        else if (letter == 'o') b->output = optarg;
        else if (letter == 'b') ok &= choose(backends, optarg, &b->load.backend);
        else if (letter == 'c') ok &= choose(computes, optarg, &b->load.compute);
        else if (letter == 'w') ok &= choose(formats, optarg, &b->load.weights);
        else if (letter == 't') b->load.int8_threshold = strtof(optarg, NULL) > 0 ? strtof(optarg, NULL) : -1;
        else if (letter == '1') b->load.nf4_single = 1;
        else if (letter == 's') ok &= whole(optarg, 64, &b->room.slots);
        else ok &= letter == 'n' && whole(optarg, 1000000, &b->max_tokens);
    b->room.queue = 2 * b->room.slots;
    b->load.slots = b->room.slots;                         /* so that the format chosen leaves room for them */
    b->n_pages = (uint32_t)(argc - optind);
    if (ok && b->model_dir && b->n_pages && (b->pages = calloc(b->n_pages, sizeof *b->pages))) {
        for (uint32_t i = 0; i < b->n_pages; i++) b->pages[i] = (page){ .in = b, .file = argv[optind + (int)i] };
        return 1;
    }
    fputs("usage: batch --model DIR [--backend auto|cpu|cuda] [--compute auto|f32|bf16|f16] [--weights auto|16bit|int8|nf4]\n"
          "             [--int8-threshold X] [--nf4-single] [--slots 1..64] [--prompt TEXT] [--max-tokens N] [-o OUT.jsonl] IMAGE..\n", stderr);
    return 0;
}

int main(int argc, char **argv) {
    batch b = { .prompt = "Extract the receipt as KEY: VALUE lines.", .max_tokens = 1024, .load = { .size = sizeof b.load },
                .room = { .size = sizeof b.room, .slots = 4 } };
    struct timespec start, end;
    rv_memory is = { .size = sizeof is };
    rv_model *model = NULL;
    rv_error err;
    if (!parse(&b, argc, argv)) return 2;
    rv_status st = open_output(&b, &err);
    if (st == RV_OK) st = rv_model_load(b.model_dir, &b.load, &model, &err);
    if (st == RV_OK) st = rv_model_memory(model, &is, &err);
    if (st == RV_OK) st = rv_session_new(model, &b.room, &b.session, &err);
    clock_gettime(CLOCK_MONOTONIC, &start);
    if (st == RV_OK) st = answer_all(&b, &err);
    clock_gettime(CLOCK_MONOTONIC, &end);
    if (st == RV_OK) st = write_lines(&b, &err);
    if (b.output && b.out) fclose(b.out);
    if (st && b.out != stdout) unlink(b.partial);
    if (st) fprintf(stderr, "batch: %s\n", err.message);
    else fprintf(stderr, "batch: %u images, %u errors, %.2f s (%s, %s weights, %s products, %u slots)\n", b.n_pages, b.errors,
                 (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) * 1e-9, backends[is.backend],
                 formats[is.weights_format], computes[is.compute], b.room.slots);
    rv_session_free(b.session);              /* what still runs ends here, into its page */
    rv_model_free(model);
    for (uint32_t i = 0; i < b.n_pages; i++) free(b.pages[i].line);
    free(b.pages);
    return st ? 3 : b.errors ? 1 : 0;
}
