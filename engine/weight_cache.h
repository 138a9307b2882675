/* weight_cache.h - quantised weights kept in a file, exactly as they lie on the device.
 *
 * The one idea: what loading makes is one block of memory (rv_model.memory), so a second load of the same model needs
 * nothing but that block: the file is read straight into it, and placing only says what lies where.  A file is believed if
 * its header names this very checkpoint and this very layout, and every piece has its checksum; else there is a
 * message, the weights are made again, and the file is replaced.  Nothing about a cache ever makes loading fail.
 *
 * The file: a header of rv_cache_head's fields and a checksum a piece, up to a multiple of 4096 bytes; then the memory.
 * It is written beside its place as NAME.tmp-PID-N, locked (flock) for as long, and renamed: of several writers the last one's file stays, and
 * what a killed one left is what nobody has locked: whoever reads or writes the file removes it.
 * Its name: the model folder's name, the format, and a hash of the folder's full path and all that is asked for.
 */
#ifndef RV_ENGINE_WEIGHT_CACHE_H
#define RV_ENGINE_WEIGHT_CACHE_H
#include "engine/model.h"

typedef struct rv_weight_cache rv_weight_cache;

/* For a model whose weights have been measured (m->memory_bytes); NULL where nothing is to be cached: no cache_dir, no
 * quantised weights, a backend without a layout. What goes wrong is logged. */
rv_weight_cache *rv_weight_cache_open(rv_model *m, const char *model_dir, const rv_placing *how);
/* Begins to read the file into m->memory, and fills in pads_are_equal; false: there is none, or another one (logged). */
bool rv_weight_cache_read(rv_weight_cache *c, bool *pads_are_equal);
/* After rv_finish: whether all of it came as it was written (else logged). Gives the file back. */
bool rv_weight_cache_arrived(rv_weight_cache *c);
/* Starts a thread that writes the file from m->memory, taking m->device for a piece at a time. */
void rv_weight_cache_write(rv_weight_cache *c);
/* Waits for that thread, and logs what became of it. NULL is fine. */
void rv_weight_cache_close(rv_weight_cache *c);
#endif
