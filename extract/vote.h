/* vote.h - several readings of one place on a page: which of them is believed.
 *
 * The one idea: what matters of a cell of print are its dates and amounts; readings that find the same ones agree, however they differ
 * otherwise.  Nothing is put together from pieces: what is believed is one whole reading.  Pure functions: any thread.
 */
#ifndef RV_EXTRACT_VOTE_H
#define RV_EXTRACT_VOTE_H
#include "extract/page.h"

/* One reading: words of one line, from the left. */
typedef struct rv_opinion { const rv_word *words; uint32_t n_words; } rv_opinion;

typedef struct rv_verdict {
    uint32_t chosen;                     /* which opinion                                       */
    uint32_t agree;                      /* opinions with the same dates and amounts, itself included; 0: no opinion has any */
} rv_verdict;

/* Of n opinions (1 to RV_MOST_OPINIONS).  Where none has a date that exists, of a likely year, or an amount, the first is chosen. */
enum { RV_MOST_OPINIONS = 8 };
rv_status rv_vote(const rv_opinion *opinions, uint32_t n, rv_verdict *out, rv_error *err);

/* Whether a misread date or amount may stand there: digits enough, and not just a long number. */
bool     rv_may_say(const rv_opinion *opinion);
/* Whether it has the sign, or is called, as dates are. */
bool     rv_may_be_date(const rv_opinion *opinion);
uint32_t rv_opinion_digits(const rv_opinion *opinion);

/* A year of documents, not of misread digits. */
bool rv_likely_year(int year);
#endif
