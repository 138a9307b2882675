/* backend.c - the checked calls of backend.h.
 *
 * The one idea: whatever the backend, a call whose matrices do not fit is caught here, once, as
 * a sticky RV_ERR_INTERNAL that names the operation and the shapes; so kernels trust theirs.
 */
#include <math.h>
#include <stdlib.h>
#include "kernels/backend.h"

static const char *type_name(rv_dtype type) {
    static const char *const names[RV_DTYPE_COUNT] = { "f32", "f16", "bf16", "i8", "u8", "i32", "i64" };
    return (unsigned)type < RV_DTYPE_COUNT ? names[type] : "?";
}

#define SHAPE "[%d x %d] ld %lld %s"
#define SHAPE_OF(m) (int)(m).rows, (int)(m).cols, (long long)(m).ld, type_name((m).type)

static bool failed(const rv_backend *be) { return be->error.code != RV_OK; }

/* A view that can exist: data unless empty, rows that do not overlap.  One row may have any ld. */
static bool is_mat(rv_mat m) {
    if (m.rows < 0 || m.cols < 0 || (unsigned)m.type >= RV_DTYPE_COUNT) return false;
    if (m.rows == 0 || m.cols == 0) return true;
    return m.data && (m.rows == 1 || m.ld >= m.cols) && m.ld < INT64_MAX / 8 / m.rows;
}

static bool is_act(const rv_backend *be, rv_mat m) { return m.type == RV_F32 || m.type == be->act; }

/* Sticky: `op: why (a is .., b is ..)`.  Returns ok. */
static bool check(rv_backend *be, bool ok, const char *op, const char *why, rv_mat a, rv_mat b) {
    if (!ok)
        rv_fail(&be->error, RV_ERR_INTERNAL, "%s: %s (" SHAPE " and " SHAPE ")", op, why, SHAPE_OF(a), SHAPE_OF(b));
    return ok;
}

static bool check_weight(rv_backend *be, const rv_weight *w, int32_t rows, int32_t cols, const char *op) {
    const rv_weight_head *h = (const rv_weight_head *)(const void *)w;
    if (!h) rv_fail(&be->error, RV_ERR_INTERNAL, "%s: no weight", op);
    else if (h->cols != cols || (rows >= 0 && h->rows != rows))
        rv_fail(&be->error, RV_ERR_INTERNAL, "%s: the weight is [%d x %d], the matrices want [%d x %d]", op, (int)h->rows,
                (int)h->cols, (int)rows, (int)cols);
    else return true;
    return false;
}

void rv_backend_close(rv_backend *be) {
    if (be) be->ops->close(be);
}

void rv_enter(rv_backend *be) {
    if (be->ops->enter) be->ops->enter(be);
}

void rv_leave(rv_backend *be) {
    if (be->ops->leave) be->ops->leave(be);
}

void *rv_device_alloc(rv_backend *be, uint64_t bytes) {
    if (failed(be)) return NULL;
    void *p = be->ops->alloc(be, bytes);
    if (!p && !failed(be))
        rv_fail(&be->error, RV_ERR_MEMORY, "%s backend: %llu bytes: out of memory", be->ops->name,
                (unsigned long long)bytes);
    return p;
}

void rv_device_release(rv_backend *be, void *memory) {
    if (memory) be->ops->release(be, memory);
}

bool rv_has_host_memory(const rv_backend *be) { return be->ops->host_alloc != NULL; }

void *rv_host_alloc(rv_backend *be, uint64_t bytes) {
    if (failed(be)) return NULL;
    void *p = be->ops->host_alloc(be, bytes);
    if (!p && !failed(be)) rv_fail(&be->error, RV_ERR_MEMORY, "%s backend: %llu bytes of host memory: out of memory", be->ops->name, (unsigned long long)bytes);
    return p;
}

void rv_host_release(rv_backend *be, void *memory) {
    if (memory) be->ops->host_release(be, memory);
}

void rv_upload(rv_backend *be, void *dst, const void *host, uint64_t bytes) {
    if (!failed(be) && bytes) be->ops->upload(be, dst, host, bytes);
}

void rv_download(rv_backend *be, void *host, const void *src, uint64_t bytes) {
    if (!failed(be) && bytes) be->ops->download(be, host, src, bytes);
}

rv_status rv_finish(rv_backend *be, rv_error *err) {
    be->ops->finish(be);
    if (failed(be) && err) *err = be->error;
    return be->error.code;
}

bool rv_loading(rv_backend *be) { return !failed(be) && be->ops->loading && be->ops->loading(be); }

uint64_t rv_saturated(rv_backend *be) { return !failed(be) && be->ops->saturated ? be->ops->saturated(be) : 0; }

void rv_forgive(rv_backend *be) {
    if (be->error.code == RV_ERR_MEMORY || be->error.code == RV_ERR_DEVICE_MEMORY) be->error = (rv_error){ 0 };
}

void rv_mark_time(rv_backend *be, rv_mark which) {
    if (!failed(be) && be->ops->mark) be->ops->mark(be, which);
}

double rv_marked_ms(rv_backend *be, rv_mark from, rv_mark to) { return failed(be) || !be->ops->marked_ms ? 0 : be->ops->marked_ms(be, from, to); }

/* ---- weights ---- */

static bool check_spec(rv_backend *be, const rv_weight_spec *s, bool with_data) {
    const char *name = s->name ? s->name : "weight", *why = NULL;
    int64_t rows = 0;
    if (s->rows <= 0 || s->cols <= 0) why = "a side is not positive";
    else if (s->n_parts < 1 || s->n_parts > RV_WEIGHT_PARTS) why = "1 to 3 parts";
    else if (s->order == RV_ORDER_GATE_UP && (s->n_parts != 2 || s->part[0].rows != s->part[1].rows))
        why = "gate and up are two parts of one height";
    for (int32_t i = 0; i < s->n_parts && !why; i++) {
        const rv_weight_part *p = &s->part[i];
        rows += p->rows;
        if (p->rows <= 0) why = "a part has no rows";
        else if (p->codes && s->format != RV_FORMAT_PLAIN && p->codes->format != s->format) why = "a part is quantised otherwise than the weight";
        else if (!p->codes && !rv_dtype_is_float(p->type)) why = "a part is not f32, f16 or bf16";
        else if (with_data && !p->data && !p->codes) why = "a part has no data";
    }
    if (!why && rows != s->rows) why = "the parts' rows are not the weight's";
    else if (!why && s->on_host && (s->use != RV_USE_ROWS || !rv_has_host_memory(be))) why = "only a table of rows may lie in a backend's host memory";
    else if (!why && s->use == RV_USE_ROWS && s->format != RV_FORMAT_PLAIN) why = "a table of rows is not quantised";
    else if (!why && s->format >= RV_FORMAT_NF4 && s->cols % RV_BLOCK4) why = "4 bit takes a multiple of 64 columns";
    if (why)
        rv_fail(&be->error, RV_ERR_INTERNAL, "weight %s [%d x %d]: %s", name, (int)s->rows, (int)s->cols, why);
    return !why;
}

uint64_t rv_weight_bytes(rv_backend *be, const rv_weight_spec *spec) {
    if (failed(be) || !check_spec(be, spec, false)) return 0;
    return be->ops->weight_bytes(be, spec);
}

rv_weight *rv_weight_new(rv_backend *be, const rv_weight_spec *spec, void *memory) {
    if (failed(be) || !check_spec(be, spec, !spec->filled)) return NULL;
    return be->ops->weight_new(be, spec, memory);
}

void rv_weight_free(rv_backend *be, rv_weight *w) {
    if (w) be->ops->weight_free(be, w);
}

/* ---- operations ---- */

void rv_zero(rv_backend *be, rv_mat x) {
    if (!failed(be) && check(be, is_mat(x), "zero", "not a matrix", x, x)) be->ops->zero(be, x);
}

static bool is_float(rv_mat m) { return rv_dtype_is_float(m.type); }

void rv_copy(rv_backend *be, rv_mat dst, rv_mat src) {
    if (failed(be)) return;
    rv_mat rows = src;
    if (src.ld == 0) rows.rows = dst.rows > 0;               /* one row for all */
    bool ok = is_mat(dst) && is_mat(rows) && dst.rows == src.rows && dst.cols == src.cols &&
              (dst.type == src.type || (is_float(src) && is_act(be, dst)));
    if (check(be, ok, "copy", "shapes or types do not fit", dst, src)) be->ops->copy(be, dst, src);
}

void rv_patches(rv_backend *be, rv_mat out, rv_mat pixels, const float *values, int32_t channels, int32_t patch) {
    if (failed(be)) return;
    bool ok = is_mat(out) && is_mat(pixels) && pixels.type == (values ? RV_U8 : RV_F32) && is_act(be, out) && channels > 0 &&
              patch > 0 && pixels.cols % channels == 0;
    if (ok) {
        int64_t edge = llround(sqrt((double)(pixels.cols / channels))), grid = edge / patch;
        ok = edge * edge * channels == pixels.cols && grid * patch == edge && out.rows == pixels.rows * grid * grid &&
             out.cols == (int64_t)channels * patch * patch;
    }
    if (check(be, ok, "patches", "square tiles do not give these patches", out, pixels))
        be->ops->patches(be, out, pixels, values, channels, patch);
}

void rv_embed(rv_backend *be, rv_mat out, const rv_weight *table, const int32_t *ids) {
    if (failed(be)) return;
    bool ok = is_mat(out) && out.type == RV_F32 && (ids || !out.rows);
    if (check(be, ok, "embed", "needs an f32 matrix and ids", out, out) && check_weight(be, table, -1, out.cols, "embed"))
        be->ops->embed(be, out, table, ids);
}

void rv_add_rows(rv_backend *be, rv_mat x, const rv_weight *table, const int32_t *ids, float scale) {
    if (failed(be)) return;
    bool ok = is_mat(x) && x.type == RV_F32 && (ids || !x.rows);
    if (check(be, ok, "add_rows", "needs an f32 matrix and ids", x, x) &&
        check_weight(be, table, -1, x.cols, "add_rows"))
        be->ops->add_rows(be, x, table, ids, scale);
}

void rv_norm_rows(rv_backend *be, rv_mat out, rv_mat x, rv_norm n) {
    if (failed(be)) return;
    bool ok = is_mat(out) && is_mat(x) && out.rows == x.rows && out.cols == x.cols && is_act(be, out) && is_act(be, x) &&
              n.weight && n.width > 0 && x.cols % n.width == 0;
    if (check(be, ok, "norm", "shapes, types or width do not fit", out, x)) be->ops->norm(be, out, x, n);
}

void rv_linear(rv_backend *be, rv_mat out, rv_mat x, const rv_weight *w, const float *bias, rv_act act) {
    if (failed(be)) return;
    bool ok = is_mat(out) && is_mat(x) && out.rows == x.rows && is_act(be, out) && x.type == be->act &&
              (act == RV_ACT_NONE || act == RV_ACT_GELU);
    if (!check(be, ok, "linear", "rows or types do not fit", out, x) || !check_weight(be, w, out.cols, x.cols, "linear")) return;
    if (be->watch) be->watch(be->watch_user, x, w);
    be->ops->linear(be, out, x, w, bias, act);
}

void rv_linear_add(rv_backend *be, rv_mat x, rv_mat h, const rv_weight *w, const float *bias, float scale,
                   const float *row_scale) {
    if (failed(be)) return;
    bool ok = is_mat(x) && is_mat(h) && x.rows == h.rows && x.type == RV_F32 && h.type == be->act;
    if (!check(be, ok, "linear_add", "rows or types do not fit", x, h) || !check_weight(be, w, x.cols, h.cols, "linear_add")) return;
    if (be->watch) be->watch(be->watch_user, h, w);
    be->ops->linear_add(be, x, h, w, bias, scale, row_scale);
}

void rv_swiglu(rv_backend *be, rv_mat out, rv_mat gate_up) {
    if (failed(be)) return;
    bool ok = is_mat(out) && is_mat(gate_up) && out.rows == gate_up.rows && gate_up.cols == 2 * (int64_t)out.cols &&
              is_act(be, out) && is_act(be, gate_up);
    if (check(be, ok, "swiglu", "shapes or types do not fit", out, gate_up)) be->ops->swiglu(be, out, gate_up);
}

void rv_rope(rv_backend *be, rv_mat qk, const float *cos_sin, const int32_t *pos, int32_t head_dim) {
    if (failed(be)) return;
    bool ok = is_mat(qk) && is_act(be, qk) && cos_sin && (pos || !qk.rows) && head_dim > 0 && head_dim % 2 == 0 &&
              qk.cols % head_dim == 0;
    if (check(be, ok, "rope", "columns are no whole heads of even width", qk, qk))
        be->ops->rope(be, qk, cos_sin, pos, head_dim);
}

static bool check_kv(rv_backend *be, const rv_kv *kv, const char *op) {
    bool ok = is_mat(kv->k) && is_mat(kv->v) && kv->k.rows == kv->v.rows && kv->k.cols == kv->v.cols &&
              kv->k.type == be->act && kv->v.type == be->act;
    if (!check(be, ok, op, "keys and values differ in shape, or are not of the operands' type", kv->k, kv->v)) return false;
    ok = !kv->pages || (kv->page_rows > 0 && kv->max_pages > 0);
    return check(be, ok, op, "pages without rows", kv->k, kv->v);
}

void rv_kv_store(rv_backend *be, rv_kv kv, rv_mat k, rv_mat v, const int32_t *slot, const int32_t *pos) {
    if (failed(be) || !check_kv(be, &kv, "kv_store")) return;
    bool ok = is_mat(k) && is_mat(v) && k.rows == v.rows && k.cols == kv.k.cols && v.cols == k.cols && is_act(be, k) &&
              is_act(be, v) && (pos || !k.rows);
    if (check(be, ok, "kv_store", "shapes or types do not fit", k, v)) be->ops->kv_store(be, kv, k, v, slot, pos);
}

void rv_attend(rv_backend *be, const rv_attention *a) {
    if (failed(be) || !check_kv(be, &a->kv, "attend")) return;
    bool ok = is_mat(a->q) && is_mat(a->out) && a->q.rows == a->out.rows && a->q.cols == a->out.cols &&
              is_act(be, a->q) && is_act(be, a->out) && (a->last || !a->q.rows) && a->longest >= 0;
    if (!check(be, ok, "attend", "queries and output differ in shape or type", a->q, a->out)) return;
    ok = a->heads > 0 && a->kv_heads > 0 && a->heads % a->kv_heads == 0 && a->q.cols % a->heads == 0 &&
         (int64_t)a->q.cols / a->heads * a->kv_heads == a->kv.k.cols;
    if (!check(be, ok, "attend", "heads do not divide queries and keys alike", a->q, a->kv.k)) return;
    be->ops->attend(be, a);
}

void rv_concat_taps(rv_backend *be, rv_mat out, rv_mat last, const rv_mat *taps, int32_t n_taps) {
    if (failed(be)) return;
    bool ok = is_mat(out) && is_mat(last) && out.rows == last.rows && is_act(be, out) && is_act(be, last) &&
              n_taps >= 0 && out.cols == (1 + (int64_t)n_taps) * last.cols;
    if (!check(be, ok, "concat_taps", "shapes or types do not fit", out, last)) return;
    for (int32_t i = 0; i < n_taps; i++) {
        ok = is_mat(taps[i]) && taps[i].rows == last.rows && taps[i].cols == last.cols && is_act(be, taps[i]);
        if (!check(be, ok, "concat_taps", "a tap differs from the last state", taps[i], last)) return;
    }
    be->ops->concat_taps(be, out, last, taps, n_taps);
}

bool rv_linear_normed(rv_backend *be, rv_mat out, rv_mat x, rv_norm n, const rv_weight *w, bool swiglu) {
    if (failed(be)) return true;
    if (!be->ops->linear_normed || be->fine_only || be->watch) return false;
    const bool ok = is_mat(out) && is_mat(x) && x.type == RV_F32 && out.rows == x.rows && is_act(be, out) && n.weight && n.width == x.cols;
    if (!check(be, ok, "linear_normed", "rows or types do not fit", out, x) || !check_weight(be, w, swiglu ? 2 * out.cols : out.cols, x.cols, "linear_normed")) return true;
    return be->ops->linear_normed(be, out, x, n, w, swiglu);
}

bool rv_decoder_layer(rv_backend *be, const rv_decoder_block *b) {
    if (failed(be)) return true;
    return be->ops->decoder_block && !be->fine_only && !be->watch && be->ops->decoder_block(be, b);
}

bool rv_decoder_layers(rv_backend *be, const rv_decoder_block *b, int32_t n) {
    if (failed(be)) return true;
    return be->ops->decoder_blocks && !be->fine_only && n > 0 && n <= RV_BLOCKS_AT_ONCE && be->ops->decoder_blocks(be, b, n);
}

bool rv_tower_layer(rv_backend *be, const rv_vision_block *b) {
    if (failed(be)) return true;
    if (!be->ops->vision_block || be->fine_only || be->watch) return false;
    be->ops->vision_block(be, b);
    return true;
}

bool rv_can_run_ahead(const rv_backend *be) { return !be->watch && be->ops->record && be->ops->choose && be->ops->fetch; }

void rv_best_rows(rv_backend *be, rv_best *out, rv_mat logits) {
    if (failed(be)) return;
    if (!check(be, out && is_mat(logits) && logits.type == RV_F32, "best", "logits must be f32", logits, logits)) return;
    be->ops->best(be, out, logits);
}

void rv_record_tape(rv_backend *be) {
    if (!failed(be)) be->ops->record(be);
}

rv_tape *rv_recorded(rv_backend *be) { return be->ops->recorded(be); }   /* also after an error: recording must end */

void rv_play(rv_backend *be, rv_tape *tape) {
    if (!failed(be) && tape) be->ops->play(be, tape);
}

void rv_erase(rv_backend *be, rv_tape *tape) {
    if (tape) be->ops->erase(be, tape);
}

void rv_choose(rv_backend *be, const rv_answering *a, rv_mat logits) {
    if (failed(be)) return;
    bool ok = is_mat(logits) && logits.type == RV_F32 && a->ids && a->pos && a->slot && a->how && a->seen && a->best;
    if (check(be, ok, "choose", "logits must be f32, and rows have all arrays", logits, logits)) be->ops->choose(be, a, logits);
}

rv_tray *rv_tray_new(rv_backend *be, uint64_t bytes) { return failed(be) ? NULL : be->ops->tray_new(be, bytes); }

void rv_tray_free(rv_backend *be, rv_tray *tray) {
    if (tray) be->ops->tray_free(be, tray);
}

void rv_fetch(rv_backend *be, rv_tray *tray, const void *src, uint64_t bytes) {
    if (!failed(be)) be->ops->fetch(be, tray, src, bytes);
}

const void *rv_fetched(rv_backend *be, rv_tray *tray, rv_error *err) {
    const void *bytes = failed(be) ? NULL : be->ops->fetched(be, tray);
    if (failed(be) && err) *err = be->error;
    return failed(be) ? NULL : bytes;
}

bool rv_can_fill(const rv_backend *be) { return be->ops->fill && be->layout[0]; }

void rv_fill_memory(rv_backend *be, void *dst, const rv_fill *from) {
    if (!failed(be) && from->bytes) be->ops->fill(be, dst, from);
}

bool rv_can_bring(const rv_backend *be) { return be->ops->bring && be->ops->host_alloc; }

void rv_bring(rv_backend *be, int32_t lane, void *dst, const void *host, uint64_t bytes) {
    if (!failed(be) && bytes) be->ops->bring(be, lane, dst, host, bytes);
}

void rv_brought(rv_backend *be, int32_t lane) {
    if (!failed(be)) be->ops->brought(be, lane);
}

void rv_spent(rv_backend *be, int32_t lane) {
    if (!failed(be)) be->ops->spent(be, lane);
}
