/* safetensors.h - reads the header of a .safetensors file that is already in memory, strictly.
 *
 * The one idea: a file is trusted only after all of it is accounted for.  Every tensor's shape times
 * type must equal its byte range, and the ranges together must cover the data exactly, without gaps
 * or overlaps: the rules of Hugging Face's own reader.  Each violation has its own message.
 *
 * Format: u64 little-endian header length, that many bytes of JSON
 *   {"name": {"dtype": "BF16", "shape": [2,3], "data_offsets": [0,12]}, .., "__metadata__": {"k": "v"}}
 * and the data.  Header-only; needs engine/base alone.
 */
#ifndef RV_LOADER_SAFETENSORS_H
#define RV_LOADER_SAFETENSORS_H
#include <inttypes.h>
#include <stdlib.h>

#include "engine/base/dtype.h"
#include "engine/base/json.h"
#include "engine/base/status.h"

enum { RV_SAFETENSORS_MAX_HEADER = 100000000, RV_SAFETENSORS_MAX_DIMS = 8 };

typedef struct rv_safetensors_type {
    const char *name;
    uint32_t    bits;
    rv_dtype    type;                /* RV_DTYPE_COUNT: the engine does not compute with it   */
} rv_safetensors_type;

typedef struct rv_safetensors_tensor {
    const char *name;                /* NUL-terminated                                        */
    const rv_safetensors_type *type;
    int32_t     n_dims;
    int64_t     shape[RV_SAFETENSORS_MAX_DIMS];
    uint64_t    begin, end;          /* in the data                                           */
} rv_safetensors_tensor;

typedef struct rv_safetensors {
    rv_safetensors_tensor *tensors;  /* sorted by name                                        */
    uint32_t       count;
    const uint8_t *data;             /* in the caller's memory                                */
    uint64_t       data_bytes;
    char          *names;
} rv_safetensors;

typedef struct rv_safetensors_reader {       /* internal: one file being read */
    rv_json         j;
    const char     *where;
    rv_error       *err;
    rv_safetensors *out;
    size_t          capacity, names_used;
} rv_safetensors_reader;

/* NULL when there is no such type. */
static inline const rv_safetensors_type *rv_safetensors_find_type(const rv_json *j) {
    static const rv_safetensors_type types[] = {
        { "BF16", 16, RV_BF16 }, { "F16", 16, RV_F16 }, { "F32", 32, RV_F32 }, { "I8", 8, RV_I8 }, { "U8", 8, RV_U8 },
        { "I32", 32, RV_I32 }, { "I64", 64, RV_I64 }, { "BOOL", 8, RV_DTYPE_COUNT }, { "I16", 16, RV_DTYPE_COUNT },
        { "U16", 16, RV_DTYPE_COUNT }, { "U32", 32, RV_DTYPE_COUNT }, { "U64", 64, RV_DTYPE_COUNT },
        { "F64", 64, RV_DTYPE_COUNT }, { "C64", 64, RV_DTYPE_COUNT }, { "F8_E4M3", 8, RV_DTYPE_COUNT },
        { "F8_E5M2", 8, RV_DTYPE_COUNT }, { "F8_E8M0", 8, RV_DTYPE_COUNT }, { "F8_E4M3FNUZ", 8, RV_DTYPE_COUNT },
        { "F8_E5M2FNUZ", 8, RV_DTYPE_COUNT }, { "F6_E2M3", 6, RV_DTYPE_COUNT }, { "F6_E3M2", 6, RV_DTYPE_COUNT },
        { "F4", 4, RV_DTYPE_COUNT },
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (rv_json_is(j, types[i].name)) return &types[i];
    return NULL;
}

static inline rv_status rv_safetensors_bad_json(const rv_safetensors_reader *r, const char *wanted) {
    const rv_json *j = &r->j;
    if (j->error)
        return rv_fail(r->err, RV_ERR_FORMAT, "safetensors header: not valid JSON: %s at byte %zu (%s)", j->error,
                       j->at + 8, r->where);
    return rv_fail(r->err, RV_ERR_FORMAT, "safetensors header: %s was expected at byte %zu (%s)", wanted, j->start + 8,
                   r->where);
}

static inline rv_status rv_safetensors_bad(const rv_safetensors_reader *r, const char *tensor, const char *why) {
    return rv_fail(r->err, RV_ERR_FORMAT, "tensor \"%.160s\": %s (%s)", tensor, why, r->where);
}

static inline rv_status rv_safetensors_metadata(rv_safetensors_reader *r) {
    rv_json_token token;
    if (rv_json_next(&r->j) != RV_JSON_OBJECT) return rv_safetensors_bad_json(r, "__metadata__ as an object");
    while ((token = rv_json_next(&r->j)) == RV_JSON_KEY)
        if (rv_json_next(&r->j) != RV_JSON_STRING) return rv_safetensors_bad_json(r, "a string inside __metadata__");
    return token == RV_JSON_OBJECT_END ? RV_OK : rv_safetensors_bad_json(r, "a key of __metadata__");
}

static inline rv_status rv_safetensors_shape(rv_safetensors_reader *r, rv_safetensors_tensor *t) {
    rv_json_token token;
    if (rv_json_next(&r->j) != RV_JSON_ARRAY) return rv_safetensors_bad_json(r, "shape as an array");
    while ((token = rv_json_next(&r->j)) == RV_JSON_NUMBER) {
        if (t->n_dims == RV_SAFETENSORS_MAX_DIMS)
            return rv_fail(r->err, RV_ERR_UNSUPPORTED, "tensor \"%.160s\": has more than %d dimensions (%s)", t->name,
                           RV_SAFETENSORS_MAX_DIMS, r->where);
        int64_t extent;
        if (!rv_json_int64(&r->j, &extent) || extent < 0)
            return rv_safetensors_bad(r, t->name, "shape: must hold whole numbers from 0 to 2^63-1");
        t->shape[t->n_dims++] = extent;
    }
    return token == RV_JSON_ARRAY_END ? RV_OK : rv_safetensors_bad_json(r, "a number in shape");
}

static inline rv_status rv_safetensors_offsets(rv_safetensors_reader *r, rv_safetensors_tensor *t) {
    uint64_t *const ends[2] = { &t->begin, &t->end };
    if (rv_json_next(&r->j) != RV_JSON_ARRAY) return rv_safetensors_bad_json(r, "data_offsets as an array");
    for (int i = 0; i < 2; i++) {
        if (rv_json_next(&r->j) != RV_JSON_NUMBER) return rv_safetensors_bad_json(r, "a number in data_offsets");
        if (!rv_json_uint64(&r->j, ends[i]))
            return rv_safetensors_bad(r, t->name, "data_offsets: must hold two whole numbers from 0 to 2^64-1");
    }
    if (rv_json_next(&r->j) != RV_JSON_ARRAY_END) return rv_safetensors_bad_json(r, "] after two data_offsets");
    return RV_OK;
}

static inline rv_status rv_safetensors_check(const rv_safetensors_reader *r, const rv_safetensors_tensor *t) {
    uint64_t bits = t->type->bits;
    for (int32_t d = 0; d < t->n_dims; d++)
        if (__builtin_mul_overflow(bits, (uint64_t)t->shape[d], &bits))
            return rv_safetensors_bad(r, t->name, "shape: the size does not fit in 64 bits");
    if (bits % 8) return rv_safetensors_bad(r, t->name, "shape: the size is not a whole number of bytes");
    if (t->begin > t->end) return rv_safetensors_bad(r, t->name, "data_offsets: the end is before the beginning");
    if (t->end > r->out->data_bytes)
        return rv_fail(r->err, RV_ERR_FORMAT, "tensor \"%.160s\": data_offsets: ends at byte %" PRIu64 " of the data, "
                       "but the file holds only %" PRIu64 ": cut short? copy or download it again (%s)",
                       t->name, t->end, r->out->data_bytes, r->where);
    if (t->end - t->begin != bits / 8)
        return rv_fail(r->err, RV_ERR_FORMAT, "tensor \"%.160s\": shape and dtype make %" PRIu64 " bytes, but "
                       "data_offsets span %" PRIu64 " (%s)", t->name, bits / 8, t->end - t->begin, r->where);
    return RV_OK;
}

/* One tensor's object, after its key. */
static inline rv_status rv_safetensors_entry(rv_safetensors_reader *r, rv_safetensors_tensor *t) {
    enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4 };
    int seen = 0;
    rv_json_token token;
    rv_status st;
    if (rv_json_next(&r->j) != RV_JSON_OBJECT) return rv_safetensors_bad_json(r, "a tensor's object");
    while ((token = rv_json_next(&r->j)) == RV_JSON_KEY) {
        int field = rv_json_is(&r->j, "dtype") ? DTYPE : rv_json_is(&r->j, "shape") ? SHAPE
                  : rv_json_is(&r->j, "data_offsets") ? OFFSETS : 0;
        if (seen & field) return rv_safetensors_bad(r, t->name, "dtype, shape or data_offsets is given twice");
        seen |= field;
        if (field == SHAPE) st = rv_safetensors_shape(r, t);
        else if (field == OFFSETS) st = rv_safetensors_offsets(r, t);
        else if (field == 0) st = rv_json_skip(&r->j) ? RV_OK : rv_safetensors_bad_json(r, "a value");
        else if (rv_json_next(&r->j) != RV_JSON_STRING) st = rv_safetensors_bad_json(r, "dtype as a string");
        else if ((t->type = rv_safetensors_find_type(&r->j)) != NULL) st = RV_OK;
        else st = rv_fail(r->err, RV_ERR_FORMAT, "tensor \"%.160s\": dtype: \"%.*s\" is no safetensors type (%s)",
                          t->name, r->j.slice_bytes < 40 ? (int)r->j.slice_bytes : 40, r->j.slice, r->where);
        if (st) return st;
    }
    if (token != RV_JSON_OBJECT_END) return rv_safetensors_bad_json(r, "a key");
    if (!(seen & DTYPE)) return rv_safetensors_bad(r, t->name, "dtype is missing");
    if (!(seen & SHAPE)) return rv_safetensors_bad(r, t->name, "shape is missing");
    if (!(seen & OFFSETS)) return rv_safetensors_bad(r, t->name, "data_offsets is missing");
    return rv_safetensors_check(r, t);
}

/* The key just read becomes a new tensor's name. */
static inline rv_status rv_safetensors_add(rv_safetensors_reader *r, rv_safetensors_tensor **added) {
    rv_safetensors *out = r->out;
    if (out->count == r->capacity) {
        size_t capacity = r->capacity ? r->capacity * 2 : 256;
        void *grown = realloc(out->tensors, capacity * sizeof *out->tensors);
        if (!grown) return rv_fail_memory(r->err, "tensor table");
        out->tensors = grown;
        r->capacity = capacity;
    }
    char *name = out->names + r->names_used;         /* decoding never lengthens: the pool is the header's size */
    size_t length = rv_json_string(&r->j, name);
    name[length] = '\0';
    r->names_used += length + 1;
    if (memchr(name, '\0', length)) return rv_safetensors_bad(r, name, "the name holds a NUL character");
    *added = &out->tensors[out->count++];
    **added = (rv_safetensors_tensor){ .name = name };
    return RV_OK;
}

static inline rv_status rv_safetensors_header(rv_safetensors_reader *r) {
    bool metadata = false;
    rv_json_token token;
    rv_status st;
    if (rv_json_next(&r->j) != RV_JSON_OBJECT) return rv_safetensors_bad_json(r, "an object");
    while ((token = rv_json_next(&r->j)) == RV_JSON_KEY) {
        if (rv_json_is(&r->j, "__metadata__")) {
            if (metadata) return rv_safetensors_bad(r, "__metadata__", "is given twice");
            metadata = true;
            st = rv_safetensors_metadata(r);
        } else {
            rv_safetensors_tensor *t = NULL;
            st = rv_safetensors_add(r, &t);
            if (!st) st = rv_safetensors_entry(r, t);
        }
        if (st) return st;
    }
    if (token != RV_JSON_OBJECT_END) return rv_safetensors_bad_json(r, "a tensor's name");
    return rv_json_next(&r->j) == RV_JSON_END ? RV_OK : rv_safetensors_bad_json(r, "the end");
}

static inline int rv_safetensors_by_place(const void *a, const void *b) {
    const rv_safetensors_tensor *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

static inline int rv_safetensors_by_name(const void *a, const void *b) {
    return strcmp(((const rv_safetensors_tensor *)a)->name, ((const rv_safetensors_tensor *)b)->name);
}

/* No gap, no overlap, nothing left over, no name twice; leaves the tensors sorted by name. */
static inline rv_status rv_safetensors_cover(const rv_safetensors_reader *r) {
    rv_safetensors *out = r->out;
    uint64_t at = 0;
    if (out->count) qsort(out->tensors, out->count, sizeof *out->tensors, rv_safetensors_by_place);
    for (uint32_t i = 0; i < out->count; i++) {
        const rv_safetensors_tensor *t = &out->tensors[i];
        if (t->begin < at) return rv_safetensors_bad(r, t->name, "data_offsets: overlaps another tensor");
        if (t->begin > at)
            return rv_fail(r->err, RV_ERR_FORMAT, "tensor \"%.160s\": data_offsets: %" PRIu64 " bytes before it belong "
                           "to no tensor (%s)", t->name, t->begin - at, r->where);
        at = t->end;
    }
    if (at != out->data_bytes)
        return rv_fail(r->err, RV_ERR_FORMAT, "safetensors file: %" PRIu64 " bytes after the last tensor belong to "
                       "none (%s)", out->data_bytes - at, r->where);
    if (out->count) qsort(out->tensors, out->count, sizeof *out->tensors, rv_safetensors_by_name);
    for (uint32_t i = 1; i < out->count; i++)
        if (strcmp(out->tensors[i - 1].name, out->tensors[i].name) == 0)
            return rv_safetensors_bad(r, out->tensors[i].name, "is there twice");
    return RV_OK;
}

/* The first eight bytes' checks: *header is set to the length of the JSON. */
static inline rv_status rv_safetensors_length(const uint8_t *file, uint64_t bytes, const char *where, uint64_t *header,
                                              rv_error *err) {
    if (bytes < 8)
        return rv_fail(err, RV_ERR_FORMAT, "safetensors file: is only %" PRIu64 " bytes long: cut short? copy or "
                       "download it again (%s)", bytes, where);
    if (memcmp(file, "version ", 8) == 0)
        return rv_fail(err, RV_ERR_FORMAT, "safetensors file: is a Git LFS pointer, not the weights: run \"git lfs "
                       "pull\" in the model folder (%s)", where);
    if (memcmp(file, "PK\3\4", 4) == 0)
        return rv_fail(err, RV_ERR_UNSUPPORTED, "safetensors file: is a zip archive (PyTorch .bin or .pth?): save the "
                       "model as safetensors (%s)", where);
    uint64_t length = 0;
    for (int i = 8; i-- > 0;) length = length << 8 | file[i];
    if (length > RV_SAFETENSORS_MAX_HEADER)
        return rv_fail(err, RV_ERR_FORMAT, "safetensors file: claims a header of %" PRIu64 " bytes, more than the "
                       "format's %d: not a safetensors file, or damaged (%s)",
                       length, RV_SAFETENSORS_MAX_HEADER, where);
    if (length > bytes - 8)
        return rv_fail(err, RV_ERR_FORMAT, "safetensors file: the header of %" PRIu64 " bytes is longer than the file: "
                       "cut short? copy or download it again (%s)", length, where);
    if (length < 2 || file[8] != '{')
        return rv_fail(err, RV_ERR_FORMAT, "safetensors file: the header does not begin with { (%s)", where);
    *header = length;
    return RV_OK;
}

static inline void rv_safetensors_free(rv_safetensors *s) {
    if (!s) return;
    free(s->tensors);
    free(s->names);
    *s = (rv_safetensors){ 0 };
}

/* Reads and checks the header of the file at file[0..bytes); `where` names it in messages.  The
 * data itself is not touched.  out: free with rv_safetensors_free; out->data points into `file`. */
static inline rv_status rv_safetensors_read(const void *file, uint64_t bytes, const char *where, rv_safetensors *out,
                                            rv_error *err) {
    const uint8_t *start = file;
    uint64_t header = 0;
    rv_status st = rv_safetensors_length(start, bytes, where, &header, err);
    if (st) return st;
    rv_safetensors found = { .data = start + 8 + header, .data_bytes = bytes - 8 - header };
    rv_safetensors_reader r = { .where = where, .err = err, .out = &found };
    r.j = rv_json_open((const char *)start + 8, (size_t)header);
    found.names = malloc((size_t)header);
    if (!found.names) return rv_fail_memory(err, "tensor names");
    TRY(rv_safetensors_header(&r));
    TRY(rv_safetensors_cover(&r));
    *out = found;
    return RV_OK;
done:
    rv_safetensors_free(&found);
    return st;
}
#endif
