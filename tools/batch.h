/* batch.h - extraction from many documents: which, what is done already, what it took. */
#ifndef RV_TOOLS_BATCH_H
#define RV_TOOLS_BATCH_H
#include "tools/read.h"

/* ---- batch_inputs.c: folders, globs, lists and files become documents, each once ---- */

/* id: what it is called in results; the path unless a list says otherwise: its file and line. */
typedef struct document { char *path, *id; const char *list; unsigned line; bool done; } document;      /* done: the journal has it */
typedef struct document_list { document *items; size_t count, room; } document_list;

/* Folders are searched with all their folders, names in natural order ("p2" before "p10").  A .jsonl file is a list: {"image": PATH, "id": NAME} a
 * line, paths relative to it and inside its folder, unless any_path.  Two documents of one name are an error. */
rv_status documents_find(const text_list *inputs, bool any_path, document_list *out, rv_error *err);
void      documents_free(document_list *list);

/* ---- batch_settings.c: what results depend on ---- */

/* Names of options, and what they are; where memory or the machine decides, what comes of it in `model`: read_check's plan.
 * *out: json_decref. */
rv_status batch_settings(const read_choice *c, const rv_memory *model, int32_t format, json_t **out, rv_error *err);
/* The same with what came of it in another `model`: the one that was loaded. */
rv_status batch_settings_with(const json_t *settings, const rv_memory *model, json_t **out, rv_error *err);
/* RV_ERR_ARGUMENT: others, and which; or a journal of an older build, which did not note what the machine decided.  RV_ERR_FORMAT: no settings at all. */
rv_status batch_settings_check(const json_t *begun, const json_t *now, const char *path, rv_error *err);

/* ---- batch_journal.c: what is done, so that a run can be killed at any time ---- */

/* why: what a failed one failed for; only while it is noted.  ours: among the documents of this run.  more_pages: a PDF that has more than --pages. */
typedef struct done { char *id; const char *why; bool failed, ours, more_pages; double ms; uint32_t chosen, forced, steps, pages; } done;

/* OUTPUT.journal: a line a document, written after its results are in OUTPUT and both are flushed, with OUTPUT's size then.  What stands
 * in OUTPUT beyond the last line's size is of a document that was not finished, and cut off when a run goes on. */
typedef struct journal {
    int         output, log;          /* log -1: there is none                                 */
    const char *name;                 /* OUTPUT                                                */
    char       *path;
    bool        new_output, new_log;  /* this run made the files                               */
    uint64_t    bytes;
    done       *items;
    size_t      count, room;
} journal;

/* `settings`: batch_settings; a journal of others is refused (RV_ERR_ARGUMENT) if it holds a document.  fresh: begins anew.  stdout, pipes
 * and devices have no journal: a run into them cannot go on. */
rv_status journal_open(const char *output, const json_t *settings, bool fresh, journal *out, rv_error *err);
/* What was loaded may be other than what was planned.  A journal without documents takes the settings of that; one with documents refuses (RV_ERR_ARGUMENT). */
rv_status journal_settle(journal *j, const json_t *planned, const json_t *loaded, rv_error *err);
/* NULL: not done. */
done     *journal_find(const journal *j, const char *id);
/* Text of a document (or of the head of a CSV file: of = NULL, not noted), then its line. */
rv_status journal_add(journal *j, const done *of, const char *text, size_t bytes, rv_error *err);
/* Files that this run made and that no document is in are removed. */
void      journal_close(journal *j);

/* ---- batch_report.c ---- */

/* done, failed: of this run's documents, whichever run read them; before: those that an earlier one had. */
typedef struct batch_state { size_t documents, before, done, failed; double start; const journal *journal; const char *output; bool quiet; double shown; } batch_state;
/* A line on stderr: on a terminal always the same one, elsewhere now and then. */
void      batch_progress(batch_state *s);
void      batch_progress_end(const batch_state *s);
/* OUTPUT.run.json: rates, times, tokens, memory; where there is a journal. */
rv_status batch_report(const batch_state *s, const read_choice *c, const read_model *m, bool complete, rv_error *err);
double    batch_now(void);
#endif
