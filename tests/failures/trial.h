/* trial.h - what the programs here share: an answer and whether it is another's, findings, and what a case may not leave behind.
 *
 * The one idea: a finding names the case that ran, also when that case crashed or hung, so that it can be run by itself.
 */
#ifndef RV_TESTS_TRIAL_H
#define RV_TESTS_TRIAL_H
#include "tests/support/folder.h"

#include <signal.h>
#include <stdbool.h>
#include <unistd.h>

#include "engine/rvengine.h"

enum { MOST_TOKENS = 64, MOST_SECONDS = 120 };

/* What a case gave: an error, or all of the answer. */
typedef struct result { rv_status st; rv_error err; uint32_t n; int32_t ids[MOST_TOKENS]; float logprobs[MOST_TOKENS]; char text[1024]; } result;

static inline void take_answer(rv_job *job, result *out) {
    const int32_t *ids;
    const float *logprobs;
    out->st = rv_job_get_error(job, &out->err);
    if (out->st) return;
    out->n = rv_job_tokens(job, &ids, &logprobs);
    assert_true(out->n <= MOST_TOKENS);
    memcpy(out->ids, ids, out->n * sizeof *ids);
    memcpy(out->logprobs, logprobs, out->n * sizeof *logprobs);
    snprintf(out->text, sizeof out->text, "%s", rv_job_text(job, NULL));
}

/* To the bit. */
static inline bool same(const result *a, const result *b) {
    return a->st == b->st && a->n == b->n && !memcmp(a->ids, b->ids, sizeof a->ids) && !memcmp(a->logprobs, b->logprobs, sizeof a->logprobs) && !strcmp(a->text, b->text);
}

static char now[400];                    /* the case that runs, for whoever runs it again        */
static int findings;

static inline void finding(const char *what, const char *detail) {
    print_error("FOUND: %s: %s%s%s\n", now, what, *detail ? ": " : "", detail);
    findings++;
}

/* ---- what is left behind ---- */

static inline int entries(const char *folder) {
    int n = 0;
    DIR *d = opendir(folder);
    for (; d && readdir(d); n++) {}
    if (d) closedir(d);
    return n;
}

typedef struct held { int files, threads; } held;

/* A case begins: from here on it may take MOST_SECONDS. */
static inline held trial_begin(void) {
    const held h = { entries("/proc/self/fd"), entries("/proc/self/task") };
    alarm(MOST_SECONDS);
    return h;
}

static inline void trial_end(held h) {
    alarm(0);
    if (entries("/proc/self/fd") != h.files) finding("files stay open", "");
    for (int wait = 0; entries("/proc/self/task") > h.threads && wait < 200; wait++) usleep(5000);     /* a joined thread is on that list a moment longer */
    if (entries("/proc/self/task") > h.threads) finding("threads go on", "");
}

/* ---- crashes and hangs ---- */

static inline void tell_signal(int number) {
    char text[500];
    const int n = snprintf(text, sizeof text, "FOUND: %s: %s\n", now, number == SIGALRM ? "it hangs" : "it crashes");
    if (n > 0) (void)!write(STDERR_FILENO, text, (size_t)n);
    signal(number, SIG_DFL);
    raise(number);
}

/* The address sanitizer tells more about a crash than the case does. */
static inline void trials_watch(void) {
#ifndef __SANITIZE_ADDRESS__
    static const int crashes[] = { SIGSEGV, SIGBUS, SIGABRT, SIGFPE };
    for (size_t i = 0; i < sizeof crashes / sizeof *crashes; i++) signal(crashes[i], tell_signal);
#endif
    signal(SIGALRM, tell_signal);
}
#endif
