/* script.c - see script.h.  The one idea: logits come to the host once a step, whole; there they are written anew. */
#include "tests/engine/script.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct { rv_session *session; script_fn script; void *user; double sure; const rv_backend_ops *inner; rv_backend_ops ops; } play;

static rv_ids ids_of(const rv_tokenizer *t, const char *text) {
    rv_ids ids = { 0 };
    rv_error err;
    if (rv_tokenizer_append(t, text, strlen(text), RV_ENCODE_CONTROL, &ids, &err)) fail_msg("%s", err.message);
    return ids;
}

/* The token that continues the job's answer as the script has it; where the answer has left the script, its end. */
static int32_t next_id(const rv_job *job) {
    const rv_tokenizer *t = job->session->model->files.tokenizer;
    char prompt[16384];
    size_t bytes;
    rv_error err;
    if (rv_tokenizer_decode(t, job->prompt.data, job->prompt.count, 0, prompt, sizeof prompt - 1, &bytes, &err)) fail_msg("%s", err.message);
    prompt[bytes < sizeof prompt ? bytes : sizeof prompt - 1] = '\0';
    const char *answer = play.script(play.user, prompt);
    if (!answer) fail_msg("no script for \"%s\"", prompt);
    rv_ids ids = ids_of(t, answer), end = ids_of(t, "<|eot_id|>");
    size_t n = job->answer.count;
    bool follows = n < ids.count && !memcmp(ids.data, job->answer.data, n * sizeof *ids.data);
    int32_t id = follows ? ids.data[n] : end.data[0];
    rv_ids_free(&ids);
    rv_ids_free(&end);
    return id;
}

static void download(rv_backend *be, void *host, const void *src, uint64_t bytes) {
    rv_session *s = play.session;
    play.inner->download(be, host, src, bytes);
    if (!s || src != s->text_scratch.logits.data) return;
    const int32_t vocab = s->model->files.config.text.vocab, n = (int32_t)(bytes / sizeof(float) / (uint64_t)vocab);
    for (int32_t i = 0; i < n; i++) {
        float *row = (float *)host + (size_t)i * (size_t)vocab;
        memset(row, 0, (size_t)vocab * sizeof *row);
        row[next_id(s->slots[s->rows.slot[s->rows.n - n + i]])] = (float)log(play.sure / (1 - play.sure) * (vocab - 1));
    }
}

void script_play(rv_session *session, script_fn script, void *user, double sure) {
    rv_backend *be = session->model->be;
    if (!play.inner) {
        play.inner = be->ops;
        play.ops = *be->ops;
        play.ops.download = download;
        be->ops = &play.ops;
    }
    play.session = session;
    play.script = script;
    play.user = user;
    play.sure = sure;
}

void script_end(void) {
    if (play.inner) play.session->model->be->ops = play.inner;
    play.inner = NULL;
    play.session = NULL;
}
