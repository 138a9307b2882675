/* session.h - sessions, jobs and pictures from the inside.
 *
 * The one idea: one thread at a time drives a session (rv_step); every other thread only puts
 * jobs into the queue, sets flags and waits, under `lock`.  What a job needs on the device is
 * promised at admission (a slot, tiles of the pool), so that a running job cannot run out.
 */
#ifndef RV_ENGINE_SESSION_H
#define RV_ENGINE_SESSION_H
#include <pthread.h>
#include <stdatomic.h>
#include "engine/guided.h"
#include "engine/model.h"
#include "engine/sample.h"
#include "engine/text.h"
#include "engine/vision.h"

enum { RV_TAPE_SIZES = 7 };              /* 1 << 0 .. 1 << 6 = RV_FEW_ROWS                       */

/* How many images a recorded step's rows may see: none, a sequence's share of the session's, or all of them.  Attention
 * is cut and given room for what a row may see, so that many slots would pay for what one request hardly ever has. */
typedef enum { RV_SEES_NONE, RV_SEES_SHARE, RV_SEES_ALL, RV_SIGHTS } rv_sees;

typedef enum { RV_PICTURE_NEW, RV_PICTURE_HELD, RV_PICTURE_READY } rv_picture_state;

struct rv_picture {
    rv_session      *session;
    atomic_int       refs;               /* the caller's, and one a job                         */
    rv_canvas        canvas;
    uint8_t         *tiles;              /* u8 [rows*cols][3][tile][tile]                       */
    float            image_ms;
    /* under session->lock, or the stepping thread's alone */
    rv_picture_state state;
    int32_t          pages[RV_MAX_TILES], n_pages, users;   /* users: running jobs               */
    rv_vision_job    work;
    rv_picture      *previous, *next;    /* in session->held                                    */
};

struct rv_job {
    rv_session      *session;
    atomic_int       refs;               /* the caller's, and the session's until it has ended   */
    atomic_int       state;              /* rv_job_state                                         */
    atomic_bool      cancel;
    /* the request, as understood */
    rv_ids           prompt;
    rv_sight        *sight;              /* per prompt token                                     */
    rv_picture     **pictures;
    uint32_t         n_pictures;
    rv_sampling      sampling;
    rv_request_flags flags;
    int32_t          limit;              /* most answer tokens                                   */
    char           **stop;
    uint32_t         n_stop;
    rv_token_fn      on_token;
    rv_done_fn       on_done;
    void            *user;
    rv_guided       *guided;             /* NULL: the answer has no given form                   */
    /* the answer; behind the prompt's ids stand those of the answer, all but in_cache of which wait to be run */
    rv_ids           answer;
    float           *logprobs;
    rv_string        text;
    size_t           sent;               /* bytes of text already given to on_token              */
    rv_text_stream   stream;
    rv_error         error;
    rv_stats         stats;
    double           submitted_ms;
    /* while running; the stepping thread's */
    int32_t          slot, in_cache, image_keys, first_key, last_key;
    float            row_on;
    rv_job          *next;               /* in session->queue                                    */
};

/* A step that was played and whose tokens nobody has taken yet. */
typedef struct rv_flight {
    rv_tray *tray;                       /* rv_best of each row                                 */
    int32_t  n;
    rv_job  *jobs[RV_FEW_ROWS];          /* by row; NULL: has ended since, its token is dropped  */
} rv_flight;

/* A constraint's tables on the device. */
typedef struct rv_placed { rv_constraint *constraint; rv_guide guide; uint32_t users; } rv_placed;

/* Where the backend can: recorded steps, and the answering rows as they stand on the device. */
typedef struct rv_ahead {
    rv_tape     *tapes[RV_TAPE_SIZES][RV_SIGHTS];    /* steps of 1, 2, 4 .. rows                 */
    rv_sees      sees;                   /* of the rows that are on the device                  */
    rv_text_rows rows;                   /* as last uploaded; the device has moved on since      */
    rv_choice    how[RV_FEW_ROWS];       /* host                                                */
    rv_choice   *device_how;             /* [2 * slots]; the second half for passes that are waited for */
    uint8_t     *seen;                   /* device [slots x vocab]                              */
    rv_flight    flights[2];             /* `flying` of them, the oldest first                  */
    int32_t      flying;
    void        *constraint_room;        /* device: options.constraints places of options.constraint_bytes */
    rv_placed   *placed;                 /* what lies in them                                   */
} rv_ahead;

struct rv_session {
    rv_model          *model;
    rv_session_options options;          /* resolved                                             */
    atomic_int         refs;             /* the caller's, one a job, one a picture               */
    atomic_bool        stepping;         /* a thread is inside; also of one that is ending       */
    atomic_bool        doomed;           /* rv_session_free was called: whoever is inside ends it */
    pthread_mutex_t    lock;
    pthread_cond_t     work, done;
    /* under lock */
    rv_job            *queue, **queue_end;
    uint32_t           queued, running;
    uint32_t           wakes;
    bool               closed;
    rv_picture        *held;             /* pictures that own pages                              */
    int32_t           *free_pages, n_free;
    /* the stepping thread's */
    rv_job           **slots;
    uint32_t           turn;             /* whose prefill is next                                */
    void              *cache_memory, *scratch_memory;
    uint64_t           cache_bytes, scratch_bytes;
    rv_cache           cache;
    rv_text_scratch    text_scratch;     /* of the answering rows, one a slot                    */
    rv_text_scratch    chunk_scratch;    /* of a prefill pass: shares memory with vision_scratch */
    rv_vision_scratch  vision_scratch;
    rv_text            text, reader;     /* over text_scratch and chunk_scratch                  */
    rv_vision          vision;
    const rv_picture  *seeing;           /* whose states vision_scratch holds, half way through  */
    rv_text_rows       rows;
    uint32_t           steps;            /* rv_steps: the model's, and its own                   */
    bool               streams;          /* the model has layers in host memory                 */
    bool               runs_ahead;       /* tokens are chosen on the device: `ahead`; else on the host */
    rv_ahead           ahead;
    float             *logits;           /* host [slots x vocab]                                 */
    uint8_t           *seen;             /* host [slots x vocab]; ahead: room for one            */
    rv_candidate      *room;
};

double rv_now_ms(void);

/* engine/session.c */
void rv_session_retain(rv_session *s);
void rv_session_release(rv_session *s);
void rv_session_end(rv_session *s);      /* `stepping` is the caller's, and stays                */
/* Places cache and scratch of resolved options; measuring or for real (both arenas alike). */
void rv_session_place(rv_session *s, const rv_config *config, const rv_backend *be, rv_arena *cache, rv_arena *scratch);

/* engine/decode.c: one token for every answering job.
 * Where s->runs_ahead, steps are recorded once and played: a flight is a step whose tokens are on their way. */
void      rv_decode_place(rv_session *s, const rv_config *config, const rv_backend *be, rv_arena *scratch);
rv_status rv_decode_open(rv_session *s, rv_error *err);      /* after placing for real           */
void      rv_decode_close(rv_session *s);                    /* model->device is held            */
/* Plays a step of s->ahead.rows and .how, whose row r is of jobs[r]; or one more, as the last flight left the rows. */
rv_status rv_decode_launch(rv_session *s, rv_job *const *jobs, rv_error *err);
rv_status rv_decode_launch_next(rv_session *s, rv_error *err);
/* Waits for the oldest flight; its tokens by row, and whose they are. */
rv_status rv_decode_land(rv_session *s, rv_flight *flight, rv_best best[RV_FEW_ROWS], rv_error *err);
/* The job has ended: what its rows still compute is nobody's.  Flights without any job are dropped, not waited for. */
void      rv_decode_forget(rv_session *s, const rv_job *job);
/* A prompt that begins: tells the device which ids it holds. */
void      rv_decode_prompt(rv_session *s, const rv_job *job);
/* Runs s->rows, the last n of which end what n jobs wait to have run, chooses their next tokens and waits for them. */
rv_status rv_decode_now(rv_session *s, const rv_text *t, rv_job *const *jobs, int32_t n, rv_best *best, rv_error *err);
/* Without running ahead: runs s->rows; logits of rows [from, from + n) come to s->logits. */
rv_status rv_decode_run(rv_session *s, const rv_text *t, int32_t from, int32_t n, rv_error *err);

/* engine/step.c: ends every queued and running job as cancelled. */
void rv_session_cancel_all(rv_session *s);

/* engine/picture.c: all but the first with session->lock held */
rv_status rv_picture_open(rv_session *s, const rv_image *image, rv_picture **out, rv_error *err);
void      rv_picture_retain(rv_picture *p);
void      rv_picture_release_locked(rv_picture *p);
/* Gives every picture of the job its pages, or none of them (false: not enough are free now). */
bool      rv_pictures_hold(rv_session *s, rv_job *job);

/* engine/places.c: where constraints lie on the device.  A job gets a place for its own before it runs, or has to wait. */
rv_status rv_places_new(rv_session *s, rv_error *err);
void      rv_places_free(rv_session *s);
bool      rv_place_hold(rv_session *s, rv_job *job);         /* lock is held                        */
void      rv_place_release(rv_session *s, rv_job *job);      /* lock is held                        */
void      rv_place_fill(rv_session *s, const rv_job *job);   /* its tables are there before anything else that is queued now */

/* engine/job.c */
void rv_job_release(rv_job *job);
/* Ids behind the last one in the cache; of an answering job at least one. */
static inline int32_t rv_job_waiting(const rv_job *job) { return (int32_t)job->prompt.count + (int32_t)job->answer.count - job->in_cache; }
static inline int32_t rv_job_id(const rv_job *job, int32_t i) {
    int32_t n = (int32_t)job->prompt.count;
    return i < n ? job->prompt.data[i] : job->answer.data[i - n];
}
/* Takes a chosen token into the answer and tells the caller. Returns true when the job goes on; else
 * *state says how it ended. */
bool rv_job_take(rv_job *job, rv_best best, rv_job_state *state);
/* The same of one token, whoever chose it; LAST: the answer ends with it. */
enum { RV_PUSH_FORCED = 1, RV_PUSH_LAST = 2 };
bool rv_job_push(rv_job *job, int32_t id, float logprob, uint32_t how, rv_job_state *state);
#endif
