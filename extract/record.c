/* record.c - slots and what goes into them: see record.h. */
#include "extract/record.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/text.h"
#include "extract/list.h"

rv_record *rv_record_blank(const rv_schema *schema) {
    rv_record *record = calloc(1, sizeof *record);
    if (!record) return NULL;
    record->schema = rv_schema_retain(schema);
    record->slots = rv_pool_take(&record->pool, schema->n_fields * sizeof *record->slots);
    if (!record->slots) {
        rv_record_free(record);
        return NULL;
    }
    for (uint32_t i = 0; i < schema->n_fields; i++)
        record->slots[i] = (rv_slot){ .raw = "", .source = "", .presence = -1, .confidence = -1, .grounding = -1 };
    record->file = record->doctype = "";
    record->doctype_confidence = -1;
    record->compliance = (rv_compliance){ .score = -1, .rules = "" };
    return record;
}

void rv_record_free(rv_record *record) {
    if (!record) return;
    rv_pool_free(&record->pool);
    rv_schema_free((rv_schema *)(uintptr_t)record->schema);
    free(record);
}

rv_status rv_record_enter(const rv_record *record, const char *what, rv_error *err) {
    if (!atomic_exchange(&((rv_record *)(uintptr_t)record)->entered, true)) return RV_OK;
    return rv_fail(err, RV_ERR_BUSY, "%s: another thread is using this record", what);
}

void rv_record_leave(const rv_record *record) { atomic_store(&((rv_record *)(uintptr_t)record)->entered, false); }

uint32_t rv_record_rows(const rv_record *record, int32_t group) {
    uint32_t rows = 0;
    for (uint32_t i = 0; i < record->schema->n_fields; i++)
        if (record->schema->fields[i].group == group && record->slots[i].n_items > rows) rows = record->slots[i].n_items;
    return rows;
}

const rv_value *rv_record_value(const rv_record *record, const char *key) {
    int32_t i = rv_schema_field(record->schema, key);
    if (i < 0 || record->slots[i].n_items == 0 || record->slots[i].items[0].state != RV_VALUE_VALID) return NULL;
    return &record->slots[i].items[0];
}

/* Every item of a list that a | parts keeps its own last digits; items parted otherwise are masked as one.  *out is as long as the text. */
static rv_status mask_value(rv_record *record, const rv_field *field, const char *text, size_t bytes, char **out, rv_error *err) {
    const bool keep = field->sensitivity == RV_SENSITIVE_TFN ? record->allow_tfn : field->sensitivity == RV_SENSITIVE_ACCOUNT && record->allow_account;
    const rv_sensitivity what = keep ? RV_SENSITIVE_NOT : field->sensitivity;
    rv_string all = { 0 };
    for (size_t at = 0, n; at < bytes; at += n) {
        uint32_t masked = 0;
        const char *end = field->list && what != RV_SENSITIVE_NOT ? memchr(text + at, '|', bytes - at) : NULL;
        n = end ? (size_t)(end - text) - at + 1 : bytes - at;
        char *item = rv_mask(text + at, n, what, &masked);
        if (item) rv_string_add(&all, item, n);
        all.failed = all.failed || !item;
        free(item);
        record->masked += masked;
    }
    rv_string_add(&all, "", 0);
    *out = all.failed ? NULL : all.data;
    if (*out) return RV_OK;
    rv_string_free(&all);
    return rv_fail_memory(err, field->key);
}

/* Tidying brings together digits that blanks, breaks and invisible characters kept apart: what is a number only then is masked now. */
static rv_status read_item(rv_record *record, const rv_field *field, rv_value_kind kind, const char *text, size_t bytes, rv_value *out, rv_error *err) {
    rv_value_context context = { field->choices, field->choice_aliases, record->today };
    const uint32_t before = record->masked;
    char *safe, *tidy = rv_tidy(&record->pool, text, bytes);
    if (!tidy) return rv_fail_memory(err, field->key);
    rv_status st = mask_value(record, field, tidy, strlen(tidy), &safe, err);
    if (st) return st;
    if (record->masked > before) text = safe, bytes = strlen(safe);
    rv_value_read(&record->pool, kind, text, bytes, &context, out);
    free(safe);
    return RV_OK;
}

static rv_status read_list(rv_record *record, const rv_field *field, const char *text, size_t bytes, bool cells, rv_slot *slot, rv_error *err) {
    rv_list list = { 0 };
    rv_status st = cells ? rv_list_cells(text, bytes, &list, err) : rv_list_split(field->kind, text, bytes, &list, err);
    if (st) return st;
    rv_value *items = list.count ? rv_pool_take(&record->pool, list.count * sizeof *items) : NULL;
    bool any = false;
    for (size_t i = 0; items && st == RV_OK && i < list.count; i++) {
        st = read_item(record, field, field->kind, list.items[i].text, list.items[i].bytes, &items[i], err);
        any = any || (st == RV_OK && items[i].state != RV_VALUE_ABSENT);
    }
    slot->items = items;
    slot->n_items = any ? (uint32_t)list.count : 0;        /* nothing but placeholders: the list is absent */
    rv_list_free(&list);
    return st;
}

/* A masked number cannot be checked any more: what is wrong with it is found out before. */
static void judge_masked(rv_record *record, const rv_field *field, const char *text, size_t bytes, rv_value *out) {
    rv_pool scratch = { 0 };
    rv_value whole;
    rv_value_read(&scratch, field->kind, text, bytes, NULL, &whole);
    if (whole.state == RV_VALUE_INVALID) {
        out->state = RV_VALUE_INVALID;
        out->why = whole.why;
    }
    record->pool.failed = record->pool.failed || scratch.failed;
    rv_pool_free(&scratch);
}

static rv_status set(rv_record *record, uint32_t i, const char *text, size_t bytes, bool cells, const char *source, rv_error *err) {
    const rv_field *field = &record->schema->fields[i];
    rv_slot *slot = &record->slots[i];
    char *safe;
    rv_status st = mask_value(record, field, text, bytes, &safe, err);
    if (st) return st;
    slot->items = NULL;
    slot->n_items = 0;
    slot->answered = true;
    slot->source = source && *source ? rv_pool_text(&record->pool, source, strlen(source)) : "";
    if (field->list) st = read_list(record, field, safe, bytes, cells, slot, err);
    else if ((slot->items = rv_pool_take(&record->pool, sizeof *slot->items))) {
        st = read_item(record, field, field->kind, safe, bytes, slot->items, err);
        if (st == RV_OK && field->kind == RV_KIND_TFN) judge_masked(record, field, text, bytes, slot->items);
        slot->n_items = st == RV_OK && slot->items->state != RV_VALUE_ABSENT;
    }
    const uint32_t masked = record->masked;
    rv_value raw = { .raw = "" };
    if (st == RV_OK && slot->n_items) st = read_item(record, field, RV_KIND_TEXT, safe, bytes, &raw, err);
    record->masked = masked;                               /* the same numbers again */
    slot->raw = raw.raw;
    free(safe);
    return st ? st : record->pool.failed ? rv_fail_memory(err, field->key) : RV_OK;
}

rv_status rv_record_set(rv_record *record, uint32_t field, const char *text, size_t bytes, const char *source, rv_error *err) {
    return set(record, field, text, bytes, false, source, err);
}

rv_status rv_record_set_cells(rv_record *record, uint32_t field, const char *text, size_t bytes, const char *source, rv_error *err) {
    return set(record, field, text, bytes, true, source, err);
}
