/* devices.c - the machine: its CPU and its GPUs. */
#include "engine/devices.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "engine/abi.h"
#include "kernels/backend.h"

/* ---- memory and CPU ---- */

/* The number after "key:" in /proc/meminfo, in bytes; 0 when there is none. */
static uint64_t meminfo(const char *key) {
    FILE *f = fopen("/proc/meminfo", "re");
    char line[128];
    uint64_t kib = 0;
    size_t n = strlen(key);
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, key, n) && line[n] == ':') {
            kib = strtoull(line + n + 1, NULL, 10);
            break;
        }
    if (f) fclose(f);
    return kib * 1024;
}

/* A number in a file of its own; UINT64_MAX for "max" or no such file. */
static uint64_t number_in(const char *path) {
    FILE *f = fopen(path, "re");
    char line[64] = "";
    if (!f) return UINT64_MAX;
    bool got = fgets(line, sizeof line, f) != NULL;
    fclose(f);
    return got && line[0] >= '0' && line[0] <= '9' ? strtoull(line, NULL, 10) : UINT64_MAX;
}

/* A container's limit counts, where it is the smaller one. Without /proc the kernel is asked itself, which does not count
 * the page cache as available. */
void rv_cpu_memory(uint64_t *total, uint64_t *unused) {
    uint64_t most = number_in("/sys/fs/cgroup/memory.max"), used = number_in("/sys/fs/cgroup/memory.current");
    struct sysinfo is;
    *total = meminfo("MemTotal");
    *unused = meminfo("MemAvailable");
    if ((!*total || !*unused) && sysinfo(&is) == 0) {
        *total = (uint64_t)is.totalram * is.mem_unit;
        *unused = ((uint64_t)is.freeram + is.bufferram) * is.mem_unit;
    }
    if (most == UINT64_MAX || used == UINT64_MAX) return;
    if (most < *total) *total = most;
    uint64_t left = most > used ? most - used : 0;
    if (left < *unused) *unused = left;
}

static void cpu_name(char *out, size_t n) {
    FILE *f = fopen("/proc/cpuinfo", "re");
    char line[256];
    snprintf(out, n, "CPU");
    while (f && fgets(line, sizeof line, f)) {
        char *at = strchr(line, ':');
        if (strncmp(line, "model name", 10) || !at) continue;
        at += strspn(at, ": \t");
        at[strcspn(at, "\n")] = '\0';
        snprintf(out, n, "%s", at);
        break;
    }
    if (f) fclose(f);
}

static int32_t cpu_cores(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

static void cpu_features(char *out, size_t n) {
    const rv_cpu_features f = rv_cpu_detect();
    const struct { bool has; const char *name; } all[] = {
        { f.f16c, "f16c" }, { f.avx2, "avx2" }, { f.fma, "fma" }, { f.avx512, "avx512" }, { f.avx512_vnni, "avx512_vnni" }, { f.avx512_vbmi, "avx512_vbmi" },
        { f.avx512_bf16, "avx512_bf16" }, { f.amx_int8, "amx_int8" }, { f.amx_bf16, "amx_bf16" },
    };
    out[0] = '\0';
    for (size_t i = 0, at = 0; i < sizeof all / sizeof *all && at < n; i++)
        if (all[i].has) at += (size_t)snprintf(out + at, n - at, "%s%s", at ? " " : "", all[i].name);
}

/* ---- devices: the CPU first, then the GPUs ---- */

#ifdef RV_CUDA
uint32_t rv_gpu_count(void) { return (uint32_t)rv_cuda_count(); }

rv_status rv_gpu_get(uint32_t i, rv_device *d, rv_error *err) {
    rv_cuda_device_info g;
    rv_status st = rv_cuda_device((int32_t)i, &g, err);
    if (st) return st;
    *d = (rv_device){ .backend = RV_BACKEND_CUDA, .index = (int32_t)i, .arch = g.arch, .cores = g.multiprocessors,
                      .memory_total = g.memory_total, .memory_free = g.memory_free };
    snprintf(d->name, sizeof d->name, "%s", g.name);
    snprintf(d->features, sizeof d->features, "compute_%d driver_%d.%d%s", g.capability, g.driver / 1000, g.driver % 1000 / 10,
             g.arch ? "" : " (no kernels in this build)");
    snprintf(d->problem, sizeof d->problem, "%s", g.problem);
    return RV_OK;
}
#else
uint32_t rv_gpu_count(void) { return 0; }

rv_status rv_gpu_get(uint32_t i, rv_device *d, rv_error *err) {
    (void)d;
    return rv_fail(err, RV_ERR_UNSUPPORTED, "GPU %u: this build has no CUDA backend: build with cmake --preset cuda", i);
}
#endif

static bool is_backend(rv_backend_id backend) { return backend >= RV_BACKEND_AUTO && backend <= RV_BACKEND_CUDA; }

uint32_t rv_device_count(rv_backend_id backend) {
    if (!is_backend(backend)) return 0;
    return (backend != RV_BACKEND_CUDA) + (backend != RV_BACKEND_CPU ? rv_gpu_count() : 0);
}

rv_status rv_device_get(rv_backend_id backend, uint32_t i, rv_device *out, rv_error *err) {
    if (!is_backend(backend)) return rv_fail(err, RV_ERR_ARGUMENT, "rv_device_get: backend %d: there is none of that number", backend);
    if (i >= rv_device_count(backend) && backend == RV_BACKEND_CUDA && rv_gpu_count() == 0) {
        rv_device none;
        return rv_gpu_get(0, &none, err);                   /* knows why                            */
    }
    if (i >= rv_device_count(backend))
        return rv_fail(err, RV_ERR_ARGUMENT, "device %u: there %s %u", i, rv_device_count(backend) == 1 ? "is" : "are", rv_device_count(backend));
    rv_device d = { .backend = RV_BACKEND_CPU, .cores = cpu_cores() };
    if (backend == RV_BACKEND_CUDA || i > 0) {
        rv_status st = rv_gpu_get(backend == RV_BACKEND_CUDA ? i : i - 1, &d, err);
        if (st) return st;
    } else {
        cpu_name(d.name, sizeof d.name);
        cpu_features(d.features, sizeof d.features);
        rv_cpu_memory(&d.memory_total, &d.memory_free);
    }
    return rv_abi_write(out, &d, sizeof d, "rv_device", err);
}
