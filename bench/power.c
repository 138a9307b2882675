/* power.c - see power.h. The few declarations of nvml.h that are used, by their documented ABI. */
#include "bench/power.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

typedef void *device;
typedef struct memory { unsigned long long total, unused, used; } memory;

struct power {
    void  *library;
    device gpu;
    char   name[96];
    int (*shutdown)(void);
    int (*energy)(device, unsigned long long *);
    int (*usage)(device, unsigned *);
    int (*limit)(device, unsigned *);
    int (*memory)(device, memory *);
};

/* Function pointers from dlsym, without a cast that ISO C forbids. */
static bool find(void *library, const char *name, void *to) {
    void *symbol = dlsym(library, name);
    memcpy(to, &symbol, sizeof symbol);
    return symbol != NULL;
}

static bool open_device(power *p, uint32_t index, const char **why) {
    int (*by_index)(unsigned, device *), (*name_of)(device, char *, unsigned);
    if (!find(p->library, "nvmlDeviceGetHandleByIndex_v2", &by_index) || !find(p->library, "nvmlDeviceGetName", &name_of)) return *why = "NVML is too old", false;
    if (by_index(index, &p->gpu) || name_of(p->gpu, p->name, sizeof p->name)) return *why = "NVML does not know this GPU", false;
    find(p->library, "nvmlDeviceGetTotalEnergyConsumption", &p->energy);
    find(p->library, "nvmlDeviceGetPowerUsage", &p->usage);
    find(p->library, "nvmlDeviceGetEnforcedPowerLimit", &p->limit);
    find(p->library, "nvmlDeviceGetMemoryInfo", &p->memory);
    return true;
}

bool power_is(const power *p, const char *name) { return p && strcmp(p->name, name) == 0; }

power *power_open(uint32_t index, const char **why) {
    int (*start)(void);
    power *p = calloc(1, sizeof *p);
    *why = "out of memory";
    if (!p) return NULL;
#ifndef RV_STATIC                       /* nothing can be loaded into a static program, and it has no CUDA to measure */
    p->library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
#endif
    if (!p->library) *why = "libnvidia-ml.so.1 is not on this machine";
    else if (!find(p->library, "nvmlInit_v2", &start) || !find(p->library, "nvmlShutdown", &p->shutdown)) *why = "NVML is too old";
    else if (start()) *why = "NVML does not start", p->shutdown = NULL;
    else if (open_device(p, index, why)) return p;
    power_close(p);
    return NULL;
}

void power_close(power *p) {
    if (!p) return;
    if (p->shutdown) p->shutdown();
    if (p->library) dlclose(p->library);
    free(p);
}

bool power_joules(const power *p, double *out) {
    unsigned long long millijoules;
    if (!p || !p->energy || p->energy(p->gpu, &millijoules)) return false;
    *out = (double)millijoules * 1e-3;
    return true;
}

static bool milliwatts(int (*call)(device, unsigned *), device gpu, double *out) {
    unsigned value;
    if (!call || call(gpu, &value)) return false;
    *out = value * 1e-3;
    return true;
}

bool power_watts(const power *p, double *out) { return p && milliwatts(p->usage, p->gpu, out); }
bool power_limit(const power *p, double *out) { return p && milliwatts(p->limit, p->gpu, out); }

bool power_used(const power *p, uint64_t *out) {
    memory m;
    if (!p || !p->memory || p->memory(p->gpu, &m)) return false;
    *out = m.used;
    return true;
}
