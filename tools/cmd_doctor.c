/* cmd_doctor.c - rvengine doctor: what this build and this machine can do, and what looks wrong. */
#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "tools/commands.h"
#include "tools/doctor_checks.h"
#include "tools/files.h"
#include "tools/options.h"
#include "tools/report.h"

static const char NAME[] = "doctor";

static const command_help help = {
    .command = "doctor",
    .usage = "rvengine doctor [--env-file FILE] [--json]",
    .about = "Version and build, devices, memory, and checks of what the engine relies on. Nothing is loaded\n"
             "or changed. Settings (RV_ variables, --env-file) are checked, not taken.\n"
             "XDG_CACHE_HOME and HOME say where the user's cache folder is.\n"
             "Exit code 0 when a model can run here, 5 when no device is usable, 2 when a setting is\n"
             "unknown or malformed.",
    .reports_settings = true,
};

/* What was found, gathered once and then printed as text or JSON. */
typedef struct findings { json_t *build, *devices, *checks; } findings;

__attribute__((format(printf, 4, 5)))
static void add_check(findings *f, const char *name, finding is, const char *format, ...) {
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    json_array_append_new(f->checks, json_pack("{s:s, s:b, s:b, s:o}", "name", name, "good", is != FINDING_WRONG, "note", is == FINDING_NOTE, "text", json_textz(text)));
}

static void take_finding(void *user, const char *name, finding is, const char *text) { add_check(user, name, is, "%s", text); }

/* ---- checks --------------------------------------------------------------------------------- */

static void check_kernel(findings *f) {
    struct utsname u;
    if (uname(&u) == 0) add_check(f, "system", FINDING_OK, "%s %s on %s", u.sysname, u.release, u.machine);
}

static void check_cores(findings *f) {
    cpu_set_t set;
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    int mine = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
    if (mine == 0) add_check(f, "cores", FINDING_WRONG, "the cores this process may use are unknown: %s", strerror(errno));
    else add_check(f, "cores", FINDING_OK, "%d of %ld", mine, online);
}

/* Value of "KEY:   123 kB" in bytes. */
static bool meminfo(const char *text, const char *key, uint64_t *bytes) {
    const char *line = strstr(text, key);
    unsigned long long kib;
    if (!line || sscanf(line + strlen(key), " %llu kB", &kib) != 1) return false;
    *bytes = (uint64_t)kib << 10;
    return true;
}

static void check_memory(findings *f) {
    rv_error err;
    input in;
    uint64_t total, available, swap = 0;
    if (input_read("/proc/meminfo", &in, &err)) {
        add_check(f, "memory", FINDING_WRONG, "%s: free memory cannot be known: mount /proc, or give --memory-limit", err.message);
        return;
    }
    bool good = meminfo(in.data, "MemTotal:", &total) && meminfo(in.data, "MemAvailable:", &available);
    if (good) {
        meminfo(in.data, "SwapTotal:", &swap);
        add_check(f, "memory", FINDING_OK, "%s of %s available, swap %s", bytes_text(available).text, bytes_text(total).text,
                  bytes_text(swap).text);
    } else add_check(f, "memory", FINDING_WRONG, "/proc/meminfo has no MemTotal or MemAvailable: give --memory-limit");
    input_free(&in);
}

/* A container's limit, under cgroup v2 or v1; "max" and v1's huge default mean none. */
static void check_cgroup(findings *f) {
    static const char *const files[] = { "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes" };
    for (size_t i = 0; i < 2; i++) {
        rv_error err;
        input in;
        if (input_read(files[i], &in, &err)) continue;
        uint64_t limit = strtoull(in.data, NULL, 10);
        bool limited = in.data[0] >= '0' && in.data[0] <= '9' && limit < UINT64_C(1) << 60;
        input_free(&in);
        if (limited) add_check(f, "container", FINDING_OK, "memory is limited to %s", bytes_text(limit).text);
        else add_check(f, "container", FINDING_OK, "no memory limit");
        return;
    }
    add_check(f, "container", FINDING_OK, "no memory limit found");
}

static void check_limits(findings *f) {
    struct rlimit as, files;
    if (getrlimit(RLIMIT_AS, &as) == 0 && as.rlim_cur != RLIM_INFINITY)
        add_check(f, "address space", FINDING_WRONG, "limited to %s (ulimit -v): mapping a model's files may fail",
                  bytes_text(as.rlim_cur).text);
    else add_check(f, "address space", FINDING_OK, "not limited");
    if (getrlimit(RLIMIT_NOFILE, &files) == 0)
        add_check(f, "open files", files.rlim_cur >= 64 ? FINDING_OK : FINDING_WRONG, "at most %llu%s", (unsigned long long)files.rlim_cur,
                  files.rlim_cur >= 64 ? "" : " (ulimit -n): a model of many shards needs more");
}

/* ---- build and devices ---------------------------------------------------------------------- */

static void add_devices(findings *f) {
    uint32_t n = rv_device_count(RV_BACKEND_AUTO);
    for (uint32_t i = 0; i < n; i++) {
        rv_device d = { .size = sizeof d };
        rv_error err;
        if (rv_device_get(RV_BACKEND_AUTO, i, &d, &err)) {
            add_check(f, "device", FINDING_WRONG, "device %u: %s", i, err.message);
            continue;
        }
        json_array_append_new(f->devices, json_device(&d));
    }
    if (json_array_size(f->devices) == 0) add_check(f, "devices", FINDING_WRONG, "none is usable");
}

/* Why there is no GPU, where the build could use one. */
static void check_gpu(findings *f) {
    rv_device d = { .size = sizeof d };
    rv_error err;
    const char *backends = json_string_value(json_object_get(f->build, "backends"));
    uint32_t n = rv_device_count(RV_BACKEND_CUDA);
    if (!backends || !strstr(backends, "cuda")) return;
    if (n == 0 && rv_device_get(RV_BACKEND_CUDA, 0, &d, &err)) add_check(f, "GPU", FINDING_WRONG, "%s", err.message);
    for (uint32_t i = 0; i < n; i++)
        if (!rv_device_get(RV_BACKEND_CUDA, i, &d, &err))
            {
            if (d.arch) add_check(f, "GPU", FINDING_OK, "%u runs the sm%d kernels", i, d.arch);
            else add_check(f, "GPU", FINDING_WRONG, "%u (%s): %s", i, d.name, d.problem);
        }
}

static const char *text_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static uint64_t number_of(const json_t *object, const char *key) {
    return (uint64_t)json_integer_value(json_object_get(object, key));
}

static void print_findings(const findings *f) {
    const char *key;
    json_t *value;
    size_t i;
    printf("rvengine %s\n\nbuild\n", rv_version());
    json_object_foreach(f->build, key, value) printf("  %-18s %s\n", key, json_string_value(value));
    printf("\ndevices\n");
    json_array_foreach(f->devices, i, value) {
        printf("  %s %llu          %s\n", text_of(value, "backend"), (unsigned long long)number_of(value, "index"),
               text_of(value, "name"));
        printf("    %-12s %llu\n    %-12s %s\n", "cores", (unsigned long long)number_of(value, "cores"), "features",
               text_of(value, "features"));
        if (number_of(value, "arch")) printf("    %-12s sm%llu\n", "kernel set", (unsigned long long)number_of(value, "arch"));
        printf("    %-12s %s of %s free\n", "memory", bytes_text(number_of(value, "memory_free")).text,
               bytes_text(number_of(value, "memory_total")).text);
    }
    printf("\nchecks\n");
    json_array_foreach(f->checks, i, value)
        printf("  %-5s %-14s %s\n", !json_is_true(json_object_get(value, "good")) ? "WRONG" : json_is_true(json_object_get(value, "note")) ? "-" : "ok",
               text_of(value, "name"), text_of(value, "text"));
}

static int work(bool as_json) {
    findings f = { .build = json_build(), .devices = json_array(), .checks = json_array() };
    if (!f.build || !f.devices || !f.checks) {
        say_error("doctor: out of memory");
        return EXIT_MEMORY;
    }
    check_kernel(&f);
    check_cores(&f);
    check_memory(&f);
    check_cgroup(&f);
    check_limits(&f);
    add_devices(&f);
    check_gpu(&f);
    doctor_profiles(take_finding, &f);
    doctor_libraries(take_finding, &f);
    int wrong = doctor_settings(take_finding, &f);
    bool usable = json_array_size(f.devices) > 0;
    if (!as_json) print_findings(&f);
    json_t *root = json_pack("{s:s, s:o, s:o, s:o}", "version", rv_version(), "build", f.build, "devices", f.devices,
                             "checks", f.checks);
    int code = as_json ? json_print(NAME, root, 0) : stdout_finish(NAME);
    if (!as_json) json_decref(root);
    return code ? code : !usable ? EXIT_UNSUPPORTED : wrong ? EXIT_USAGE : EXIT_OK;
}

int cmd_doctor(int argc, char **argv) {
    bool as_json = false;
    const char *env_file = NULL;
    const option table[] = {
        { OPTION_GROUP, .name = "Options" },
        { OPTION_TEXT, .name = "env-file", .to = &env_file, .value = "FILE", .help = "check the settings in it too" },
        { OPTION_FLAG, .name = "json", .to = &as_json, .help = "one JSON object" },
        { OPTION_END },
    };
    parse_result parsed = options_parse(&help, table, argc, argv, NULL);
    return parsed == PARSE_OK ? work(as_json) : parse_exit(parsed, NAME);
}
