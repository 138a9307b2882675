/* checkpoint.c - opens the shards of a model, and gives every tensor its canonical name.
 *
 * The one idea: a tensor's file name is matched against a short table of prefixes, one row per place
 * where some version of transformers puts that part of the model; the first match wins.
 */
#include "loader/checkpoint.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/file.h"
#include "engine/base/text.h"
#include "loader/index.h"
#include "loader/safetensors.h"

_Static_assert((int)RV_MAX_DIMS == (int)RV_SAFETENSORS_MAX_DIMS, "a tensor's shape is copied as it is");

enum { SAMPLE = 4096 };               /* bytes of a tensor that go into the key, three times     */

typedef struct shard {
    char          *path;
    int            fd;               /* kept open to see the mapped file, not its name, change  */
    rv_map         map;
    rv_safetensors header;
} shard;

struct rv_checkpoint {
    shard    *shards;
    uint32_t  n_shards;
    rv_tensor *tensors;              /* sorted by canonical name */
    uint32_t  count;
    char     *names;                 /* the canonical ones       */
    rv_layout layout;
};

typedef struct prefix { const char *file, *canonical; rv_layout layout; } prefix;

/* The order matters: "model." is the text model only where no longer prefix is in use. */
static const prefix prefixes[] = {
    { "language_model.model.", "text.", RV_LAYOUT_OLD },
    { "model.language_model.", "text.", RV_LAYOUT_NEW },
    { "language_model.lm_head.", "lm_head.", RV_LAYOUT_OLD },
    { "model.vision_model.", "vision.", RV_LAYOUT_NEW },
    { "model.multi_modal_projector.", "projector.", RV_LAYOUT_NEW },
    { "vision_model.", "vision.", RV_LAYOUT_OLD },
    { "multi_modal_projector.", "projector.", RV_LAYOUT_OLD },
};

static bool begins_with(const char *text, const char *head) { return strncmp(text, head, strlen(head)) == 0; }

static bool ends_with(const char *text, const char *tail) {
    size_t n = strlen(text), m = strlen(tail);
    return n >= m && strcmp(text + n - m, tail) == 0;
}

static const char *file_part(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static const prefix *find_prefix(const char *name) {
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (begins_with(name, prefixes[i].file)) return &prefixes[i];
    return NULL;
}

static const char *without_peft(const char *name) {
    static const char peft[] = "base_model.model.";
    return begins_with(name, peft) ? name + sizeof peft - 1 : name;
}

/* Tables that old exporters stored although every reader computes them. */
static bool stray(const char *name) {
    static const char *const tails[] = { "rotary_emb.inv_freq", "rope_freqs", "rope_freqs.weight", "rope.freqs" };
    for (size_t i = 0; i < sizeof tails / sizeof *tails; i++) {
        size_t n = strlen(name), m = strlen(tails[i]);
        if (ends_with(name, tails[i]) && (n == m || name[n - m - 1] == '.')) return true;
    }
    return false;
}

static rv_layout find_layout(const rv_checkpoint *c) {
    bool text_only = false, new_names = false;
    for (uint32_t s = 0; s < c->n_shards; s++)
        for (uint32_t i = 0; i < c->shards[s].header.count; i++) {
            const char *name = without_peft(c->shards[s].header.tensors[i].name);
            const prefix *p = find_prefix(name);
            if (p && p->layout == RV_LAYOUT_OLD) return RV_LAYOUT_OLD;
            if (p) new_names = true;
            else if (begins_with(name, "model.")) text_only = true;
        }
    return new_names ? RV_LAYOUT_NEW : text_only ? RV_LAYOUT_TEXT_ONLY : RV_LAYOUT_OLD;
}

/* Writes the canonical name, never longer than file_name; a name of no known layout stays as it is. */
static void write_canonical(char *out, const char *file_name, rv_layout layout) {
    const char *name = without_peft(file_name), *head = "";
    const prefix *p = find_prefix(name);
    if (p) {
        head = p->canonical;
        name += strlen(p->file);
    } else if (layout == RV_LAYOUT_TEXT_ONLY && begins_with(name, "model.")) {
        head = "text.";
        name += strlen("model.");
    } else if (!begins_with(name, "lm_head.")) {
        name = file_name;
    }
    memcpy(out, head, strlen(head));
    strcpy(out + strlen(head), name);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const rv_tensor *)a)->name, ((const rv_tensor *)b)->name);
}

static rv_tensor make_tensor(const shard *s, const rv_safetensors_tensor *t, const char *name) {
    rv_tensor out = { .name = name, .file_name = t->name, .file = s->path, .type = t->type->type,
                      .type_name = t->type->name, .n_dims = t->n_dims, .data = s->header.data + t->begin,
                      .bytes = t->end - t->begin };
    memcpy(out.shape, t->shape, sizeof out.shape);
    return out;
}

/* Fills c->tensors from the shards' headers. */
static rv_status collect(rv_checkpoint *c, rv_error *err) {
    size_t count = 0, name_bytes = 0;
    for (uint32_t s = 0; s < c->n_shards; s++)
        for (uint32_t i = 0; i < c->shards[s].header.count; i++) {
            const char *name = c->shards[s].header.tensors[i].name;
            if (strstr(name, ".lora_A.") || strstr(name, ".lora_B."))
                return rv_fail(err, RV_ERR_UNSUPPORTED, "tensor \"%.160s\": a LoRA adapter that is not merged: "
                               "merge it into the model first (peft: merge_and_unload, then save_pretrained) (%s)",
                               name, c->shards[s].path);
            count++;
            name_bytes += strlen(name) + 1;
        }
    if (count > UINT32_MAX) return rv_fail(err, RV_ERR_FORMAT, "checkpoint: too many tensors");
    c->tensors = calloc(count ? count : 1, sizeof *c->tensors);
    c->names = malloc(name_bytes ? name_bytes : 1);
    if (!c->tensors || !c->names) return rv_fail_memory(err, "tensor table");
    c->layout = find_layout(c);
    char *name = c->names;
    for (uint32_t s = 0; s < c->n_shards; s++)
        for (uint32_t i = 0; i < c->shards[s].header.count; i++) {
            const rv_safetensors_tensor *t = &c->shards[s].header.tensors[i];
            if (stray(t->name)) continue;
            write_canonical(name, t->name, c->layout);
            c->tensors[c->count++] = make_tensor(&c->shards[s], t, name);
            name += strlen(name) + 1;
        }
    qsort(c->tensors, c->count, sizeof *c->tensors, by_name);
    for (uint32_t i = 1; i < c->count; i++) {
        const rv_tensor *a = &c->tensors[i - 1], *b = &c->tensors[i];
        if (strcmp(a->name, b->name) == 0)
            return rv_fail(err, RV_ERR_FORMAT, "tensor \"%.80s\": is there twice, as \"%.80s\" in %.80s and as "
                           "\"%.80s\" in %.80s",
                           a->name, a->file_name, file_part(a->file), b->file_name, file_part(b->file));
    }
    return RV_OK;
}

/* Takes ownership of `path` (NULL: out of memory). */
static rv_status open_shard(rv_checkpoint *c, char *path, rv_error *err) {
    shard *s = &c->shards[c->n_shards++];
    rv_status st;
    s->path = path;
    s->fd = -1;
    if (!path) return rv_fail_memory(err, "file name");
    if ((st = rv_map_open(path, &s->map, err)) != RV_OK) return st;
    s->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (s->fd < 0) return rv_fail(err, RV_ERR_IO, "%s: cannot open it a second time", path);
    return rv_safetensors_read(s->map.data, s->map.bytes, path, &s->header, err);
}

static const rv_safetensors_tensor *shard_find(const shard *s, const char *name) {
    rv_safetensors_tensor key = { .name = name };
    const rv_safetensors *h = &s->header;
    return h->count ? bsearch(&key, h->tensors, h->count, sizeof key, rv_safetensors_by_name) : NULL;
}

/* The index and the shards must tell the same story; shard i is index->files[i]. */
static rv_status check_index(const rv_checkpoint *c, const rv_index *index, rv_error *err) {
    for (uint32_t s = 0; s < c->n_shards; s++)
        for (uint32_t i = 0; i < c->shards[s].header.count; i++) {
            const char *name = c->shards[s].header.tensors[i].name;
            const rv_index_entry *e = rv_index_find(index, name);
            if (e && e->file != s)
                return rv_fail(err, RV_ERR_FORMAT, "tensor \"%.160s\": the index places it in %.100s, but it is in %s",
                               name, index->files[e->file], c->shards[s].path);
        }
    for (uint32_t i = 0; i < index->count; i++) {
        const rv_index_entry *e = &index->entries[i];
        if (!shard_find(&c->shards[e->file], e->name))
            return rv_fail(err, RV_ERR_FORMAT, "tensor \"%.160s\": the index places it in a file that does not have it "
                           "(%s)", e->name, c->shards[e->file].path);
    }
    return RV_OK;
}

static rv_status open_index(rv_checkpoint *c, const char *folder, const char *path, rv_error *err) {
    rv_index index = { 0 };
    rv_status st;
    TRY(rv_index_read(path, &index, err));
    c->shards = calloc(index.n_files, sizeof *c->shards);
    if (!c->shards) TRY(rv_fail_memory(err, "shard table"));
    for (uint32_t i = 0; i < index.n_files; i++)
        if ((st = open_shard(c, rv_path_join(folder, index.files[i]), err)) != RV_OK) {
            if (st == RV_ERR_IO) rv_fail_in(err, st, "shard %u of %u", i + 1, index.n_files);
            goto done;
        }
    TRY(check_index(c, &index, err));
done:
    rv_index_free(&index);
    return st;
}

static rv_status open_single(rv_checkpoint *c, const char *path, rv_error *err) {
    c->shards = calloc(1, sizeof *c->shards);
    if (!c->shards) return rv_fail_memory(err, "shard table");
    return open_shard(c, strdup(path), err);
}

/* No weights we read: names what is there instead, if that helps. */
static rv_status fail_empty_folder(const char *folder, rv_error *err) {
    static const struct { const char *file, *hint; } others[] = {
        { "adapter_model.safetensors", "it holds a LoRA adapter: merge it into the model first (peft)" },
        { "pytorch_model.bin.index.json", "it holds PyTorch .bin files: save the model as safetensors" },
        { "pytorch_model.bin", "it holds a PyTorch .bin file: save the model as safetensors" },
        { "consolidated.00.pth", "it holds Meta's original .pth files: use the Hugging Face version of the model" },
        { "consolidated.pth", "it holds Meta's original .pth file: use the Hugging Face version of the model" },
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char *path = rv_path_join(folder, others[i].file);
        if (!path) return rv_fail_memory(err, "file name");
        int there = rv_file_exists(path);
        free(path);
        if (there) return rv_fail(err, RV_ERR_UNSUPPORTED, "model folder: %s (%s)", others[i].hint, folder);
    }
    return rv_fail(err, RV_ERR_IO, "model folder: has neither model.safetensors.index.json nor model.safetensors (%s)",
                   folder);
}

static rv_status open_folder(rv_checkpoint *c, const char *folder, rv_error *err) {
    struct stat info;
    rv_status st;
    char *index = rv_path_join(folder, "model.safetensors.index.json");
    char *single = rv_path_join(folder, "model.safetensors");
    if (!index || !single) st = rv_fail_memory(err, "file name");
    else if (lstat(index, &info) == 0) st = open_index(c, folder, index, err);
    else if (lstat(single, &info) == 0) st = open_single(c, single, err);
    else st = fail_empty_folder(folder, err);
    free(index);
    free(single);
    return st;
}

rv_status rv_checkpoint_open(const char *path, rv_checkpoint **out, rv_error *err) {
    struct stat info;
    rv_status st;
    rv_checkpoint *c = calloc(1, sizeof *c);
    if (!c) return rv_fail_memory(err, "checkpoint");
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) TRY(open_folder(c, path, err));
    else TRY(open_single(c, path, err));
    TRY(collect(c, err));
    *out = c;
    return RV_OK;
done:
    rv_checkpoint_close(c);
    return st;
}

void rv_checkpoint_close(rv_checkpoint *c) {
    if (!c) return;
    for (uint32_t i = 0; i < c->n_shards; i++) {
        rv_safetensors_free(&c->shards[i].header);
        rv_map_close(&c->shards[i].map);
        if (c->shards[i].fd >= 0) close(c->shards[i].fd);
        free(c->shards[i].path);
    }
    free(c->shards);
    free(c->tensors);
    free(c->names);
    free(c);
}

const rv_tensor *rv_checkpoint_find(const rv_checkpoint *c, const char *canonical_name) {
    rv_tensor key = { .name = canonical_name };
    return bsearch(&key, c->tensors, c->count, sizeof key, by_name);
}

uint32_t rv_checkpoint_count(const rv_checkpoint *c) { return c->count; }

const rv_tensor *rv_checkpoint_at(const rv_checkpoint *c, uint32_t i) { return i < c->count ? &c->tensors[i] : NULL; }

rv_layout rv_checkpoint_layout(const rv_checkpoint *c) { return c->layout; }

uint32_t rv_checkpoint_files(const rv_checkpoint *c) { return c->n_shards; }

uint64_t rv_checkpoint_file_bytes(const rv_checkpoint *c) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < c->n_shards; i++) bytes += c->shards[i].map.bytes;
    return bytes;
}

rv_status rv_checkpoint_recheck(const rv_checkpoint *c, rv_error *err) {
    for (uint32_t i = 0; i < c->n_shards; i++) {
        const shard *s = &c->shards[i];
        struct stat info;
        if (fstat(s->fd, &info) != 0) return rv_fail(err, RV_ERR_IO, "%s: cannot read its size", s->path);
        if ((uint64_t)info.st_size < s->map.bytes)
            return rv_fail(err, RV_ERR_IO, "%s: became shorter since it was opened (%llu bytes then, %llu now)",
                           s->path, (unsigned long long)s->map.bytes, (unsigned long long)info.st_size);
    }
    return RV_OK;
}

/* Whole pages inside; a hint, whose failure does not matter. */
static void forget_pages(const uint8_t *from, const uint8_t *end) {
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), first = ((uintptr_t)from + page - 1) & ~(page - 1), last = (uintptr_t)end & ~(page - 1);
    if (first < last) madvise((void *)first, last - first, MADV_DONTNEED);
}

void rv_checkpoint_forget(const rv_checkpoint *c, const void *data, uint64_t bytes) {
    const uint8_t *from = data;
    for (uint32_t i = 0; i < c->n_shards; i++) {
        const rv_map *map = &c->shards[i].map;
        if (from >= map->data && from < map->data + map->bytes && bytes <= (uint64_t)(map->data + map->bytes - from)) forget_pages(from, from + bytes);
    }
}

/* ---- the key ---- */

static void add_sample(rv_string *s, const rv_tensor *t, uint64_t at) {
    const uint64_t n = t->bytes - at < SAMPLE ? t->bytes - at : SAMPLE, hash = rv_hash64((const char *)t->data + at, (size_t)n);
    rv_string_add(s, (const char *)&hash, sizeof hash);
}

rv_status rv_checkpoint_key(const rv_checkpoint *c, rv_hash *out, rv_error *err) {
    rv_string s = { 0 };
    for (uint32_t i = 0; i < c->n_shards; i++) {
        const shard *f = &c->shards[i];
        const size_t header = (size_t)(f->header.data - f->map.data);
        struct stat is;
        if (fstat(f->fd, &is)) {
            rv_string_free(&s);
            return rv_fail(err, RV_ERR_IO, "%s: cannot read its size", f->path);
        }
        rv_string_addf(&s, "%s %llu %lld.%09ld %016llx\n", file_part(f->path), (unsigned long long)is.st_size, (long long)is.st_mtim.tv_sec,
                       is.st_mtim.tv_nsec, (unsigned long long)rv_hash64(f->map.data, header));
    }
    for (uint32_t i = 0; i < c->count; i++) {
        const rv_tensor *t = &c->tensors[i];
        add_sample(&s, t, 0);
        if (t->bytes > SAMPLE) add_sample(&s, t, t->bytes - SAMPLE);
        if (t->bytes > 3 * SAMPLE) add_sample(&s, t, t->bytes / 2 - SAMPLE / 2);
    }
    rv_status st = s.failed ? rv_fail_memory(err, "checkpoint") : RV_OK;
    if (!st) *out = rv_hash128(s.data, s.bytes);
    rv_string_free(&s);
    return st;
}
