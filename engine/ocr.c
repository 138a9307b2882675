/* ocr.c - Tesseract, loaded when it is there: its C interface by name, so that the library does not depend on it. */
#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/image.h"
#include "engine/ocr.h"
#include "engine/reader.h"

enum { RESOLUTION = 300, LEVEL_LINE = 2, LEVEL_WORD = 3,         /* tesseract/publictypes.h: RIL_TEXTLINE, RIL_WORD */
       SHARP_ENOUGH = 2000, MOST_PIXELS = 16000000, MOST_ENLARGED = 4, LONGEST = 32000 };     /* an edge: Tesseract's own limit is 32,767 */

/* Those functions of tesseract/capi.h that are needed. */
typedef struct tesseract {
    const char *(*version)(void);
    void *(*create)(void);
    int   (*init)(void *api, const char *folder, const char *language);
    int   (*set_variable)(void *api, const char *name, const char *value);
    void  (*set_mode)(void *api, int mode);
    void  (*set_image)(void *api, const unsigned char *data, int width, int height, int bytes_per_pixel, int bytes_per_line);
    void  (*set_resolution)(void *api, int ppi);
    int   (*recognize)(void *api, void *monitor);
    void *(*iterator)(void *api);
    void  (*iterator_delete)(void *it);
    const void *(*page_iterator)(const void *it);
    int   (*next)(void *it, int level);
    char *(*text)(const void *it, int level);
    float (*confidence)(const void *it, int level);
    int   (*box)(const void *it, int level, int *left, int *top, int *right, int *bottom);
    int   (*begins)(const void *it, int level);
    void  (*delete_text)(char *text);
    void  (*clear)(void *api);
    void  (*delete)(void *api);
} tesseract;

struct rv_ocr { tesseract fn; void *api; };

/* A static program has no loader of its own to load libraries with. */
#ifdef RV_STATIC
static bool load(tesseract *t) { return (void)t, false; }
#else
/* Stays loaded: what it returns may live on. */
static bool load(tesseract *t) {
    static const char *const names[] = { "TessVersion", "TessBaseAPICreate", "TessBaseAPIInit3", "TessBaseAPISetVariable", "TessBaseAPISetPageSegMode", "TessBaseAPISetImage",
        "TessBaseAPISetSourceResolution", "TessBaseAPIRecognize", "TessBaseAPIGetIterator", "TessResultIteratorDelete", "TessResultIteratorGetPageIteratorConst",
        "TessResultIteratorNext", "TessResultIteratorGetUTF8Text", "TessResultIteratorConfidence", "TessPageIteratorBoundingBox", "TessPageIteratorIsAtBeginningOf",
        "TessDeleteText", "TessBaseAPIClear", "TessBaseAPIDelete" };
    enum { N = sizeof names / sizeof *names };
    void *library = dlopen("libtesseract.so.5", RTLD_NOW | RTLD_NODELETE), *found[N];
    _Static_assert(sizeof found == sizeof *t, "a name for every function");
    for (size_t i = 0; library && i < N; i++)
        if (!(found[i] = dlsym(library, names[i]))) library = NULL;
    if (library) memcpy(t, found, sizeof *t);
    return library != NULL;
}
#endif

const char *rv_ocr_version(void) {
    tesseract t;
    return load(&t) ? t.version() : NULL;
}

void rv_ocr_free(struct rv_ocr *ocr) {
    if (!ocr) return;
    if (ocr->api) ocr->fn.delete(ocr->api);
    free(ocr);
}

static rv_status open_ocr(rv_reader *r, rv_error *err) {
    if (r->ocr) return RV_OK;
    struct rv_ocr *ocr = calloc(1, sizeof *ocr);
    if (!ocr) return rv_fail_memory(err, "Tesseract");
    if (!load(&ocr->fn)) {
        free(ocr);
        return rv_fail(err, RV_ERR_UNSUPPORTED, "Tesseract 5: " RV_OCR_MISSING);
    }
    ocr->api = ocr->fn.create();
    if (!ocr->api || ocr->fn.init(ocr->api, NULL, "eng")) {
        rv_ocr_free(ocr);
        return rv_fail(err, RV_ERR_UNSUPPORTED, "Tesseract has no data for English: install tesseract-ocr-eng, or set TESSDATA_PREFIX");
    }
    ocr->fn.set_variable(ocr->api, "debug_file", "/dev/null");       /* it tells stderr of every speck that is no letter */
    r->ocr = ocr;
    return RV_OK;
}

static rv_status collect(const tesseract *t, void *it, rv_ocr_cut cut, rv_page *out, rv_error *err) {
    const void *page = t->page_iterator(it);
    int32_t line = -1;
    rv_status st = RV_OK;
    do {
        int left, top, right, bottom;
        char *text = t->text(it, LEVEL_WORD);
        if (t->begins(page, LEVEL_LINE)) line++;
        if (text && *text && t->box(page, LEVEL_WORD, &left, &top, &right, &bottom)) {
            rv_box box = { cut.x + (float)left / cut.scale, cut.y + (float)top / cut.scale, (float)(right - left) / cut.scale, (float)(bottom - top) / cut.scale };
            st = rv_page_add(out, text, box, t->confidence(it, LEVEL_WORD) / 100, line, err);
        }
        if (text) t->delete_text(text);
    } while (st == RV_OK && t->next(it, LEVEL_WORD));
    return st;
}

rv_status rv_ocr_words(struct rv_ocr *ocr, const rv_grey *picture, int mode, rv_ocr_cut cut, rv_page *out, rv_error *err) {
    const tesseract *t = &ocr->fn;
    rv_status st = RV_OK;
    t->set_mode(ocr->api, mode);
    t->set_image(ocr->api, picture->at, (int)picture->width, (int)picture->height, 1, (int)picture->width);
    t->set_resolution(ocr->api, RESOLUTION);
    if (t->recognize(ocr->api, NULL)) return rv_fail(err, RV_ERR_FORMAT, "Tesseract could not read the page");
    void *it = t->iterator(ocr->api);
    if (it) st = collect(t, it, cut, out, err);          /* NULL: a page without words */
    if (it) t->iterator_delete(it);
    t->clear(ocr->api);
    return st;
}

/* ---- a page ---- */

/* How high capitals are, in pixels, when a page is read first, and again where it must be. */
static const float LETTERS = 15, LARGER = 21;

/* Of more pixels than are needed to tell letters apart so many become one, each way. */
static uint32_t shrinking(const rv_pixels *p) {
    const uint32_t shorter = p->width < p->height ? p->width : p->height;
    uint32_t by = shorter / SHARP_ENOUGH > 1 ? shorter / SHARP_ENOUGH : 1;
    while ((uint64_t)(p->width / by) * (p->height / by) > MOST_PIXELS) by++;
    return by;
}

static void sheet_free(rv_sheet *s) {
    rv_grey_free(&s->plain);
    rv_grey_free(&s->flat);
}

static rv_status make_sheet(const rv_image *image, rv_sheet *out, uint32_t *width, uint32_t *height, rv_error *err) {
    rv_pixels p = { 0 };
    int32_t tiles;
    rv_status st = RV_OK;
    TRY(rv_image_read(image, false, &p, &tiles, err));
    *width = p.width;
    *height = p.height;
    out->shrink = (float)shrinking(&p);
    TRY(rv_grey_of(&p, shrinking(&p), &out->plain, err));
    TRY(rv_grey_flatten(&out->plain, &out->flat, err));
    TRY(rv_grey_letters(&out->flat, &out->letters, err));
done:
    rv_pixels_free(&p);
    return st;
}

static float page_scale(const rv_sheet *s, float letters) {
    const float width = (float)s->flat.width, height = (float)s->flat.height, pixels = width * height, longer = width > height ? width : height;
    float scale = s->letters > 0 ? letters / s->letters : 1;
    if (scale > MOST_ENLARGED) scale = MOST_ENLARGED;
    if (pixels * scale * scale > MOST_PIXELS) scale = sqrtf(MOST_PIXELS / pixels);
    return longer * scale > LONGEST ? LONGEST / longer : scale;
}

static rv_status read_page(rv_reader *r, const rv_image *image, float letters, rv_page *out, rv_error *err) {
    rv_sheet sheet = { 0 };
    rv_grey picture = { 0 };
    rv_status st = RV_OK;
    *out = (rv_page){ 0 };
    TRY(open_ocr(r, err));
    TRY(make_sheet(image, &sheet, &out->width, &out->height, err));
    const rv_grey_part all = { 0, 0, (float)sheet.flat.width, (float)sheet.flat.height };
    const float scale = page_scale(&sheet, letters);
    TRY(rv_grey_scaled(&sheet.flat, &all, scale, 1, 0, &picture, err));
    TRY(rv_ocr_words(r->ocr, &picture, RV_OCR_BLOCK, (rv_ocr_cut){ 0, 0, scale / sheet.shrink }, out, err));
    TRY(rv_ocr_cells(r->ocr, &sheet, out, err));
done:
    rv_grey_free(&picture);
    sheet_free(&sheet);
    if (st) rv_page_free(out);
    return st;
}

rv_status rv_ocr_page(rv_reader *r, const rv_image *image, rv_page *out, rv_error *err) { return read_page(r, image, LETTERS, out, err); }

rv_status rv_ocr_again(rv_reader *r, const rv_image *image, const rv_schema *schema, rv_page *page, rv_error *err) {
    rv_page other = { 0 };
    int worth, others = 0;
    bool full;
    rv_status st = rv_page_worth(page, schema, &worth, &full, err);
    if (st || full) return st;
    TRY(read_page(r, image, LARGER, &other, err));
    TRY(rv_page_worth(&other, schema, &others, &full, err));
    if (others > worth) {
        rv_page first = *page;
        *page = other;
        other = first;
    }
done:
    rv_page_free(&other);
    return st;
}
