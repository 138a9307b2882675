/* doctor_checks.c - see doctor_checks.h. */
#include "tools/doctor_checks.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "engine/rvprofile.h"
#include "tools/load.h"
#include "tools/settings.h"

enum { TEXT_BYTES = 400, MOST_NAMES = 64 };

typedef struct checking { finding_fn add; void *user; int seen, wrong; } checking;

/* The same table that run, plan and rvbench have; what it writes is thrown away. */
static load_choice unused;
static const option *settings_table(void) {
    static const option table[] = { LOAD_OPTIONS(unused), { OPTION_END } };
    return table;
}

static const option *option_of(const char *variable) {
    for (const option *o = settings_table(); o->kind != OPTION_END; o++)
        if (o->setting && strcmp(setting_name_of(o->name).text, variable) == 0) return o;
    return NULL;
}

static const char *nearest_setting(const char *variable, setting_name names[MOST_NAMES]) {
    const char *words[MOST_NAMES];
    size_t n = 0;
    for (const option *o = settings_table(); o->kind != OPTION_END && n < MOST_NAMES; o++)
        if (o->setting) names[n] = setting_name_of(o->name), words[n] = names[n].text, n++;
    return nearest_word(variable, words, n);
}

/* MODULE=16bit|int8|nf4 */
static bool is_kept(const char *at, size_t n) {
    static const char *const formats[] = { "16bit", "int8", "nf4" };
    const char *equals = memchr(at, '=', n);
    for (size_t i = 0; equals && equals > at && i < sizeof formats / sizeof *formats; i++) {
        const size_t m = (size_t)(at + n - equals - 1);
        if (m == strlen(formats[i]) && !memcmp(equals + 1, formats[i], m)) return true;
    }
    return false;
}

static bool is_name(const char *at, size_t n) {
    (void)at;
    return n > 0;
}

/* Whether all entries are such; commas part them, and as loading takes it blanks and a last comma mean nothing. */
static bool list_accepts(const char *list, bool (*is)(const char *at, size_t n)) {
    for (const char *at = list; at;) {
        const size_t n = strcspn(at, ",");
        const char *from = at, *end = at + n;
        while (from < end && *from == ' ') from++;
        while (end > from && end[-1] == ' ') end--;
        if (!is(from, (size_t)(end - from))) return false;
        at = at[n] && at[n + 1] ? at + n + 1 : NULL;
    }
    return true;
}

/* What the table takes as any text, and a model's loading refuses. */
static bool text_accepts(const option *o, const char *value, char *must, size_t bytes) {
    rv_profile p = { .size = sizeof p };
    if (strcmp(o->name, "gpu-profile") == 0 && rv_profile_find(value, &p, NULL)) return snprintf(must, bytes, "a name of rvengine help profiles"), false;
    if (strcmp(o->name, "keep") == 0 && !list_accepts(value, is_kept)) return snprintf(must, bytes, "a list of MODULE=16bit, MODULE=int8 or MODULE=nf4"), false;
    if (strcmp(o->name, "skip") == 0 && !list_accepts(value, is_name)) return snprintf(must, bytes, "a list of names without empty ones"), false;
    return true;
}

static void check_setting(void *user, const char *name, const char *value, const char *from) {
    checking *c = user;
    const option *o = option_of(name);
    setting_name names[MOST_NAMES];
    char text[TEXT_BYTES], must[128];
    bool good = false;
    c->seen++;
    if (!o) {
        const char *near = nearest_setting(name, names);
        snprintf(text, sizeof text, "%s (%s): no such setting%s%s%s", name, from, near ? ": did you mean " : "; they are named after the options of run", near ? near : "", near ? "?" : "");
    } else if (*value && (!option_accepts(o, value, must, sizeof must) || !text_accepts(o, value, must, sizeof must)))
        snprintf(text, sizeof text, "%s (%s): must be %s, is \"%.100s\"", name, from, must, value);
    else good = true, snprintf(text, sizeof text, "%s=%.200s (%s)", name, value, from);
    c->wrong += !good;
    c->add(c->user, "setting", good ? FINDING_OK : FINDING_WRONG, text);
}

int doctor_settings(finding_fn add, void *user) {
    checking c = { add, user, 0, 0 };
    settings_each(check_setting, &c);
    if (c.seen == 0) add(user, "settings", FINDING_OK, "none: no RV_ variable is set");
    return c.wrong;
}

/* ---- libraries ---- */

#ifndef RV_STATIC                       /* nothing can be loaded into a static program */
static void check_library(finding_fn add, void *user, const char *name, const char *file, const char *needed_for) {
    char text[TEXT_BYTES];
    void *library = dlopen(file, RTLD_LAZY | RTLD_LOCAL);
    snprintf(text, sizeof text, library ? "%s is there" : "%s is not on this machine: %s", file, needed_for);
    add(user, name, library ? FINDING_OK : FINDING_NOTE, text);
    if (library) dlclose(library);
}

void doctor_libraries(finding_fn add, void *user) {
    const bool cuda = strstr(rv_build_info(), "cuda toolkit") != NULL;
    if (!cuda) return;
    check_library(add, user, "driver", "libcuda.so.1", "no GPU can be used; it comes with the NVIDIA driver");
    check_library(add, user, "NVML", "libnvidia-ml.so.1", "rvbench tells no watts and joules; it comes with the NVIDIA driver");
}
#else
void doctor_libraries(finding_fn add, void *user) { (void)add, (void)user; }
#endif

/* ---- profiles ---- */

void doctor_profiles(finding_fn add, void *user) {
    for (uint32_t i = 0; i < rv_device_count(RV_BACKEND_CUDA); i++) {
        rv_device d = { .size = sizeof d };
        rv_profile p = { .size = sizeof p };
        char text[TEXT_BYTES], used[80] = "";
        const char *why, *package;
        if (rv_device_get(RV_BACKEND_CUDA, i, &d, NULL) || rv_profile_of(&d, &p, NULL)) continue;
        package = rv_package_for(p.capability, &why);
        if (d.arch) snprintf(used, sizeof used, "%.1f of its %.1f GB are used; ", (double)p.usable / 1e9, (double)p.memory / 1e9);
        snprintf(text, sizeof text, "%u: %s, compute capability %d.%d; %s%s%s", i, p.name, p.capability / 10, p.capability % 10, used, package ? "made for it: " : "", package ? package : why);
        add(user, "GPU profile", package ? FINDING_OK : FINDING_WRONG, text);
    }
}
