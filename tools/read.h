/* read.h - what extract, classify and batch share: the options about reading, a loaded model with its reader, pages of files. */
#ifndef RV_TOOLS_READ_H
#define RV_TOOLS_READ_H
#include "engine/rvdocument.h"
#include "tools/files.h"
#include "tools/load.h"

typedef struct read_choice {
    load_choice load;
    const char *schema, *question, *today;
    int32_t     strategy, form, classify, ocr, max_tiles;
    double      presence;
    uint64_t    max_tokens, slots, pages, page_seconds, dpi;
    bool        no_exif, allow_tfn, allow_account;
    bool        finishes;            /* Ctrl-C does not end a page that is being read           */
} read_choice;

#define READ_DEFAULTS .max_tiles = 2     /* of read_choice: the third choice                       */

/* Rows of an option table. `c` is a read_choice variable. */
#define READ_OPTIONS(c)                                                                                                      \
    { OPTION_TEXT, .name = "model", .letter = 'm', .to = &(c).load.model, .value = "DIR",                                    \
      .help = "model folder (not needed with --ocr only)" },                                                                 \
    { OPTION_TEXT, .name = "schema", .letter = 's', .to = &(c).schema, .value = "NAME",                                      \
      .help = "document type: a built-in schema or a file (rvengine schema\nlist); default: found by looking" },             \
    { OPTION_CHOICE, .name = "classify", .to = &(c).classify, .choices = "evidence|direct",                                  \
      .help = "without --schema: questions about what can be seen, then rules\n(default), or a choice among the types" },    \
    { OPTION_CHOICE, .name = "strategy", .to = &(c).strategy, .choices = "auto|single|parts|two-pass|bank-turns",            \
      .help = "how fields are asked for (default auto: as the schema says):\nall at once, in parts side by side, doubtful ones again, or\na statement's headings first" }, \
    { OPTION_CHOICE, .name = "grammar", .to = &(c).form, .choices = "soft|strict|off",                                       \
      .help = "keys and lists are fixed (soft, default); values too (strict);\nor nothing is, and the answer is parsed (off)" }, \
    { OPTION_CHOICE, .name = "ocr", .to = &(c).ocr, .choices = "auto|off|only",                                              \
      .help = "Tesseract: where it is installed (default), never, or without\na model" },                                   \
    { OPTION_REAL, .name = "presence-threshold", .to = &(c).presence, .max = 1, .value = "P",                                \
      .help = "values less likely to be on the page than this become\nNOT_FOUND (default 0)" },                             \
    { OPTION_TEXT, .name = "question", .to = &(c).question, .value = "TEXT", .help = "ask this instead of the schema's own question" }, \
    { OPTION_WHOLE, .name = "max-tokens", .letter = 'n', .to = &(c).max_tokens, .max = 1048576, .value = "N",                \
      .help = "of an answer (default: what the context holds)" },                                                            \
    { OPTION_TEXT, .name = "today", .to = &(c).today, .value = "DATE", .help = "the day to check dates against (default: today)" }, \
    { OPTION_FLAG, .name = "allow-tfn", .to = &(c).allow_tfn, .help = "keep tax file numbers where the schema has them: for purposes of\ntax law only" }, \
    { OPTION_FLAG, .name = "allow-account", .to = &(c).allow_account, .help = "keep account numbers where the schema has them" }, \
    { OPTION_GROUP, .name = "Pages" },                                                                                       \
    { OPTION_CHOICE, .name = "max-tiles", .to = &(c).max_tiles, .choices = "1|2|4", .help = "tiles an image is cut into at most (default 4)" }, \
    { OPTION_FLAG, .name = "no-exif", .to = &(c).no_exif, .help = "do not turn photos as their EXIF tag asks" },             \
    { OPTION_WHOLE, .name = "pages", .to = &(c).pages, .min = 1, .max = 1000, .value = "N", .help = "of a PDF at most (default 20)" }, \
    { OPTION_WHOLE, .name = "page-seconds", .to = &(c).page_seconds, .min = 1, .max = 3600, .value = "N", .help = "a PDF may take to be drawn (default 60)" }, \
    { OPTION_WHOLE, .name = "dpi", .to = &(c).dpi, .min = 36, .max = 600, .value = "N", .help = "at which PDFs are drawn (default 150)" }

/* What can be wrong before anything is loaded.  *plan: as load_check has it; without a model zeros but for `size`. */
rv_status read_check(const read_choice *c, rv_memory *plan, rv_error *err);

typedef struct read_model { rv_model *model; rv_session *session; rv_schema *schema; rv_reader *reader; char today[16]; } read_model;
/* Opens schema, model and reader; images: pictures at once. */
rv_status read_open(const read_choice *c, read_model *out, rv_error *err);
void      read_close(read_model *m);
rv_read_options read_options(const read_choice *c, const read_model *m, const rv_record_options *record);
rv_record_options record_options(const read_choice *c, const read_model *m, const char *file);

/* A page of a file, read: its record and what it took. */
rv_status read_page(const read_choice *c, const read_model *m, const char *file, const input *page, rv_record **out, rv_reading *reading, rv_error *err);

/* What several pages took together. */
typedef struct read_totals { uint32_t pages, prompts, chosen, forced, steps, looped, cut, found, fields; double ms, vision_ms, ocr_ms; } read_totals;
void totals_add(read_totals *t, const rv_reading *r, const rv_record *record);
/* A table of it on stderr. */
void totals_say(const read_totals *t);

/* Bytes that grow; false: out of memory. */
typedef struct buffer { char *data; size_t bytes, room; } buffer;
bool buffer_add(buffer *b, const char *data, size_t bytes);

/* The pages of a file: an image is one, a PDF as many as --pages allows. */
typedef struct page_list { input *pages; uint32_t count; uint32_t left_out; } page_list;    /* left_out: pages of the PDF beyond the limit */
rv_status pages_read(const read_choice *c, const char *path, page_list *out, rv_error *err);
/* What can be wrong with files before a model is loaded: they are there, and images whose headers can be read.  stdin and pipes are not looked
 * at (they can be read once), PDFs not drawn. */
rv_status files_check(const read_choice *c, const text_list *files, rv_error *err);
void      pages_free(page_list *list);
/* A line on stderr where pages were left out. */
void      pages_say(const char *command, const char *path, const page_list *list);
/* "scan.pdf#2"; a file of one page is called by its own name. */
typedef struct page_name { char text[1024]; } page_name;
page_name page_name_of(const char *file, const page_list *list, uint32_t i);
rv_image  page_image(const read_choice *c, const input *page);

/* tools/pdf.c: draws pages of a PDF in a process of its own (pdftoppm), limited in time, memory, pages and bytes. */
/* "%PDF-" is among its first bytes, which an image's remarks may have too. */
bool      is_pdf(const input *file);
rv_status pdf_draw(const char *name, const input *file, uint32_t pages, uint32_t seconds, uint32_t dpi, page_list *out, rv_error *err);
#endif
