/* batch_journal.c - see batch.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/batch.h"
#include "tools/json_read.h"

static rv_status system_error(rv_error *err, const char *path, const char *doing) {
    return fail(err, RV_ERR_IO, "%s: cannot %s: %s", path, doing, strerror(errno));
}

static rv_status write_whole(int fd, const char *path, const char *data, size_t bytes, rv_error *err) {
    for (ssize_t n; bytes > 0; data += n, bytes -= (size_t)n) {
        n = write(fd, data, bytes);
        if (n < 0 && errno == EINTR) n = 0;
        else if (n < 0) return system_error(err, path, "write");
    }
    return fdatasync(fd) && errno != EINVAL ? system_error(err, path, "write") : RV_OK;
}

static rv_status keep(journal *j, const done *of, rv_error *err) {
    if (j->count == j->room) {
        size_t room = j->room ? 2 * j->room : 256;
        done *more = realloc(j->items, room * sizeof *more);
        if (!more) return fail(err, RV_ERR_MEMORY, "%s: out of memory", j->path);
        j->items = more;
        j->room = room;
    }
    done copy = *of;
    copy.why = NULL;
    if (!(copy.id = strdup(of->id))) return fail(err, RV_ERR_MEMORY, "%s: out of memory", j->path);
    j->items[j->count++] = copy;
    return RV_OK;
}

/* ---- reading ---- */

static rv_status read_line(journal *j, const json_t *line, rv_error *err) {
    const char *id = json_string_value(json_object_get(line, "id"));
    done of = { .id = (char *)(uintptr_t)id, .failed = json_is_true(json_object_get(line, "failed")), .more_pages = json_is_true(json_object_get(line, "more_pages")), .ms = json_number_value(json_object_get(line, "ms")),
                .chosen = (uint32_t)json_integer_value(json_object_get(line, "chosen")), .forced = (uint32_t)json_integer_value(json_object_get(line, "forced")),
                .steps = (uint32_t)json_integer_value(json_object_get(line, "steps")), .pages = (uint32_t)json_integer_value(json_object_get(line, "pages")) };
    if (!id) return fail(err, RV_ERR_FORMAT, "%s: is no journal of a batch: remove it, or say --fresh", j->path);
    j->bytes = (uint64_t)json_integer_value(json_object_get(line, "bytes"));
    return keep(j, &of, err);
}

typedef struct lines { uint64_t good; bool begun; rv_status other; rv_error why; } lines;     /* good: where whole lines end; other: settings */

/* Settings matter once there is a document that was read with them. */
static rv_status read_journal(journal *j, const input *text, const json_t *settings, lines *out, rv_error *err) {
    rv_status st = RV_OK;
    size_t at = 0;
    while (st == RV_OK && at < text->bytes) {
        const char *newline = memchr(text->data + at, '\n', text->bytes - at);
        if (!newline) break;                                     /* it was being written */
        json_t *line = json_read(text->data + at, (size_t)(newline - text->data) - at, 0, NULL);
        if (!line) break;
        if (out->begun) st = read_line(j, line, err);
        else out->other = batch_settings_check(json_object_get(line, "settings"), settings, j->path, &out->why), out->begun = true;
        json_decref(line);
        at = (size_t)(newline - text->data) + 1;
    }
    out->good = at;
    if (st || !out->other) return st;
    if (j->count || out->other == RV_ERR_FORMAT) return *err = out->why, out->other;
    out->good = 0;                                               /* begun, and ended before the first document */
    return RV_OK;
}

static rv_status begin(journal *j, const json_t *settings, rv_error *err) {
    json_t *head = json_pack("{s:O}", "settings", settings);
    char *text = head ? json_dumps(head, JSON_COMPACT) : NULL, *line = NULL;
    int n = text ? asprintf(&line, "%s\n", text) : -1;
    rv_status st = n < 0 ? fail(err, RV_ERR_MEMORY, "%s: out of memory", j->path) : write_whole(j->log, j->path, line, (size_t)n, err);
    free(line);
    free(text);
    json_decref(head);
    return st;
}

/* Opens a file that may be there already. */
static int open_or_make(const char *path, bool *made) {
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    *made = fd >= 0;
    return fd >= 0 || errno != EEXIST ? fd : open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
}

static rv_status open_files(journal *j, const char *output, bool fresh, rv_error *err) {
    if (is_folder(output)) return fail(err, RV_ERR_IO, "%s: cannot write: it is a folder", output);
    if (asprintf(&j->path, "%s.journal", output) < 0) return j->path = NULL, fail(err, RV_ERR_MEMORY, "%s: out of memory", output);
    j->log = open_or_make(j->path, &j->new_log);
    if (j->log < 0) return system_error(err, j->path, "open");
    struct stat held;
    if (flock(j->log, LOCK_EX | LOCK_NB) || fstat(j->log, &held) || held.st_nlink == 0) return j->new_log = false, fail(err, RV_ERR_BUSY, "%s: another batch is writing there now", output);
    if (fresh && ftruncate(j->log, 0)) return system_error(err, j->path, "begin anew");
    j->output = open_or_make(output, &j->new_output);
    if (j->output < 0) return system_error(err, output, "open");
    return fresh && ftruncate(j->output, 0) ? system_error(err, output, "begin anew") : RV_OK;
}

static rv_status open_stream(journal *j, const char *output, rv_error *err) {
    j->output = is_stdout(output) ? fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3) : open(output, O_WRONLY | O_CLOEXEC);
    return j->output < 0 ? system_error(err, output, "open") : RV_OK;
}

rv_status journal_open(const char *output, const json_t *settings, bool fresh, journal *j, rv_error *err) {
    input text = { 0 };
    lines read = { 0 };
    *j = (journal){ .output = -1, .log = -1, .name = is_stdout(output) ? "stdout" : output };
    if (is_stdout(output) || is_special(output)) return open_stream(j, output, err);
    rv_status st = open_files(j, output, fresh, err);
    if (st == RV_OK) st = input_read(j->path, &text, err);
    if (st == RV_OK) st = read_journal(j, &text, settings, &read, err);
    if (st == RV_OK && !read.begun && lseek(j->output, 0, SEEK_END) > 0)
        st = fail(err, RV_ERR_ARGUMENT, "%s: is there already, and not from a batch: choose another name, or say --fresh", output);
    if (st == RV_OK && (off_t)j->bytes > lseek(j->output, 0, SEEK_END)) st = fail(err, RV_ERR_FORMAT, "%s: is shorter than its journal says: say --fresh", output);
    if (st == RV_OK && (ftruncate(j->log, (off_t)read.good) || ftruncate(j->output, (off_t)j->bytes))) st = system_error(err, output, "go on with");
    if (st == RV_OK && (lseek(j->log, 0, SEEK_END) < 0 || lseek(j->output, 0, SEEK_END) < 0)) st = system_error(err, output, "go on with");
    if (st == RV_OK && read.good == 0) st = begin(j, settings, err);
    input_free(&text);
    if (st) journal_close(j);
    return st;
}

rv_status journal_settle(journal *j, const json_t *planned, const json_t *loaded, rv_error *err) {
    if (j->log < 0 || json_equal((json_t *)(uintptr_t)planned, (json_t *)(uintptr_t)loaded)) return RV_OK;
    if (j->count) return batch_settings_check(planned, loaded, j->path, err);
    return ftruncate(j->log, 0) || lseek(j->log, 0, SEEK_SET) < 0 ? system_error(err, j->path, "begin anew") : begin(j, loaded, err);
}

done *journal_find(const journal *j, const char *id) {
    for (size_t i = 0; i < j->count; i++)
        if (!strcmp(j->items[i].id, id)) return &j->items[i];
    return NULL;
}

/* ---- writing ---- */

rv_status journal_add(journal *j, const done *of, const char *text, size_t bytes, rv_error *err) {
    rv_status st = write_whole(j->output, j->name, text, bytes, err);
    if (st) return st;
    j->bytes += bytes;
    if (!of) return RV_OK;
    if (j->log < 0) return keep(j, of, err);
    json_t *line = json_pack("{s:o, s:I, s:b, s:f, s:i, s:i, s:i, s:i, s:o*, s:o*}", "id", json_textz(of->id), "bytes", (json_int_t)j->bytes, "failed", of->failed, "ms", of->ms,
                             "chosen", (int)of->chosen, "forced", (int)of->forced, "steps", (int)of->steps, "pages", (int)of->pages,
                             "more_pages", of->more_pages ? json_true() : NULL, "why", of->why ? json_textz(of->why) : NULL);
    char *dumped = line ? json_dumps(line, JSON_COMPACT) : NULL, *whole = NULL;
    int n = dumped ? asprintf(&whole, "%s\n", dumped) : -1;
    st = n < 0 ? fail(err, RV_ERR_MEMORY, "%s: out of memory", j->path) : write_whole(j->log, j->path, whole, (size_t)n, err);
    free(whole);
    free(dumped);
    json_decref(line);
    return st ? st : keep(j, of, err);
}

void journal_close(journal *j) {
    if (j->count == 0 && j->new_output && j->output >= 0) unlink(j->name);
    if (j->count == 0 && j->new_log && j->log >= 0) unlink(j->path);        /* last: it is the lock */
    if (j->output >= 0) close(j->output);
    if (j->log >= 0) close(j->log);
    for (size_t i = 0; i < j->count; i++) free(j->items[i].id);
    free(j->items);
    free(j->path);
    *j = (journal){ .output = -1, .log = -1 };
}
