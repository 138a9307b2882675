/* power.h - what the GPU draws and holds, as the driver's management library (NVML) says.
 *
 * The one idea: the library is loaded when it is wanted, like the driver itself, so that a build needs nothing of it and a machine
 * without it loses these numbers alone.
 */
#ifndef RV_BENCH_POWER_H
#define RV_BENCH_POWER_H
#include <stdbool.h>
#include <stdint.h>

typedef struct power power;

/* NULL where NVML or that GPU is not to be had; *why says so (static).  Makes no CUDA context. */
power   *power_open(uint32_t index, const char **why);
bool     power_is(const power *p, const char *name);            /* of the GPU that CUDA calls so: with CUDA_VISIBLE_DEVICES it may be another */
void     power_close(power *p);
/* Joules since the driver was loaded; false: this GPU does not count them. */
bool     power_joules(const power *p, double *out);
bool     power_watts(const power *p, double *out);              /* now                           */
bool     power_limit(const power *p, double *out);              /* the board's                   */
/* Device bytes in use by everybody, contexts included. */
bool     power_used(const power *p, uint64_t *out);
#endif
