/* run_load.c - the model into memory: how long, from where, and how much it takes. */

#include <string.h>

#include "bench/run.h"

static uint64_t free_bytes(const run *r) {
    rv_device d = { .size = sizeof d };
    rv_error err;
    return r->device.backend == RV_BACKEND_CUDA && !rv_device_get(RV_BACKEND_CUDA, (uint32_t)r->device.index, &d, &err) ? d.memory_free : 0;
}

rv_session_options run_room(const run *r, uint32_t slots) {
    return (rv_session_options){ .size = sizeof(rv_session_options), .slots = slots, .queue = slots + 4, .context = r->context, .images = 2 };
}

/* Where `load` went; readers only where there are some. */
static rv_status add_parts(run *r, rv_error *err) {
    enum { OF_ALL = 6 };
    rv_load_times t = { .size = sizeof t };
    rv_status st = rv_model_load_times(r->model, &t, err);
    const struct { const char *name, *title; float ms; } parts[] = {
        { "load_files", "  headers and config", t.files }, { "load_device", "  device", t.device }, { "load_plan", "  memory", t.plan },
        { "load_place", "  tensors to the readers", t.place }, { "load_warm", "  first pass queued", t.warm }, { "load_wait", "  waiting for the rest", t.wait },
        { "load_pin", "  a reader: pinned memory", t.pin }, { "load_read", "  a reader: copying from files", t.read },
        { "load_check", "  a reader: checksums", t.check }, { "load_queue", "  a reader: asking the GPU", t.queue }, { "load_bus", "  a reader: waiting for the bus", t.bus },
    };
    for (size_t i = 0; st == RV_OK && i < sizeof parts / sizeof *parts; i++)
        if (i < OF_ALL || t.pin > 0) series_add(&run_result(r, "ms", parts[i].name, "%s", parts[i].title)->values, (double)parts[i].ms);
    return st;
}

static rv_status load_once(run *r, const char *name, const char *title, rv_error *err) {
    const rv_session_options room = run_room(r, 1);
    rv_load_options options = load_options_for(&r->o.load, &room);
    double start = now_ms();
    rv_status st = rv_model_load(r->o.load.model, &options, &r->model, err);
    double ms = now_ms() - start;
    progress_end();
    if (st) return st;
    series_add(&run_result(r, "ms", name, "%s", title)->values, ms);
    return strcmp(name, "load") ? RV_OK : add_parts(r, err);
}

static void unload(run *r) {
    rv_model_free(r->model);
    r->model = NULL;
}

/* A raw read and a load, each from a page cache that was told to forget; what it kept is in `cached`. */
static rv_status load_cold(run *r, rv_error *err) {
    double ms, left;
    rv_status st = cache_drop(&r->files, err);
    if (st == RV_OK) st = cache_share(&r->files, &left, err);
    if (st) return st;
    if (left > 0.05) {
        say("rvbench run: note: --cold: the system keeps %.0f %% of the files in memory, so nothing here can be cold", 100 * left);
        return RV_OK;
    }
    if ((st = read_in_order(&r->files, &ms, err))) return st;
    series_add(&run_result(r, "ms", "raw_read", "raw read of its files, cold")->values, ms);
    if ((st = cache_drop(&r->files, err)) || (st = load_once(r, "load_cold", "load, cold", err))) return st;
    unload(r);
    result *cold = run_result(r, "ms", "load_cold", "load, cold");
    cold->floor = ms;
    cold->by = BOUND_FILES;
    return RV_OK;
}

rv_status run_load(run *r, rv_error *err) {
    rv_session_options room = run_room(r, 1);
    rv_status st = weight_files_find(r->o.load.model, &r->files, err);
    if (st == RV_OK) st = cache_share(&r->files, &r->cached, err);
    r->memory.free_before = free_bytes(r);
    r->memory.context = r->device.backend == RV_BACKEND_CUDA
                            ? second_process_context(&r->second, (uint32_t)r->device.index, r->memory.free_before) : 0;
    second_process_end(&r->second);
    if (st == RV_OK && r->o.cold) st = load_cold(r, err);
    if (st == RV_OK && strcmp(r->o.load.cache, "off")) {         /* after it the cache is there, and `load` is from it */
        if ((st = load_once(r, "load_first", "load, cache made or checked", err))) return st;
        unload(r);
    }
    for (uint64_t i = 0; st == RV_OK && i < r->o.repeat; i++) {
        if (interrupted()) return fail(err, RV_ERR_CANCELLED, "interrupted");
        unload(r);
        st = load_once(r, "load", "load", err);
        double start = now_ms();
        if (st == RV_OK) st = rv_session_new(r->model, &room, &r->session, err);
        if (st) return st;
        series_add(&run_result(r, "ms", "session", "session")->values, now_ms() - start);
        if (i + 1 == r->o.repeat) break;
        rv_session_free(r->session);
        r->session = NULL;
    }
    r->memory.free_ready = free_bytes(r);
    return st;
}
