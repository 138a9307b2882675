/* ocr.h - Tesseract on a page, from the inside.
 *
 * The one idea: Tesseract finds the lines on a page best where paper is white and letters have one size, and reads single cells better
 * when they are cut out; so a page is read once as a whole, and the cells that may hold dates and amounts are read again until two
 * readings agree.
 */
#ifndef RV_ENGINE_OCR_H
#define RV_ENGINE_OCR_H
#include "engine/grey.h"
#include "extract/page.h"

struct rv_ocr;

/* A page made ready. */
typedef struct rv_sheet {
    rv_grey plain, flat;                 /* as it is, and its paper white; of one size          */
    float   shrink;                      /* pixels of the page that one of these stands for     */
    float   letters;                     /* height of capitals in pixels of these; 0: not known */
} rv_sheet;

/* What Tesseract takes a picture for (tesseract/publictypes.h). */
enum { RV_OCR_BLOCK = 6, RV_OCR_LINE = 7 };

/* Where the picture was cut from: its pixel (0, 0) lies at x, y of the page, `scale` of its pixels are one of the page. */
typedef struct rv_ocr_cut { float x, y, scale; } rv_ocr_cut;

/* engine/ocr.c: adds the picture's words to *out, in pixels of the page. */
rv_status rv_ocr_words(struct rv_ocr *ocr, const rv_grey *picture, int mode, rv_ocr_cut cut, rv_page *out, rv_error *err);

/* engine/ocr_cells.c: second opinions on the page's cells with dates and amounts. */
rv_status rv_ocr_cells(struct rv_ocr *ocr, const rv_sheet *sheet, rv_page *page, rv_error *err);
#endif
