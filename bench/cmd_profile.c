/* cmd_profile.c - rvbench --gpu-profile: what is there, what can be measured on it, and what can only be projected. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "bench/profile.h"

static const char NAME[] = "run";

/* ---- a model of random weights ---- */

static bool exists(const char *folder) {
    char path[4200];
    struct stat st;
    return snprintf(path, sizeof path, "%s/model.safetensors.index.json", folder) < (int)sizeof path && stat(path, &st) == 0;
}

/* The user's cache, else the folder for temporary files. */
rv_status profile_model(char *folder, size_t bytes, rv_error *err) {
    const char *cache = cache_folder(), *temporary = getenv("TMPDIR");
    const char *const parents[] = { cache, temporary && *temporary ? temporary : "/tmp" };
    rv_synth_options o = { .size = sizeof o, .shape = "11b", .progress = progress_writing };
    rv_status st = fail(err, RV_ERR_IO, "no folder for a model of random weights: set XDG_CACHE_HOME or TMPDIR, or give --model");
    for (size_t i = 0; i < sizeof parents / sizeof *parents; i++) {
        if (!parents[i] || snprintf(folder, bytes, "%s/synth-11b", parents[i]) >= (int)bytes) continue;
        if (exists(folder)) return say("rvbench: no --model: random weights in the published shape, %s", folder), RV_OK;
        mkdir(parents[i], 0777);
        say("rvbench: no --model: writing 21.3 GB of random weights in the published shape to %s (once; delete it when you are done)", folder);
        st = rv_synthesise(folder, &o, NULL, err);
        progress_end();
        if (st != RV_ERR_IO) return st;
        say("rvbench: %s", err->message);
    }
    return st;
}

/* ---- what is there ---- */

static void find_gpu(profile_run *p) {
    rv_device *d = &p->r->device;
    d->size = sizeof *d;
    p->here.size = sizeof p->here;
    p->no_gpu = rv_device_get(RV_BACKEND_CUDA, (uint32_t)p->r->o.load.device, d, &p->why);
    if (p->no_gpu == RV_OK) p->no_gpu = rv_profile_of(d, &p->here, &p->why);
}

/* Before this process has a context: what others use of the GPU. */
static void look_before(profile_run *p) {
    p->power = power_open((uint32_t)p->r->o.load.device, &p->no_power);
    if (!power_used(p->power, &p->used_before)) p->used_before = 0;
}

/* What NVML says counts only if it speaks of the same GPU. */
static void check_power(profile_run *p) {
    if (!p->power || p->no_gpu || power_is(p->power, p->r->device.name)) return;
    power_close(p->power);
    p->power = NULL;
    p->no_power = "NVML counts GPUs otherwise (CUDA_VISIBLE_DEVICES is set)";
}

/* Without NVML all that can be asked is how much of the GPU is free. */
static void look_at_peak(profile_run *p) {
    uint64_t used;
    p->peak_of_all = !power_used(p->power, &used);
}

static rv_status prepare(profile_run *p, rv_error *err) {
    run *r = p->r;
    rv_status st = rv_profile_find(r->o.load.profile, &p->profile, err);
    if (st) return st;
    p->price = r->o.price > 0 ? r->o.price : p->profile.dollars_hour;
    p->price_here = p->here.dollars_hour;
    if (strcmp(p->profile.name, p->here.name) == 0) p->price_here = p->price;
    st = model_work_read(r->o.load.model, &p->work, err);
    p->page = (page_work){ .tiles = r->tiles, .prompt = (uint32_t)r->o.prompt, .answer = (uint32_t)r->o.tokens, .rows = 1 };
    return st;
}

/* Plans alone: on a machine without a GPU. */
static rv_status plan_phases(profile_run *p, rv_error *err) {
    rv_status st = RV_OK;
    for (int i = 0; st == RV_OK && i < PHASES; i++) {
        phase *f = &p->phases[i];
        const rv_session_options room = { .size = sizeof room, .slots = f->slots_asked, .context = p->r->context };
        rv_load_options o = load_options_for(&p->r->o.load, &room);
        if (f->asked != RV_WEIGHTS_AUTO) o.weights = f->asked;
        f->plan.size = sizeof f->plan;
        st = rv_memory_plan(p->r->o.load.model, &o, &room, &f->plan, err);
    }
    return st;
}

static int write_out(const profile_run *p) {
    const run *r = p->r;
    if (r->o.json && strcmp(r->o.json, "-") == 0) return json_print(NAME, profile_json(p), 0);
    profile_print(p);
    int code = stdout_finish(NAME);
    return code || !r->o.json ? code : json_write(NAME, r->o.json, profile_json(p));
}

static int tell(const profile_run *p) {
    int code = write_out(p);
    for (int i = 0; code == EXIT_OK && i < PHASES; i++)
        if (!p->phases[i].plan.fits) code = EXIT_DOES_NOT_FIT;
    return code;
}

int profile_work(run *r) {
    rv_error err = { 0 };
    profile_run *p = calloc(1, sizeof *p);
    if (!p) return say_error("run: out of memory"), EXIT_MEMORY;
    p->r = r;
    p->profile.size = p->here.size = sizeof p->profile;
    p->phases[0] = (phase){ .name = "same", .title = "phase 1: the same settings everywhere, int8, one sequence", .asked = RV_WEIGHTS_INT8, .slots_asked = 1 };
    p->phases[1] = (phase){ .name = "best", .title = "phase 2: the profile's own format and number of sequences", .asked = r->o.load.weights };
    look_before(p);
    find_gpu(p);
    check_power(p);
    look_at_peak(p);
    rv_status st = prepare(p, &err);
    if (st == RV_OK) st = p->no_gpu ? plan_phases(p, &err) : profile_measure(p, &err);
    if (interrupted()) st = fail(&err, RV_ERR_CANCELLED, "interrupted");
    int code = st ? report(NAME, &err) : tell(p);
    power_close(p->power);
    free(p);
    return code;
}
