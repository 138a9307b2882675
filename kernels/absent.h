/* absent.h - the sizes of a GPU backend, for builds without one.
 *
 * The one idea: a plan for a GPU asks a backend for sizes alone, so a build without CUDA can plan too.  Where there is CUDA
 * its own backend is asked; a test holds the two together.
 */
#ifndef RV_KERNELS_ABSENT_H
#define RV_KERNELS_ABSENT_H
#include "kernels/backend.h"

/* Knows weight_bytes, what the struct says, and that steps run ahead; nothing can be computed. */
rv_status rv_absent_open(rv_dtype act, rv_backend **out, rv_error *err);
#endif
