/* quantise.c - rv_quantise: a model folder's weights as bitsandbytes would have saved them.
 *
 * The one idea: a weight's codes and scales are pieces of work like any other (engine/shards.h): rows of int8, runs of
 * blocks of 4 bits.  Only the second level of 4-bit scales needs all of a weight's absmaxes: whoever finishes its last
 * piece does that.  So nothing is held but the absmaxes of the weights being worked on.
 * Source: spec quantisation.md, sections 1.7 and 2.6.
 */
#include "engine/quantise.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/abi.h"
#include "loader/bnb.h"

enum { PIECE = 1 << 20,          /* weights of a unit of work; a multiple of RV_BLOCK4          */
       COPY_BYTES = 1 << 22,
       STATE_BYTES = 256 };      /* the quant_state's JSON, filled up with blanks: its length must be known before its offset is */
#define SHARD_BYTES UINT64_C(5000000000)

/* The tensors of a quantised weight, behind its own: int8 has the first (SCB) and the last (weight_format). */
enum { CODES, ABSMAX, MAP, NESTED_ABSMAX, NESTED_MAP, STATE };

/* What becomes of the tensor at the same place in rv_shards; of those that join it, nothing. */
typedef struct source {
    const rv_tensor *t;
    rv_format        format;
    int64_t          rows, cols;
    float           *absmax;             /* while pieces are worked on                           */
    uint32_t         left;
} source;

typedef struct job {
    rv_quantise_options options;
    rv_files            files;
    rv_modules          modules;
    rv_format           format;
    rv_quantisers       quantise;
    rv_shards           out;
    source             *of;
    size_t              room;
    uint32_t            quantised;
    pthread_mutex_t     lock;            /* of absmax and left of every source                   */
} job;

static void say(void *user, const char *line) {
    const job *j = user;
    if (j->options.log) j->options.log(j->options.log_user, RV_LOG_WARNING, line);
}

/* ---- the plan ---- */

static rv_status add(job *j, const source *of, const char *tail, const char *type, int32_t n_dims, const int64_t *shape, uint64_t bytes, rv_error *err) {
    char name[RV_MODULE_BYTES * 2];
    const size_t n = strlen(of->t->file_name);
    /* X.SCB stands beside X.weight, the others behind it. */
    if (tail[0] == '/') snprintf(name, sizeof name, "%.*s.%s", (int)(n - strlen(".weight")), of->t->file_name, tail + 1);
    else snprintf(name, sizeof name, "%s%s", of->t->file_name, tail);
    if (j->out.n == j->room) {
        size_t more = j->room ? 2 * j->room : 1024;
        source *at = realloc(j->of, more * sizeof *at);
        if (!at) return rv_fail_memory(err, "quantise");
        j->of = at;
        j->room = more;
    }
    rv_shard_tensor t = { .name = name, .type = type, .n_dims = n_dims, .bytes = bytes, .joins = *tail != '\0' };
    for (int32_t d = 0; d < n_dims; d++) t.shape[d] = shape[d];
    j->of[j->out.n] = *of;
    return rv_shards_add(&j->out, &t, err);
}

#define SHAPE(...) (const int64_t[]){ __VA_ARGS__ }

static rv_status add_4bit(job *j, const source *of, rv_error *err) {
    const int64_t n = of->rows * of->cols, blocks = n / RV_BLOCK4, runs = (blocks + RV_NESTED_BLOCK - 1) / RV_NESTED_BLOCK;
    const bool nested = !j->options.nf4_single;
    rv_status st = RV_OK;
    TRY(add(j, of, "", "U8", 2, SHAPE(n / 2, 1), (uint64_t)n / 2, err));
    TRY(add(j, of, ".absmax", nested ? "U8" : "F32", 1, SHAPE(blocks), (uint64_t)blocks * (nested ? 1 : 4), err));
    TRY(add(j, of, ".quant_map", "F32", 1, SHAPE(16), 16 * 4, err));
    if (nested) {
        TRY(add(j, of, ".nested_absmax", "F32", 1, SHAPE(runs), (uint64_t)runs * 4, err));
        TRY(add(j, of, ".nested_quant_map", "F32", 1, SHAPE(256), 256 * 4, err));
    }
    TRY(add(j, of, ".quant_state.bitsandbytes__nf4", "U8", 1, SHAPE(STATE_BYTES), STATE_BYTES, err));
done:
    return st;
}

static rv_status plan_one(void *user, const rv_tensor_want *want, rv_error *err) {
    job *j = user;
    const rv_tensor *t = rv_checkpoint_find(j->files.checkpoint, want->name);
    const rv_format asked = rv_modules_format(&j->modules, want->name, j->format);
    source of = { .t = t, .format = rv_modules_format_of(&j->modules, want, j->format) };
    rv_status st = RV_OK;
    if (rv_checkpoint_format(j->files.checkpoint, t) != RV_FORMAT_PLAIN)
        return rv_fail(err, RV_ERR_UNSUPPORTED, "tensor %s: is quantised already: start from the 16-bit or 32-bit model (%s)", t->file_name, t->file);
    if (asked != RV_FORMAT_PLAIN && asked != j->format)
        return rv_fail(err, RV_ERR_UNSUPPORTED, "keep list: %s as %s: bitsandbytes' folders hold one format; only 16bit can be kept", t->file_name,
                       rv_format_name(asked));
    of.rows = want->shape[0], of.cols = want->shape[1];
    if (of.format != asked) {
        char line[256];
        snprintf(line, sizeof line, "%.160s: its %" PRId64 " columns are no multiple of %d: it stays as it is", t->file_name, of.cols, RV_BLOCK4);
        say(j, line);
    }
    j->quantised += of.format != RV_FORMAT_PLAIN;
    if (of.format == RV_FORMAT_NF4) return add_4bit(j, &of, err);
    if (of.format == RV_FORMAT_PLAIN) return add(j, &of, "", t->type_name, want->n_dims, want->shape, t->bytes, err);
    TRY(add(j, &of, "", "I8", 2, want->shape, (uint64_t)(of.rows * of.cols), err));
    TRY(add(j, &of, "/SCB", "F32", 1, want->shape, (uint64_t)of.rows * 4, err));
    TRY(add(j, &of, "/weight_format", "U8", 0, NULL, 1, err));
done:
    return st;
}

/* ---- the work ---- */

static int64_t rows_a_unit(const source *of) { return of->cols < PIECE ? PIECE / of->cols : 1; }

static uint32_t units_of(void *user, size_t i) {
    const source *of = &((const job *)user)->of[i];
    if (of->format == RV_FORMAT_PLAIN) return (uint32_t)((of->t->bytes + COPY_BYTES - 1) / COPY_BYTES);
    if (of->format == RV_FORMAT_INT8) return (uint32_t)((of->rows + rows_a_unit(of) - 1) / rows_a_unit(of));
    return (uint32_t)((of->rows * of->cols + PIECE - 1) / PIECE);
}

/* What a thread needs for its largest unit. */
static size_t memory_of(const job *j) {
    size_t most = PIECE / 2;
    for (size_t i = 0; i < j->out.n; i++) {
        const source *of = &j->of[i];
        if (of->format != RV_FORMAT_INT8) continue;
        size_t bytes = (size_t)(rows_a_unit(of) * of->cols) + 64 + (size_t)rows_a_unit(of) * sizeof(float);
        if (bytes > most) most = bytes;
    }
    return most;
}

static rv_status fail_infinite(const source *of, rv_error *err) {
    return rv_fail(err, RV_ERR_FORMAT, "tensor %s: holds NaN, Inf%s: it cannot be quantised (%s)", of->t->file_name,
                   of->format == RV_FORMAT_INT8 ? ", or numbers beyond 65504" : "", of->t->file);
}

static rv_status run_int8(job *j, const source *of, size_t i, uint32_t unit, int8_t *memory, rv_error *err) {
    const int64_t from = (int64_t)unit * rows_a_unit(of), most = rows_a_unit(of), n = of->rows - from < most ? of->rows - from : most;
    const size_t row = (size_t)of->cols * rv_dtype_size(of->t->type);
    float *scale = (float *)(void *)(memory + (n * of->cols + 63) / 64 * 64);
    const char *data = (const char *)of->t->data + (size_t)from * row;
    rv_status st = RV_OK;
    if (!rv_all_finite(data, of->t->type, n * of->cols)) return fail_infinite(of, err);
    for (int64_t r = 0; r < n; r++) {
        scale[r] = j->quantise.int8_weights(memory + r * of->cols, data + (size_t)r * row, of->t->type, of->cols);
        if (!isfinite(scale[r])) return fail_infinite(of, err);
    }
    TRY(rv_shards_put(&j->out, i, (uint64_t)(from * of->cols), memory, (uint64_t)(n * of->cols), err));
    TRY(rv_shards_put(&j->out, i + 1, (uint64_t)from * 4, scale, (uint64_t)n * 4, err));
    if (unit == 0) TRY(rv_shards_put(&j->out, i + 2, 0, "", 1, err));        /* 0: row by row            */
done:
    return st;
}

/* The text as bitsandbytes writes it, keys in its order, and blanks. */
static void write_state(const source *of, bool nested, float offset, char out[STATE_BYTES]) {
    static const char *const types[] = { [RV_F32] = "float32", [RV_F16] = "float16", [RV_BF16] = "bfloat16" };
    rv_string s = { 0 };
    rv_string_addf(&s, "{\"quant_type\": \"nf4\", \"blocksize\": %d, \"dtype\": \"%s\", \"shape\": [%" PRId64 ", %" PRId64 "]", RV_BLOCK4,
                   types[of->t->type], of->rows, of->cols);
    if (nested) rv_string_addf(&s, ", \"nested_blocksize\": %d, \"nested_dtype\": \"float32\", \"nested_offset\": %.17g", RV_NESTED_BLOCK, (double)offset);
    rv_string_addz(&s, "}");
    memset(out, ' ', STATE_BYTES);
    if (!s.failed && s.bytes <= STATE_BYTES) memcpy(out, s.data, s.bytes);
    rv_string_free(&s);
}

/* All pieces of a weight are done: its scales and tables. */
static rv_status finish_4bit(job *j, const source *of, size_t i, rv_error *err) {
    const int64_t blocks = of->rows * of->cols / RV_BLOCK4, runs = (blocks + RV_NESTED_BLOCK - 1) / RV_NESTED_BLOCK;
    const bool single = j->options.nf4_single != 0;
    uint8_t *nested = single ? NULL : malloc((size_t)blocks);
    float *scales = single ? NULL : malloc((size_t)runs * sizeof *scales), offset = 0;
    char text[STATE_BYTES];
    rv_status st = RV_OK;
    if (!single && (!nested || !scales)) TRY(rv_fail_memory(err, "quantise"));
    TRY(rv_shards_put(&j->out, i + MAP, 0, rv_nf4_map, sizeof rv_nf4_map, err));
    if (single) TRY(rv_shards_put(&j->out, i + ABSMAX, 0, of->absmax, (uint64_t)blocks * 4, err));
    else {
        offset = rv_nested_quantise(nested, scales, of->absmax, blocks);
        TRY(rv_shards_put(&j->out, i + ABSMAX, 0, nested, (uint64_t)blocks, err));
        TRY(rv_shards_put(&j->out, i + NESTED_ABSMAX, 0, scales, (uint64_t)runs * 4, err));
        TRY(rv_shards_put(&j->out, i + NESTED_MAP, 0, rv_nested_map, 256 * sizeof *rv_nested_map, err));
    }
    write_state(of, !single, offset, text);
    TRY(rv_shards_put(&j->out, i + (single ? NESTED_ABSMAX : STATE), 0, text, STATE_BYTES, err));
done:
    free(nested);
    free(scales);
    return st;
}

static rv_status run_4bit(job *j, source *of, size_t i, uint32_t unit, uint8_t *memory, rv_error *err) {
    const int64_t all = of->rows * of->cols, from = (int64_t)unit * PIECE, n = all - from < PIECE ? all - from : PIECE;
    const char *data = (const char *)of->t->data + (size_t)from * rv_dtype_size(of->t->type);
    pthread_mutex_lock(&j->lock);
    if (!of->absmax && (of->absmax = malloc((size_t)(all / RV_BLOCK4) * sizeof(float)))) of->left = units_of(j, i);
    float *absmax = of->absmax;
    pthread_mutex_unlock(&j->lock);
    if (!absmax) return rv_fail_memory(err, "quantise");
    if (!rv_all_finite(data, of->t->type, n)) return fail_infinite(of, err);
    j->quantise.nf4_quantise(memory, absmax + from / RV_BLOCK4, data, of->t->type, n);
    rv_status st = rv_shards_put(&j->out, i, (uint64_t)from / 2, memory, (uint64_t)n / 2, err);
    pthread_mutex_lock(&j->lock);
    const bool last = --of->left == 0;
    pthread_mutex_unlock(&j->lock);
    if (st || !last) return st;
    st = finish_4bit(j, of, i, err);
    free(of->absmax);
    of->absmax = NULL;
    return st;
}

static rv_status run(void *user, rv_shards *out, size_t i, uint32_t unit, void *memory, rv_error *err) {
    job *j = user;
    source *of = &j->of[i];
    if (of->format == RV_FORMAT_INT8) return run_int8(j, of, i, unit, memory, err);
    if (of->format == RV_FORMAT_NF4) return run_4bit(j, of, i, unit, memory, err);
    const uint64_t from = (uint64_t)unit * COPY_BYTES, left = of->t->bytes - from;
    return rv_shards_put(out, i, from, (const char *)of->t->data + from, left < COPY_BYTES ? left : COPY_BYTES, err);
}

/* ---- options, and the folder ---- */

static rv_status check_options(job *j, rv_error *err) {
    const rv_quantise_options *o = &j->options;
    if (o->weights != RV_WEIGHTS_INT8 && o->weights != RV_WEIGHTS_NF4)
        return rv_fail(err, RV_ERR_ARGUMENT, "rv_quantise_options.weights: must be RV_WEIGHTS_INT8 or RV_WEIGHTS_NF4, is %d", o->weights);
    if (o->threads < 0 || o->threads > 1024) return rv_fail(err, RV_ERR_ARGUMENT, "rv_quantise_options.threads: must be from 0 to 1024, is %d", o->threads);
    if (o->nf4_single && o->weights == RV_WEIGHTS_INT8)
        return rv_fail(err, RV_ERR_ARGUMENT, "rv_quantise_options.nf4_single: only 4-bit weights have scales that can be nested");
    j->format = o->weights == RV_WEIGHTS_INT8 ? RV_FORMAT_INT8 : RV_FORMAT_NF4;
    j->quantise = rv_cpu_quantisers();
    j->modules = (rv_modules){ .preset = o->modules, .skip = o->skip, .keep = o->keep };
    return RV_OK;
}

static rv_status write_folder(job *j, const char *model_dir, const char *out_dir, rv_error *err) {
    const rv_shard_work work = { .units = units_of, .run = run, .user = j, .memory_bytes = memory_of(j), .threads = j->options.threads,
                                 .progress = j->options.progress, .progress_user = j->options.progress_user };
    rv_string others = { 0 };
    rv_folder folder;
    uint64_t bytes = j->out.file_bytes;
    rv_status st = rv_quantise_list_files(model_dir, &others, &bytes, err);
    if (!st) st = rv_folder_take(out_dir, &folder, err);
    if (st) return rv_string_free(&others), st;
    rv_shards_name(&j->out, &folder);
    rv_folder_add(&folder, "config.json");
    for (size_t at = 0; at < others.bytes; at += strlen(others.data + at) + 1) rv_folder_add(&folder, others.data + at);
    TRY(rv_folder_check_room(out_dir, bytes, err));
    TRY(rv_checkpoint_recheck(j->files.checkpoint, err));
    TRY(rv_folder_begin(&folder, err));
    TRY(rv_quantise_write_config(model_dir, &folder, &j->files.config, &j->modules, j->format, !j->options.nf4_single, err));
    TRY(rv_quantise_copy_files(model_dir, &folder, &others, err));
    TRY(rv_shards_write(&j->out, &folder, &work, err));
    TRY(rv_folder_publish(&folder, err));
done:
    rv_folder_leave(&folder, st);
    rv_string_free(&others);
    return st;
}

rv_status rv_quantise(const char *model_dir, const char *out_dir, const rv_quantise_options *options, rv_quantise_info *out, rv_error *err) {
    if (!model_dir) return rv_fail(err, RV_ERR_ARGUMENT, "rv_quantise: model_dir is NULL");
    rv_status st = RV_OK;
    job *j = calloc(1, sizeof *j);
    if (!j) return rv_fail_memory(err, "quantise");
    pthread_mutex_init(&j->lock, NULL);
    TRY(rv_abi_read(&j->options, sizeof j->options, options, "rv_quantise_options", err));
    TRY(check_options(j, err));
    if (out) TRY(rv_abi_fillable(out, "rv_quantise_info", err));
    TRY(rv_files_open(model_dir, false, &j->files, err));
    TRY(rv_modules_check(&j->modules, &j->files.config, j->format, say, j, err));
    TRY(rv_weights_each(&j->files.config, plan_one, j, err));
    TRY(rv_shards_cut(&j->out, j->options.shard_bytes ? j->options.shard_bytes : SHARD_BYTES, 0, err));
    if (out_dir) TRY(write_folder(j, model_dir, out_dir, err));
    if (out) {
        rv_quantise_info info = { .tensors = (uint32_t)j->out.n, .files = (uint32_t)j->out.n_files, .quantised = j->quantised,
                                  .bytes = j->out.bytes, .file_bytes = j->out.file_bytes };
        TRY(rv_abi_write(out, &info, sizeof info, "rv_quantise_info", err));
    }
done:
    for (size_t i = 0; i < j->out.n; i++) free(j->of[i].absmax);
    rv_files_close(&j->files);
    rv_shards_free(&j->out);
    pthread_mutex_destroy(&j->lock);
    free(j->of);
    free(j);
    return st;
}
