/* check_rules.c - rules from data files: which apply on the document's date, and what they find. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/locale.h"
#include "engine/base/text.h"
#include "extract/check.h"
#include "extract/expr.h"
#include "extract/tree.h"

enum { MOST_RULE_FIELDS = 32 };

/* One rule, texts in the tree. */
typedef struct rule {
    const char    *id, *when, *test, *message, *suggestion, *source, *expected, *actual, *from, *to;
    rv_severity    severity;
    rv_layer       layer;
    double         weight;
    bool           gates[RV_GATES];
    const rv_node *node;
} rule;

/* ---- reading ------------------------------------------------------------------------------------- */

static const char *text_of(const rv_node *object, const char *key) {
    const rv_node *node = rv_node_get(object, key);
    return node && node->type == RV_JSON_STRING ? node->text : NULL;
}

static bool pick(const char *text, const char *const *words, int n, int *out) {
    for (int i = 0; text && i < n; i++)
        if (strcmp(words[i], text) == 0) {
            *out = i;
            return true;
        }
    return false;
}

static const char *const gates[RV_GATES] = { "tax_invoice", "gst_credit", "deduction" };

static rv_status wrong_text(const rv_tree *tree, const rv_node *node, rv_error *err) {
    return rv_node_fail(tree, node, err, "must be a string, is %s", rv_node_type(node));
}

/* Everything but whether the expressions compile. */
static rv_status read_rule(const rv_tree *tree, const rv_node *node, rule *out, rv_error *err) {
    static const char *const keys[] = { "id",     "when",     "test",   "message",    "suggestion",
                                        "source", "expected", "actual", "valid_from", "valid_to" };
    static const char *const others[] = { "severity", "layer", "weight", "gates" };
    *out = (rule){ .node = node, .weight = 1, .severity = RV_SEVERITY_WARNING, .layer = RV_LAYER_CONSISTENCY };
    const char **texts[] = { &out->id,     &out->when,     &out->test,   &out->message, &out->suggestion,
                             &out->source, &out->expected, &out->actual, &out->from,    &out->to };
    int which;
    if (node->type != RV_JSON_OBJECT) return rv_node_fail(tree, node, err, "must be an object, is %s", rv_node_type(node));
    for (const rv_node *child = node->first; child; child = child->next) {
        if (pick(child->key, keys, 10, &which)) {
            if (child->type != RV_JSON_STRING || !child->bytes) return wrong_text(tree, child, err);
            *texts[which] = child->text;
        } else if (!pick(child->key, others, 4, &which)) return rv_node_fail(tree, child, err, "\"%.60s\" is no part of a rule", child->key);
    }
    const rv_node *severity = rv_node_get(node, "severity"), *layer = rv_node_get(node, "layer"), *weight = rv_node_get(node, "weight"),
                  *gate = rv_node_get(node, "gates");
    if (severity && !rv_severity_find(severity->text, &out->severity))
        return rv_node_fail(tree, severity, err, "must be info, warning or error");
    if (layer && !rv_layer_find(layer->text, &out->layer)) return rv_node_fail(tree, layer, err, "must be format, consistency or legal");
    if (weight && weight->type != RV_JSON_NUMBER) return rv_node_fail(tree, weight, err, "must be a number");
    if (weight) out->weight = rv_number(weight->text, NULL);
    if (!(out->weight >= 0 && out->weight <= 1000)) return rv_node_fail(tree, weight, err, "must be from 0 to 1000");
    for (const rv_node *child = gate ? gate->first : NULL; child; child = child->next) {
        if (!pick(child->text, gates, RV_GATES, &which)) return rv_node_fail(tree, child, err, "must be tax_invoice, gst_credit or deduction");
        out->gates[which] = true;
    }
    if (!out->id || !out->test || !out->message) return rv_node_fail(tree, node, err, "a rule needs id, test and message");
    return RV_OK;
}

static rv_status check_dates(const rv_tree *tree, const rv_node *object, rv_error *err) {
    static const char *const keys[] = { "valid_from", "valid_to" };
    rv_date date;
    for (int i = 0; i < 2; i++) {
        const rv_node *node = rv_node_get(object, keys[i]);
        if (node && (node->type != RV_JSON_STRING || !rv_date_parse_iso(node->text, &date)))
            return rv_node_fail(tree, node, err, "must be a day as \"2000-07-01\"");
    }
    return RV_OK;
}

rv_status rv_rules_check(const char *file, const char *json, size_t bytes, rv_error *err) {
    rv_tree tree;
    rv_status st = rv_tree_parse(file, json, bytes, &tree, err);
    if (st) return st;
    const rv_node *list = rv_node_get(tree.root, "rules");
    TRY(check_dates(&tree, tree.root, err));
    if (!list || list->type != RV_JSON_ARRAY) {
        st = rv_node_fail(&tree, tree.root, err, "rules is missing: an array");
        goto done;
    }
    for (const rv_node *node = list->first; node; node = node->next) {
        rule r;
        TRY(read_rule(&tree, node, &r, err));
        TRY(check_dates(&tree, node, err));
        const char *const expressions[] = { "when", "test", "expected", "actual" };
        for (int i = 0; i < 4; i++) {
            rv_error why;
            const rv_node *text = rv_node_get(node, expressions[i]);
            if (text && rv_expr_check(NULL, text->text, false, &why)) {
                st = rv_node_fail(&tree, text, err, "%s", why.message);
                goto done;
            }
        }
    }
done:
    rv_tree_free(&tree);
    return st;
}

/* ---- running --------------------------------------------------------------------------------------- */

/* The day that decides which rules hold: the document's, else today, else none (all that have not ended). */
static rv_date day_of(const rv_record *r) {
    static const char *const keys[] = { "INVOICE_DATE", "TRANSACTION_DATE", "DATE" };
    for (int i = 0; i < 3; i++) {
        const rv_value *v = rv_record_value(r, keys[i]);
        if (v && v->kind == RV_KIND_DATE && v->first.year) return v->first;
    }
    return r->today;
}

static bool holds_on(rv_date day, const char *from, const char *to) {
    rv_date d;
    if (!day.year) return !to;
    if (from && rv_date_parse_iso(from, &d) && rv_date_compare(day, d) < 0) return false;
    return !(to && rv_date_parse_iso(to, &d) && rv_date_compare(day, d) > 0);
}

static void show(const rv_record *r, const char *text, char out[64]) {
    rv_answer a;
    out[0] = '\0';
    if (!text || rv_expr_run(r, text, &a, NULL) || !a.known) return;
    rv_unit unit = rv_expr_unit(r->schema, text);
    if (unit == RV_UNIT_CENTS) rv_money_text(a.value, "", out);
    else if (unit == RV_UNIT_DAYS && a.value > -800000 && a.value < 3000000) {
        rv_date d = rv_date_of_days((int32_t)a.value);
        snprintf(out, 64, "%02d/%02d/%04d", d.day, d.month, d.year);
    } else if (unit == RV_UNIT_TRUTH) snprintf(out, 64, "%s", a.value ? "true" : "false");
    else snprintf(out, 64, "%lld", (long long)a.value);
}

static void settle_gates(rv_check *c, const rule *r, rv_answer answer) {
    for (int g = 0; g < RV_GATES; g++) {
        if (!r->gates[g]) continue;
        if (!answer.known) c->gate_open[g] = true;
        else if (!answer.value) c->gates[g] = RV_NO;
        else if (c->gates[g] == RV_UNKNOWN) c->gates[g] = RV_YES;
    }
}

static rv_status run_rule(rv_check *c, const rule *r, const uint32_t *own, uint32_t n_own) {
    rv_answer when = { true, 1 }, answer;
    uint32_t fields[MOST_RULE_FIELDS], n = n_own;
    char expected[64], actual[64];
    rv_status st = r->when ? rv_expr_run(c->record, r->when, &when, c->err) : RV_OK;
    if (st == RV_OK) st = rv_expr_run(c->record, r->test, &answer, c->err);
    if (st) return rv_fail_in(c->err, st, "rule %s", r->id);
    if (!when.known || !when.value) return RV_OK;
    settle_gates(c, r, answer);
    if (!answer.known) return RV_OK;
    rv_check_count(c, r->weight, answer.value);
    if (answer.value) return RV_OK;
    if (n_own) memcpy(fields, own, n_own * sizeof *fields);
    else n = rv_expr_fields(c->record->schema, r->test, fields, MOST_RULE_FIELDS);
    show(c->record, r->expected, expected);
    show(c->record, r->actual, actual);
    st = rv_check_add(c, r->id, r->severity, r->layer, fields, n, -1, r->message, expected, actual, r->suggestion, r->source);
    return st || r->layer != RV_LAYER_LEGAL ? st : rv_check_recommend(c, r->suggestion);
}

static rv_status run_set(rv_check *c, const char *name, rv_string *used) {
    char path[96];
    rv_tree tree;
    snprintf(path, sizeof path, "rules/%.70s.json", name);
    const rv_data_file *file = rv_data_find(path);
    if (!file) return rv_fail(c->err, RV_ERR_INTERNAL, "%s: not built in", path);
    rv_status st = rv_tree_parse(path, file->data, file->bytes, &tree, c->err);
    if (st) return st;
    rv_date day = day_of(c->record);
    const char *from = text_of(tree.root, "valid_from"), *source = text_of(tree.root, "source");
    const rv_node *list = rv_node_get(tree.root, "rules");
    if (!holds_on(day, from, text_of(tree.root, "valid_to"))) goto done;
    rv_string_addf(used, "%s%s@%s", used->bytes ? " " : "", name, from ? from : "");
    for (const rv_node *node = list ? list->first : NULL; node; node = node->next) {
        rule r;
        TRY(read_rule(&tree, node, &r, c->err));
        if (!r.source) r.source = source;
        if (holds_on(day, r.from, r.to)) TRY(run_rule(c, &r, NULL, 0));
    }
done:
    rv_tree_free(&tree);
    return st;
}

static rv_status run_own(rv_check *c, const rv_rule_text *text) {
    uint32_t fields[MOST_RULE_FIELDS], n = 0;
    rv_severity severity = RV_SEVERITY_WARNING;
    for (uint32_t i = 0; i < text->fields.count && n < MOST_RULE_FIELDS; i++)
        fields[n++] = (uint32_t)rv_schema_field(c->record->schema, text->fields.items[i]);
    rv_severity_find(text->severity, &severity);
    rule r = { .id = text->id, .when = text->when, .test = text->test, .message = text->message, .suggestion = text->suggestion,
               .severity = severity, .layer = RV_LAYER_CONSISTENCY, .weight = 1 };
    return run_rule(c, &r, fields, n);
}

rv_status rv_check_rules(rv_check *c) {
    const rv_schema *schema = c->record->schema;
    rv_string used = { 0 };
    rv_status st = RV_OK;
    for (uint32_t i = 0; i < schema->rule_sets.count && st == RV_OK; i++) st = run_set(c, schema->rule_sets.items[i], &used);
    for (uint32_t i = 0; i < schema->n_rules && st == RV_OK; i++) st = run_own(c, &schema->rules[i]);
    if (st == RV_OK && used.bytes) {
        const char *copy = rv_pool_text(&c->record->pool, used.data, used.bytes);
        if (copy) c->record->compliance.rules = copy;
        else st = rv_fail_memory(c->err, "rules");
    }
    rv_string_free(&used);
    return st;
}
