/* outliers.c - what LLM.int8 would treat as outliers: the inputs of the decoder's products, counted over a request.
 *
 * The one idea: the backend shows every product's input before it runs (rv_backend.watch), so that counting needs no
 * second forward pass and works on every backend alike.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/abi.h"
#include "engine/model.h"

static const float THRESHOLD = 6.f;     /* bitsandbytes' own */

typedef struct module {
    const rv_weight *w;
    rv_outliers      of;
    uint8_t         *column;             /* [columns]: it reached the threshold                */
    char             name[RV_MODULE_BYTES];
} module;

typedef struct count {
    rv_model *m;
    float     threshold;
    module   *modules;
    uint32_t  n, room;
    void     *rows;                      /* as read back                                       */
    uint64_t  rows_bytes;
    bool      out_of_memory;
} count;

/* One module for each weight of the decoder: its first tensor gives the name. */
static rv_status add_module(void *user, const rv_tensor_want *want, rv_error *err) {
    count *c = user;
    if (want->row->kind != RV_KIND_WEIGHT || want->row->use != RV_USE_TEXT) return RV_OK;
    const rv_weight *w = *(rv_weight *const *)(const void *)((const char *)&c->m->weights + want->destination);
    if (c->n && c->modules[c->n - 1].w == w) return RV_OK;
    if (c->n == c->room) {
        uint32_t room = c->room ? 2 * c->room : 64;
        module *more = realloc(c->modules, room * sizeof *more);
        if (!more) return rv_fail_memory(err, "outliers");
        c->modules = more;
        c->room = room;
    }
    module *m = &c->modules[c->n];
    *m = (module){ .w = w, .of = { .size = sizeof m->of, .columns = (uint32_t)want->shape[1] } };
    rv_modules_name(want->name, rv_checkpoint_layout(c->m->files.checkpoint) == RV_LAYOUT_NEW, m->name);
    m->column = calloc(m->of.columns, 1);
    if (!m->column) return rv_fail_memory(err, "outliers");
    c->n++;
    return RV_OK;
}

static float value_of(const void *row, rv_dtype type, int32_t i) {
    uint16_t h;
    if (type == RV_F32) return ((const float *)row)[i];
    memcpy(&h, (const char *)row + (size_t)i * 2, sizeof h);
    return type == RV_BF16 ? rv_bf16_to_f32(h) : rv_f16_to_f32(h);
}

static void count_row(module *m, const void *row, rv_dtype type, float threshold) {
    uint32_t here = 0;
    for (int32_t i = 0; i < (int32_t)m->of.columns; i++) {
        float v = fabsf(value_of(row, type, i));
        if (v > m->of.largest) m->of.largest = v;
        if (!(v >= threshold)) continue;
        m->column[i] = 1;
        here++;
    }
    m->of.rows++;
    m->of.values += here;
    if (here > m->of.most_in_a_row) m->of.most_in_a_row = here;
}

static void watch(void *user, rv_mat x, const rv_weight *w) {
    count *c = user;
    module *m = NULL;
    for (uint32_t i = 0; i < c->n && !m; i++)
        if (c->modules[i].w == w) m = &c->modules[i];
    if (!m || x.rows == 0) return;
    const uint64_t size = rv_dtype_size(x.type), bytes = ((uint64_t)(x.rows - 1) * (uint64_t)x.ld + (uint64_t)x.cols) * size;
    if (bytes > c->rows_bytes) {
        void *more = realloc(c->rows, bytes);
        if (!more) {
            c->out_of_memory = true;
            return;
        }
        c->rows = more;
        c->rows_bytes = bytes;
    }
    rv_download(c->m->be, c->rows, x.data, bytes);
    if (c->m->be->error.code) return;
    for (int32_t r = 0; r < x.rows; r++) count_row(m, (const char *)c->rows + (uint64_t)r * (uint64_t)x.ld * size, x.type, c->threshold);
}

static void tell(const count *c, rv_outliers_fn each, void *user) {
    for (uint32_t i = 0; i < c->n; i++) {
        module *m = &c->modules[i];
        m->of.module = m->name;
        for (uint32_t k = 0; k < m->of.columns; k++) m->of.outlier_columns += m->column[k];
        each(user, &m->of);
    }
}

rv_status rv_count_outliers(rv_model *m, const rv_request *request, float threshold, rv_outliers_fn each, void *user, rv_error *err) {
    if (!m || !request || !each) return rv_fail(err, RV_ERR_ARGUMENT, "rv_count_outliers: %s is NULL", !m ? "model" : !request ? "request" : "each");
    if (!(threshold >= 0)) return rv_fail(err, RV_ERR_ARGUMENT, "rv_count_outliers: threshold: must not be negative, is %g", (double)threshold);
    if (atomic_load(&m->refs) > 1) return rv_fail(err, RV_ERR_BUSY, "rv_count_outliers: a session holds the model: free it first");
    const rv_session_options one = { .size = sizeof one };
    count c = { .m = m, .threshold = threshold > 0 ? threshold : THRESHOLD };
    rv_session *session = NULL;
    rv_job *job = NULL;
    rv_status st = RV_OK;
    m->be->watch = watch;
    m->be->watch_user = &c;
    TRY(rv_weights_each(&m->files.config, add_module, &c, err));
    TRY(rv_session_new(m, &one, &session, err));
    TRY(rv_generate(session, request, &job, err));
    if (c.out_of_memory) TRY(rv_fail_memory(err, "outliers"));
    tell(&c, each, user);
done:
    rv_job_free(job);
    rv_session_free(session);
    m->be->watch = NULL;
    for (uint32_t i = 0; i < c.n; i++) free(c.modules[i].column);
    free(c.modules);
    free(c.rows);
    return st;
}
