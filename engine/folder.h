/* folder.h - a model folder that is being written: nobody else's meanwhile; whole at the end, or empty.
 *
 * The one idea: the folder is locked, and before the first file is made rvengine.partial lists all that will be.  Each is NAME.partial until
 * all are there, and what makes the folder a model gets its name last.  So who finds the list of a run that was killed, at
 * whatever moment, knows what to delete, and deletes nothing else.
 */
#ifndef RV_ENGINE_FOLDER_H
#define RV_ENGINE_FOLDER_H
#include "engine/base/status.h"
#include "engine/base/text.h"

typedef struct rv_folder {
    const char *dir;                     /* the caller's                                        */
    int         fd;                      /* of it; holds the lock                               */
    bool        made, begun;             /* it was not there; the list is written               */
    bool        was_blocked, was_pending;/* SIGXFSZ                                             */
    rv_string   names;                   /* of all files, a NUL behind each; the first makes it a model */
} rv_folder;

/* Makes dir, or makes sure that it is empty, once what an interrupted run left is deleted; RV_ERR_IO when it is not, or when another
 * process writes there.  Until it is left, the calling thread and those it starts get EFBIG and no SIGXFSZ. */
rv_status rv_folder_take(const char *dir, rv_folder *out, rv_error *err);
/* RV_ERR_IO when the disk has less room. */
rv_status rv_folder_check_room(const char *dir, uint64_t bytes, rv_error *err);
/* A file that will be made: all of them are added before _begin. */
void      rv_folder_add(rv_folder *f, const char *name);
/* Writes the list. */
rv_status rv_folder_begin(rv_folder *f, rv_error *err);
/* Opens NAME.partial, empty, to be written; -1 and an error when that failed. The caller closes it. */
int       rv_folder_open(const rv_folder *f, const char *name, rv_error *err);
rv_status rv_folder_put(const rv_folder *f, int fd, const char *name, const char *data, size_t bytes, rv_error *err);     /* on to it */
rv_status rv_folder_write(const rv_folder *f, const char *name, const void *data, size_t bytes, rv_error *err);
/* RV_ERR_IO with errno's reason. */
rv_status rv_folder_fail(const rv_folder *f, const char *name, rv_error *err);
/* All files get their names. */
rv_status rv_folder_publish(const rv_folder *f, rv_error *err);
/* Ends it; whatever was made is deleted unless st is RV_OK. */
void      rv_folder_leave(rv_folder *f, rv_status st);
#endif
