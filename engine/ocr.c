/* ocr.c - Tesseract, loaded when it is there: its C interface by name, so that the library does not depend on it. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "engine/image.h"
#include "engine/reader.h"

enum { SMALL_EDGE = 1200, UPSCALE = 2, RESOLUTION = 300,
       LEVEL_LINE = 2, LEVEL_WORD = 3, PAGE_BLOCK = 6 };     /* tesseract/publictypes.h: RIL_TEXTLINE, RIL_WORD, PSM_SINGLE_BLOCK */

/* Those functions of tesseract/capi.h that are needed. */
typedef struct tesseract {
    const char *(*version)(void);
    void *(*create)(void);
    int   (*init)(void *api, const char *folder, const char *language);
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
    static const char *const names[] = { "TessVersion", "TessBaseAPICreate", "TessBaseAPIInit3", "TessBaseAPISetPageSegMode", "TessBaseAPISetImage",
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
    ocr->fn.set_mode(ocr->api, PAGE_BLOCK);
    r->ocr = ocr;
    return RV_OK;
}

static bool is_small(uint32_t width, uint32_t height) { return width < SMALL_EDGE || height < SMALL_EDGE; }

/* Small print is read better when it is larger. */
static rv_status enlarge(rv_pixels *p, int32_t *scale, rv_error *err) {
    uint8_t *large = malloc((size_t)p->width * p->height * 3 * UPSCALE * UPSCALE);
    if (!large) return rv_fail_memory(err, "page for Tesseract");
    rv_status st = rv_resize_rgb(p->rgb, p->width, p->height, large, p->width * UPSCALE, p->height * UPSCALE, RV_RESIZE_PIL, err);
    if (st) return free(large), st;
    free(p->rgb);
    p->rgb = large;
    p->width *= UPSCALE;
    p->height *= UPSCALE;
    *scale = UPSCALE;
    return RV_OK;
}

static rv_status collect(const tesseract *t, void *it, float scale, rv_page *out, rv_error *err) {
    const void *page = t->page_iterator(it);
    int32_t line = -1;
    rv_status st = RV_OK;
    do {
        int left, top, right, bottom;
        char *text = t->text(it, LEVEL_WORD);
        if (t->begins(page, LEVEL_LINE)) line++;
        if (text && *text && t->box(page, LEVEL_WORD, &left, &top, &right, &bottom)) {
            rv_box box = { (float)left / scale, (float)top / scale, (float)(right - left) / scale, (float)(bottom - top) / scale };
            st = rv_page_add(out, text, box, t->confidence(it, LEVEL_WORD) / 100, line, err);
        }
        if (text) t->delete_text(text);
    } while (st == RV_OK && t->next(it, LEVEL_WORD));
    return st;
}

static rv_status read_page(rv_reader *r, const rv_image *image, bool enlarged, rv_page *out, rv_error *err) {
    rv_pixels p = { 0 };
    int32_t tiles, scale = 1;
    rv_status st = RV_OK;
    *out = (rv_page){ 0 };
    TRY(open_ocr(r, err));
    TRY(rv_image_read(image, false, &p, &tiles, err));
    out->width = p.width;
    out->height = p.height;
    if (enlarged && is_small(p.width, p.height)) TRY(enlarge(&p, &scale, err));
    const tesseract *t = &r->ocr->fn;
    t->set_image(r->ocr->api, p.rgb, (int)p.width, (int)p.height, 3, (int)p.width * 3);
    t->set_resolution(r->ocr->api, RESOLUTION);
    if (t->recognize(r->ocr->api, NULL)) TRY(rv_fail(err, RV_ERR_FORMAT, "Tesseract could not read the page"));
    void *it = t->iterator(r->ocr->api);
    if (it) st = collect(t, it, (float)scale, out, err);         /* NULL: a page without words */
    if (it) t->iterator_delete(it);
    t->clear(r->ocr->api);
done:
    rv_pixels_free(&p);
    if (st) rv_page_free(out);
    return st;
}

rv_status rv_ocr_page(rv_reader *r, const rv_image *image, rv_page *out, rv_error *err) { return read_page(r, image, true, out, err); }

rv_status rv_ocr_again(rv_reader *r, const rv_image *image, const rv_schema *schema, rv_page *page, rv_error *err) {
    rv_page other = { 0 };
    int worth, others = 0;
    bool full;
    if (!is_small(page->width, page->height)) return RV_OK;
    rv_status st = rv_page_worth(page, schema, &worth, &full, err);
    if (st || full) return st;
    TRY(read_page(r, image, false, &other, err));
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
