/* load.c - the options that say where and how a model runs: see load.h. */
#include "tools/load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/files.h"
#include "tools/settings.h"

enum { BAR_WIDTH = 40 };

static int bar_percent = -1;        /* what the terminal shows now; -1: no bar */

void progress_end(void) {
    if (bar_percent < 0) return;
    fputs("\r\033[K", stderr);
    bar_percent = -1;
}

static int32_t show_progress(const char *what, float done) {
    if (interrupted()) return 1;
    if (!isatty(STDERR_FILENO)) return 0;
    int percent = done <= 0 ? 0 : done >= 1 ? 100 : (int)(done * 100);
    if (percent == bar_percent) return 0;
    char bar[BAR_WIDTH + 1];
    for (int i = 0; i < BAR_WIDTH; i++) bar[i] = i < percent * BAR_WIDTH / 100 ? '#' : '.';
    bar[BAR_WIDTH] = '\0';
    fprintf(stderr, "\r%s [%s] %3d %%", what, bar, percent);
    bar_percent = percent;
    return 0;
}

static int32_t on_progress(void *user, float done) {
    (void)user;
    return show_progress("loading", done);
}

int32_t progress_writing(void *user, float done) {
    (void)user;
    return show_progress("writing", done);
}

static void on_log(void *user, rv_log_level level, const char *line) {
    const load_choice *c = user;
    if (level > (c->verbose ? RV_LOG_INFO : RV_LOG_WARNING)) return;
    progress_end();
    say("%s%s", level == RV_LOG_WARNING ? "warning: " : level == RV_LOG_ERROR ? "error: " : "", line);
}

const char *cache_folder(void) {
    static char folder[4096];
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n = 0;
    if (cache && cache[0] == '/') n = snprintf(folder, sizeof folder, "%s/rvengine", cache);     /* the standard: relative ones do not count */
    else if (home && home[0] == '/') n = snprintf(folder, sizeof folder, "%s/.cache/rvengine", home);
    return n > 0 && n < (int)sizeof folder ? folder : NULL;
}

rv_load_options load_options(const load_choice *c) {
    return (rv_load_options){
        .size = sizeof(rv_load_options),
        .backend = c->backend,
        .device = (int32_t)c->device,
        .weights = c->weights,
        .modules = c->modules,
        .int8_parity = c->parity,
        .int8_threshold = !c->threshold_given ? 0 : c->threshold > 0 ? (float)c->threshold : -1,
        .nf4_single = c->nf4_single,
        .skip = c->skip,
        .keep = c->keep,
        .cache_dir = !c->cache ? cache_folder() : strcmp(c->cache, "off") ? c->cache : NULL,
        .compute = c->compute,
        .attention = c->attention,
        .embedding = c->embedding,
        .profile = c->profile,
        .on_oom = c->on_oom,
        .kernels = c->kernels ? 60 + 10 * c->kernels : 0,
        .gpu_layers = !c->gpu_layers_given ? 0 : c->gpu_layers ? (int32_t)c->gpu_layers : -1,
        .host_memory = c->host_memory,
        .threads = (int32_t)c->threads,
        .memory_limit = c->memory_limit,
        .taps = c->taps,
        .reference = c->reference,
        .resize = c->resize,
        .log = on_log,
        .log_user = (void *)(uintptr_t)c,
        .progress = on_progress,
        .context = (uint32_t)c->context,
    };
}

rv_load_options load_options_for(const load_choice *c, const rv_session_options *room) {
    rv_load_options o = load_options(c);
    o.context = room->context;
    o.slots = room->slots;
    o.images = room->images;
    o.constraints = room->constraints;
    o.constraint_bytes = room->constraint_bytes;
    return o;
}

/* "rv_session_options.context: .." as "--context: ..". */
static const char *without_field(const char *message, char *name, size_t bytes) {
    static const char *const structs[] = { "rv_session_options.", "rv_load_options." };
    *name = '\0';
    for (size_t i = 0; i < sizeof structs / sizeof *structs; i++) {
        const size_t n = strlen(structs[i]);
        const char *field = message + n;
        if (strncmp(message, structs[i], n)) continue;
        snprintf(name, bytes, "--%.*s", (int)strcspn(field, ":"), field);
        for (char *c = name; *c; c++) *c = *c == '_' ? '-' : *c;
        return field + strcspn(field, ":");
    }
    return message;
}

rv_status load_plan(const load_choice *c, const rv_load_options *load, const rv_session_options *session, rv_memory *out, rv_error *err) {
    rv_error why;
    char name[40];
    *out = (rv_memory){ .size = sizeof *out };
    rv_status st = rv_memory_plan(c->model, load, session, out, &why);
    if (st == RV_OK) return RV_OK;
    const char *message = without_field(why.message, name, sizeof name), *from;
    if (strncmp(message, "GPU profile ", 12) == 0 && setting_gave("gpu-profile", c->profile, &from))
        return fail(err, st, "%s (%s, %.200s; --gpu-profile \"\" undoes it)", message, setting_name_of("gpu-profile").text, from);
    return fail(err, st, "%s%s", name, message);
}

rv_status load_check(const load_choice *c, const rv_session_options *session, rv_memory *plan, rv_error *err) {
    rv_load_options options = load_options_for(c, session);
    options.log = NULL;                                          /* what there is to warn of is said when it is loaded */
    return load_plan(c, &options, session, plan, err);
}
