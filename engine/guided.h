/* guided.h - a job whose answer has a form: where it stands, and what is appended.
 *
 * The one idea: the device masks and moves a row over tokens by itself; the host walks the same tables a step later and
 * appends what needs no model - the next key, the rest of NOT_FOUND, the end of a line that has gone on for too long.  What
 * was appended waits to be run in one pass (step.c); a token that a step already under way chose instead is dropped.
 */
#ifndef RV_ENGINE_GUIDED_H
#define RV_ENGINE_GUIDED_H
#include "engine/constraint.h"
#include "kernels/backend.h"

typedef struct rv_guided {
    rv_constraint *constraint;
    rv_guide_row   row;                  /* over the constraint's own tables                     */
    bool           begun;                /* the first key is there                               */
    int32_t        place;                /* of them on the device; -1: none                      */
    int32_t        line;                 /* whose value is being written                        */
    int32_t       *cells;                /* per line: of a list; 0: absent or not there yet      */
    size_t         first_token, first_byte;   /* of the value, in answer and text                */
    rv_key_value   now;                  /* what is known of it                                 */
    rv_key_value  *values;               /* of the lines that have ended                        */
    size_t        *starts;               /* where their texts begin                             */
    int32_t        n_values;
} rv_guided;

/* Checks that it fits the tokenizer, and retains it. */
rv_status rv_guided_new(rv_constraint *constraint, const rv_tokenizer *t, rv_guided **out, rv_error *err);
void      rv_guided_free(rv_guided *g);

/* Appends the key of g->line and what follows for sure; before anything runs, the first one's.  False: the job has ended. */
bool rv_guided_start(rv_job *job, rv_job_state *state);
/* Takes a chosen token into the answer, and appends what follows for sure.  False: the job has ended, *state says how. */
bool rv_guided_take(rv_job *job, rv_best best, rv_job_state *state);
/* Whether something may be appended behind the token that is being chosen now. */
bool rv_guided_waits(const rv_guided *g);
/* The job has ended: its values can be looked at. */
void rv_guided_end(rv_job *job);
#endif
