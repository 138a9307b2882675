/* value.c - text to value by kind: see value.h. */
#include "extract/value.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <utf8proc.h>

#include "engine/base/text.h"
#include "extract/value_read.h"

static const char *const kind_names[RV_KINDS] = {
    [RV_KIND_TEXT] = "text", [RV_KIND_NAME] = "name", [RV_KIND_ADDRESS] = "address", [RV_KIND_ID] = "id", [RV_KIND_ENUM] = "enum",
    [RV_KIND_BOOL] = "bool", [RV_KIND_MONEY] = "money", [RV_KIND_QUANTITY] = "quantity", [RV_KIND_PERCENT] = "percent",
    [RV_KIND_DATE] = "date", [RV_KIND_DATE_RANGE] = "date_range", [RV_KIND_TIME] = "time", [RV_KIND_ABN] = "abn",
    [RV_KIND_ACN] = "acn", [RV_KIND_TFN] = "tfn", [RV_KIND_BSB] = "bsb", [RV_KIND_ACCOUNT] = "account", [RV_KIND_CARD] = "card",
    [RV_KIND_PHONE] = "phone", [RV_KIND_EMAIL] = "email", [RV_KIND_URL] = "url",
};

const char *rv_kind_name(rv_value_kind kind) { return (unsigned)kind < RV_KINDS ? kind_names[kind] : "?"; }

bool rv_kind_find(const char *name, rv_value_kind *out) {
    for (int i = 0; i < RV_KINDS; i++) {
        if (strcmp(kind_names[i], name)) continue;
        *out = (rv_value_kind)i;
        return true;
    }
    return false;
}

/* ---- text ------------------------------------------------------------------------------------ */

static bool is_blank(uint32_t code) {
    return code <= 0x20 || (code >= 0x7f && code <= 0xa0) || (code >= 0x2000 && code <= 0x200b) || code == 0x2028 || code == 0x2029 ||
           code == 0x202f || code == 0x3000 || code == 0xfeff;
}

/* Marks that turn the order of what is shown, or show nothing: no page prints them. */
static bool is_invisible(uint32_t code) {
    return code == 0xad || (code >= 0x200c && code <= 0x200f) || (code >= 0x202a && code <= 0x202e) || (code >= 0x2060 && code <= 0x206f) ||
           (code >= 0xfff9 && code <= 0xfffb) || (code >= 0xe0000 && code <= 0xe007f);
}

static char *squeeze(rv_pool *pool, const char *text, size_t bytes) {
    if (bytes > SIZE_MAX / 8) {
        pool->failed = true;
        return NULL;
    }
    char *out = rv_pool_take(pool, 3 * bytes + 1);         /* a bad byte becomes three */
    if (!out) return NULL;
    size_t n = 0;
    bool blank = false;
    for (size_t at = 0; at < bytes;) {
        uint32_t code;
        size_t width = rv_utf8_read(text + at, bytes - at, &code);
        if (width == 0) code = 0xfffd, width = 1;
        at += width;
        if (is_invisible(code)) continue;
        if (is_blank(code)) {
            blank = n > 0;
            continue;
        }
        if (blank) out[n++] = ' ';
        blank = false;
        n += rv_utf8_write(code, out + n);
    }
    out[n] = '\0';
    return out;
}

char *rv_tidy(rv_pool *pool, const char *text, size_t bytes) {
    char *out = squeeze(pool, text, bytes);
    bool ascii = true;
    for (const char *at = out; at && *at && ascii; at++) ascii = (uint8_t)*at < 0x80;
    if (!out || ascii) return out;
    utf8proc_uint8_t *composed = NULL;
    utf8proc_ssize_t n =
        utf8proc_map((const utf8proc_uint8_t *)out, (utf8proc_ssize_t)strlen(out), &composed, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    char *copy = n >= 0 ? rv_pool_text(pool, (const char *)composed, (size_t)n) : NULL;
    free(composed);
    if (n == UTF8PROC_ERROR_NOMEM) pool->failed = true;
    return copy ? copy : pool->failed ? NULL : out;
}

bool rv_says_absent(const char *text, size_t bytes) {
    static const char *const words[] = {
        "notfound", "none", "null", "nil", "na", "n/a", "notvisible", "notavailable", "notshown", "notapplicable", "notpresent",
        "notprovided", "notspecified", "notlisted", "notmentioned", "notstated", "notprinted", "notlegible", "unspecified", "missing", "absent",
        "unknown", "notgiven", "notindicated",
    };
    char letters[24];
    size_t n = 0;
    for (size_t i = 0; i < bytes; i++) {
        char c = (char)tolower((uint8_t)text[i]);
        if (strchr(" _-.\"'()[]<>*`\t\n\r", c) && c) continue;
        if (n == sizeof letters - 1) return false;
        letters[n++] = c;
    }
    letters[n] = '\0';
    if (n == 0) return true;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(words[i], letters) == 0) return true;
    return false;
}

bool rv_skip_word(const char **at, const char *word) {
    size_t n = strlen(word);
    if (strncasecmp(*at, word, n) != 0 || isalpha((uint8_t)(*at)[n])) return false;
    *at += n;
    rv_skip_blanks(at);
    return true;
}

/* ---- kinds whose normal form is nearly their text ---------------------------------------------- */

static void read_text(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out) {
    (void)pool, (void)context;
    out->text = text;
}

/* "1 / 92 High St" is unit 1 of number 92. */
static void read_address(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out) {
    char *copy = rv_pool_text(pool, text, strlen(text));
    (void)context;
    if (!copy) return;
    size_t n = 0;
    for (const char *at = text; *at; at++) {
        bool after = n && copy[n - 1] == '/' && n > 1 && isdigit((uint8_t)copy[n - 2]) && *at == ' ' && isdigit((uint8_t)at[1]);
        bool before = *at == ' ' && at[1] == '/' && n && isdigit((uint8_t)copy[n - 1]) &&
                      (isdigit((uint8_t)at[2]) || (at[2] == ' ' && isdigit((uint8_t)at[3])));
        if (!after && !before) copy[n++] = *at;
    }
    copy[n] = '\0';
    out->text = copy;
}

/* "No. 42", "Number: A-17", "No 1234 5678": a label needs a mark behind it, or nothing but one number: "Number 9 Dream" and "NO-77" have none. */
static void skip_number_label(const char **at) {
    const char *behind = *at;
    if (!rv_skip_word(&behind, "number") && !rv_skip_word(&behind, "no")) return;
    const size_t marks = strspn(behind, ".:# ");
    const bool blank = behind[-1] == ' ';
    if (!marks && !blank && *behind) return;
    for (const char *word = marks ? NULL : strchr(behind, ' '); word; word = strchr(word + 1, ' '))
        if (!isdigit((uint8_t)word[1])) return;
    *at = behind + marks;
}

/* Document numbers: without the words that introduce them. */
static void read_id(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out) {
    const char *at = text, *before;
    (void)pool, (void)context;
    do {
        before = at;
        skip_number_label(&at);
        at += strspn(at, "# ");
    } while (at != before);
    out->text = *at ? at : text;
}

static void read_bool(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out) {
    static const struct { const char *word; int64_t value; } words[] = {
        { "true", 1 }, { "yes", 1 }, { "y", 1 }, { "1", 1 }, { "false", 0 }, { "no", 0 }, { "n", 0 }, { "0", 0 },
    };
    (void)pool, (void)context;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcasecmp(words[i].word, text)) continue;
        out->number = words[i].value;
        out->text = words[i].value ? "true" : "false";
        return;
    }
    out->why = "not true or false";
}

static bool same_words(const char *a, const char *b) {
    for (;;) {
        while (*a == ' ' || *a == '_' || *a == '-') a++;
        while (*b == ' ' || *b == '_' || *b == '-') b++;
        if (toupper((uint8_t)*a) != toupper((uint8_t)*b)) return false;
        if (!*a) return true;
        a++, b++;
    }
}

static bool is_choice(const rv_value_context *context, uint32_t i, const char *text) {
    const rv_texts *others = context->choice_aliases ? &context->choice_aliases[i] : NULL;
    if (same_words(context->choices.items[i], text)) return true;
    for (uint32_t a = 0; others && a < others->count; a++)
        if (same_words(others->items[a], text)) return true;
    return false;
}

static bool is_any_choice(const rv_value_context *context, const char *text) {
    for (uint32_t i = 0; context && i < context->choices.count; i++)
        if (is_choice(context, i, text)) return true;
    return false;
}

static void read_enum(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out) {
    (void)pool;
    for (uint32_t i = 0; i < context->choices.count; i++) {
        if (!is_choice(context, i, text)) continue;
        out->number = i;
        out->text = context->choices.items[i];
        return;
    }
    out->why = "not one of the allowed values";
}

static void read_email(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out) {
    char *copy = rv_pool_text(pool, text, strlen(text));
    (void)context;
    if (!copy) return;
    for (char *at = copy; *at; at++) *at = (char)tolower((uint8_t)*at);
    char *sign = strchr(copy, '@');
    const char *dot = sign ? strrchr(sign, '.') : NULL;
    bool fits = sign && sign != copy && dot && dot > sign + 1 && strlen(dot) > 2 && !strchr(sign + 1, '@') && !strpbrk(copy, " ,;<>()\"");
    out->text = copy;
    if (!fits) out->why = "not an e-mail address";
}

static void read_url(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out) {
    const char *at = text;
    (void)context;
    if (strncasecmp(at, "https://", 8) == 0) at += 8;
    else if (strncasecmp(at, "http://", 7) == 0) at += 7;
    size_t host = strcspn(at, "/?#");
    char *copy = rv_pool_text(pool, at, strlen(at));
    if (!copy) return;
    const char *dot = memchr(copy, '.', host);
    bool fits = host > 3 && dot && dot != copy && !strchr(copy, ' ') && !strpbrk(copy, "<>\"'") && dot[1] && (size_t)(dot - copy) + 1 < host;
    for (size_t i = 0; i < host; i++) copy[i] = (char)tolower((uint8_t)copy[i]);
    for (size_t n = strlen(copy); n && copy[n - 1] == '/'; n--) copy[n - 1] = '\0';
    out->text = fits ? copy : text;
    if (!fits) out->why = "not a web address";
}

static const rv_reader readers[RV_KINDS] = {
    [RV_KIND_TEXT] = read_text, [RV_KIND_NAME] = read_text, [RV_KIND_ADDRESS] = read_address, [RV_KIND_ID] = read_id,
    [RV_KIND_ENUM] = read_enum, [RV_KIND_BOOL] = read_bool, [RV_KIND_MONEY] = rv_read_money, [RV_KIND_QUANTITY] = rv_read_quantity,
    [RV_KIND_PERCENT] = rv_read_percent, [RV_KIND_DATE] = rv_read_date, [RV_KIND_DATE_RANGE] = rv_read_date_range,
    [RV_KIND_TIME] = rv_read_time, [RV_KIND_ABN] = rv_read_abn, [RV_KIND_ACN] = rv_read_acn, [RV_KIND_TFN] = rv_read_tfn,
    [RV_KIND_BSB] = rv_read_bsb, [RV_KIND_ACCOUNT] = rv_read_account, [RV_KIND_CARD] = rv_read_card, [RV_KIND_PHONE] = rv_read_phone,
    [RV_KIND_EMAIL] = read_email, [RV_KIND_URL] = read_url,
};

/* As it was read, but a C string: a NUL byte becomes U+FFFD, as do bytes that are no UTF-8. */
static char *keep_raw(rv_pool *pool, const char *text, size_t bytes) {
    if (rv_utf8_check(text, bytes) == bytes && !memchr(text, '\0', bytes)) return rv_pool_text(pool, text, bytes);
    char *out = rv_pool_take(pool, 3 * bytes + 1);
    size_t n = 0;
    for (size_t at = 0; out && at < bytes;) {
        uint32_t code;
        size_t width = rv_utf8_read(text + at, bytes - at, &code);
        if (width == 0 || code == 0) code = 0xfffd, width = 1;
        at += width;
        n += rv_utf8_write(code, out + n);
    }
    return out;
}

/* Of an amount "nil" says something: there is none, where "N/A" says nothing. */
static bool says_absent(rv_value_kind kind, const rv_value_context *context, const char *tidy) {
    if (!rv_says_absent(tidy, strlen(tidy))) return false;
    return kind == RV_KIND_ENUM ? !is_any_choice(context, tidy) : kind != RV_KIND_MONEY || strcasecmp(tidy, "nil");
}

void rv_value_read(rv_pool *pool, rv_value_kind kind, const char *text, size_t bytes, const rv_value_context *context, rv_value *out) {
    static const rv_value_context nothing;
    *out = (rv_value){ .kind = kind, .raw = "", .text = RV_NOT_FOUND };
    if (kind == RV_KIND_MONEY) memcpy(out->currency, "AUD", 4);
    if (bytes && (kind == RV_KIND_ENUM || kind == RV_KIND_MONEY || !rv_says_absent(text, bytes) || kind == RV_KIND_BOOL)) {
        const char *raw = keep_raw(pool, text, bytes), *tidy = rv_tidy(pool, text, bytes);
        if (!raw || !tidy) return;
        if (says_absent(kind, context, tidy)) return;
        out->raw = raw;
        out->text = tidy;
        readers[kind](pool, tidy, context ? context : &nothing, out);
        if (kind != RV_KIND_ENUM && rv_says_absent(out->text, strlen(out->text))) out->text = tidy;        /* "#-" without its sign would be nothing */
        out->state = out->why ? RV_VALUE_INVALID : RV_VALUE_VALID;
    }
}

/* ---- comparing ------------------------------------------------------------------------------- */

static bool same_range(const rv_value *a, const rv_value *b) {
    return rv_date_compare(a->first, b->first) == 0 && rv_date_compare(a->last, b->last) == 0;
}

bool rv_value_same(const rv_value *a, const rv_value *b) {
    if (a->state == RV_VALUE_ABSENT || b->state == RV_VALUE_ABSENT) return a->state == b->state;
    if (a->state != b->state || a->kind != b->kind || a->state == RV_VALUE_INVALID) return strcmp(a->text, b->text) == 0;
    switch (a->kind) {
    case RV_KIND_MONEY: return a->number == b->number && strcmp(a->currency, b->currency) == 0 && (!a->inexact || strcmp(a->text, b->text) == 0);
    case RV_KIND_QUANTITY: case RV_KIND_PERCENT: case RV_KIND_BOOL: case RV_KIND_TIME: return a->number == b->number;
    case RV_KIND_DATE: case RV_KIND_DATE_RANGE: return same_range(a, b);
    default: return strcmp(a->text, b->text) == 0;
    }
}
