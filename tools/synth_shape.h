/* synth_shape.h - folders of random weights that programs make for themselves. */
#ifndef RV_TOOLS_SYNTH_SHAPE_H
#define RV_TOOLS_SYNTH_SHAPE_H
#include <stddef.h>

#include "engine/rvengine.h"

/* A model folder of that shape for plans: headers and holes, in the folder for temporary files. */
rv_status shape_make(const char *shape, char *folder, size_t bytes, rv_error *err);
void      shape_drop(const char *folder);     /* deletes it and what is in it                   */
#endif
