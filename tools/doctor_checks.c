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
    } else if (*value && !option_accepts(o, value, must, sizeof must))
        snprintf(text, sizeof text, "%s (%s): must be %s, is \"%.100s\"", name, from, must, value);
    else good = true, snprintf(text, sizeof text, "%s=%.200s (%s)", name, value, from);
    c->wrong += !good;
    c->add(c->user, "setting", good, text);
}

int doctor_settings(finding_fn add, void *user) {
    checking c = { add, user, 0, 0 };
    settings_each(check_setting, &c);
    if (c.seen == 0) add(user, "settings", true, "none: no RV_ variable is set");
    return c.wrong;
}

/* ---- libraries ---- */

#ifndef RV_STATIC                       /* nothing can be loaded into a static program */
static void check_library(finding_fn add, void *user, const char *name, const char *file, const char *needed_for, bool needed) {
    char text[TEXT_BYTES];
    void *library = dlopen(file, RTLD_LAZY | RTLD_LOCAL);
    snprintf(text, sizeof text, library ? "%s is there" : "%s is not on this machine: %s", file, needed_for);
    add(user, name, library || !needed, text);
    if (library) dlclose(library);
}

void doctor_libraries(finding_fn add, void *user) {
    const bool cuda = strstr(rv_build_info(), "cuda toolkit") != NULL;
    if (!cuda) return;
    check_library(add, user, "driver", "libcuda.so.1", "no GPU can be used; it comes with the NVIDIA driver", false);
    check_library(add, user, "NVML", "libnvidia-ml.so.1", "rvbench tells no watts and joules; it comes with the NVIDIA driver", false);
}
#else
void doctor_libraries(finding_fn add, void *user) { (void)add, (void)user; }
#endif

/* ---- profiles ---- */

void doctor_profiles(finding_fn add, void *user) {
    for (uint32_t i = 0; i < rv_device_count(RV_BACKEND_CUDA); i++) {
        rv_device d = { .size = sizeof d };
        rv_profile p = { .size = sizeof p };
        char text[TEXT_BYTES];
        const char *why, *package;
        if (rv_device_get(RV_BACKEND_CUDA, i, &d, NULL) || rv_profile_of(&d, &p, NULL)) continue;
        package = rv_package_for(p.capability, &why);
        snprintf(text, sizeof text, "%u: %s, compute capability %d.%d; %.1f of its %.1f GB are used; made for it: %s", i, p.name, p.capability / 10, p.capability % 10,
                 (double)p.usable / 1e9, (double)p.memory / 1e9, package ? package : why);
        add(user, "GPU profile", package != NULL, text);
    }
}
