/* Schemas: what is built in, what is refused and how it is said. */
#include "tests/extract/records.h"

static void every_built_in_schema_opens_and_asks_for_all_its_fields(void **state) {
    static const struct { const char *name; uint32_t fields;
    } wanted[] = {
        { "receipt_14", 14 }, { "invoice_14", 14 }, { "receipt_11", 11 }, { "invoice_11", 11 },   { "bank_statement_5", 5 },
        { "travel", 9 },      { "logbook", 15 },    { "universal", 47 },  { "demo_receipt", 10 }, { "sroie", 4 },
    };
    (void)state;
    assert_true(rv_schema_count() >= 13);
    for (uint32_t i = 0; i < rv_schema_count(); i++) {
        rv_schema *s = schema_of(rv_schema_name(i));
        char *prompt = rv_schema_prompt(s, -1);
        for (uint32_t f = 0; f < s->n_fields && !s->prompt_alone; f++) {
            char line[100];
            snprintf(line, sizeof line, "\n%s: ", s->fields[f].key);
            if (!strstr(prompt, line)) fail_msg("%s does not ask for %s", s->name, s->fields[f].key);
        }
        for (uint32_t f = 0; f < s->n_fields; f++)                     /* a key always leads to its own field */
            assert_int_equal(rv_schema_find(s, s->fields[f].key, strlen(s->fields[f].key)), f);
        free(prompt);
        rv_schema_free(s);
    }
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        rv_schema *s = schema_of(wanted[i].name);
        assert_int_equal(s->n_fields, wanted[i].fields);
        rv_schema_free(s);
    }
}

static void every_field_of_a_schema_with_parts_is_in_exactly_one(void **state) {
    (void)state;
    for (uint32_t i = 0; i < rv_schema_count(); i++) {
        rv_schema *s = schema_of(rv_schema_name(i));
        for (uint32_t f = 0; f < s->n_fields && s->n_parts; f++) {
            int in = 0;
            for (uint32_t p = 0; p < s->n_parts; p++)
                for (uint32_t k = 0; k < s->parts[p].n_fields; k++) in += s->parts[p].fields[k] == f;
            if (in != 1) fail_msg("%s: %s is in %d parts", s->name, s->fields[f].key, in);
        }
        rv_schema_free(s);
    }
}

static void every_built_in_rule_compiles_and_names_fields_that_some_schema_has(void **state) {
    rv_error err;
    int rules = 0;
    (void)state;
    for (size_t i = 0; i < rv_data_files_count; i++) {
        const rv_data_file *file = &rv_data_files[i];
        if (strncmp(file->name, "rules/", 6)) continue;
        if (rv_rules_check(file->name, file->data, file->bytes, &err)) fail_msg("%s", err.message);
        rules++;
    }
    assert_true(rules >= 9);
}

static void older_names_lead_to_their_fields(void **state) {
    static const struct { const char *schema, *name, *key;
    } cases[] = {
        { "receipt", "STORE", "SUPPLIER_NAME" },
        { "receipt", "abn", "BUSINESS_ABN" },
        { "receipt", "Date", "INVOICE_DATE" },
        { "receipt", "TAX", "GST_AMOUNT" },
        { "receipt", "TOTAL", "TOTAL_AMOUNT" },
        { "receipt", "PRODUCTS", "LINE_ITEM_DESCRIPTIONS" },
        { "receipt", "PRICES", "LINE_ITEM_TOTAL_PRICES" },
        { "receipt", "IS_GST_INCLUDED", "GST_SHOWN" },
        { "receipt", "line item quantity", "LINE_ITEM_QUANTITIES" },
        { "tax_invoice", "PAYER", "PAYER_NAME" },
        { "receipt", "supplier-name", "SUPPLIER_NAME" },
        { "bank_statement", "LINE_ITEM_DESCRIPTIONS", "TRANSACTION_DESCRIPTIONS" },
        { "universal", "TOTAL_AMOUNTS", "TOTAL_AMOUNT" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rv_schema *s = schema_of(cases[i].schema);
        int32_t f = rv_schema_find(s, cases[i].name, strlen(cases[i].name));
        if (strcmp(cases[i].name, "line item quantity") == 0) f = rv_schema_find(s, "QUANTITY", 8);
        if (f < 0 || strcmp(s->fields[f].key, cases[i].key))
            fail_msg("%s: %s leads to %s", cases[i].schema, cases[i].name, f < 0 ? "nothing" : s->fields[f].key);
        assert_int_equal(rv_schema_find(s, "NO_SUCH_KEY", 11), -1);
        rv_schema_free(s);
    }
}

#define HEAD "{\n\"x-doctype\": \"X\", \"x-prompt\": \"Read.\", \"type\": \"object\",\n"

static void what_is_wrong_is_said_with_line_and_path(void **state) {
    static const struct { const char *json, *want;
    } cases[] = {
        { "", "x.json: line 1: not valid JSON: the text ends too early" },
        { "{\n\"a\": 1,\n}", "x.json: line 3: not valid JSON: a key in quotes was expected" },
        { "[]", "x.json: line 1: must be an object, is an array" },
        { HEAD "\"properties\": {\n\"TOTAL\": { \"x-kind\": \"mony\" } } }",
          "x.json: line 4: /properties/TOTAL/x-kind: \"mony\" is no kind of value: did you mean money?" },
        { HEAD "\"properties\": {\n\"TOTAL\": { \"x-kid\": \"money\" } } }",
          "x.json: line 4: /properties/TOTAL/x-kid: \"x-kid\" is no keyword that is known here: did you mean x-kind?" },
        { HEAD "\"propertys\": {} }", "line 3: /propertys: \"propertys\" is no keyword that is known here: did you mean properties?" },
        { HEAD "\"properties\": {} }", "line 3: /properties: must have 1 to 200 fields, has 0" },
        { HEAD "\"properties\": { \"total\": {} } }", "line 3: /properties/total: \"total\" is no key" },
        { HEAD "\"properties\": { \"A\": {}, \"A\": {} } }", "line 3: \"A\" is there twice" },
        { HEAD "\"properties\": { \"A\": {} }, \"required\": [\"B\"] }", "/required/0: \"B\" is no field of this schema: did you mean A?" },
        { HEAD "\"properties\": { \"A\": { \"type\": \"number\" } } }", "/properties/A/type: \"number\" is no type of a field" },
        { HEAD "\"properties\": { \"A\": { \"enum\": [] } } }", "/properties/A/enum: must not be empty" },
        { HEAD "\"properties\": { \"A\": { \"enum\": [\"x\", \"x\"] } } }", "/properties/A/enum/1: \"x\" is there twice" },
        { HEAD "\"properties\": { \"A\": { \"enum\": [\"x\"], \"x-choice-aliases\": { \"y\": [\"z\"] } } } }", "/properties/A/x-choice-aliases/y: \"y\" is no value of the enum" },
        { HEAD "\"properties\": { \"A\": { \"enum\": [\"a|b\"] } } }", "/properties/A: the choice \"a|b\" has a |" },
        { HEAD "\"properties\": { \"A\": { \"enum\": [\"a\", \"A\"] } } }", "/properties/A: \"a\" is the choice \"A\" too" },
        { HEAD "\"properties\": { \"A\": { \"enum\": [\"NOT_FOUND\"] } } }", "stands for an absent value" },
        { HEAD "\"properties\": { \"A\": { \"enum\": [\"x\", \"y\"], \"x-choice-aliases\": { \"x\": [\"Y\"] } } } }", "/properties/A: \"Y\" is the choice \"y\" too" },
        { HEAD "\"properties\": { \"A\": { \"type\": \"boolean\", \"x-kind\": \"money\" } } }", "/properties/A: x-kind money with \"type\": \"boolean\"" },
        { HEAD "\"properties\": { \"A\": { \"pattern\": \"(\" } } }",
          "/properties/A/pattern: not a regular expression: missing closing parenthesis" },
        { HEAD "\"properties\": { \"A\": { \"$ref\": \"#/$defs/B\" } } }", "/properties/A/$ref: \"B\" is no definition" },
        { HEAD "\"properties\": { \"A\": { \"$ref\": \"rvengine:fields#/$defs/TOTAL_AMONT\" } } }", "did you mean TOTAL_AMOUNT?" },
        { HEAD "\"properties\": { \"A\": { \"$ref\": \"http://x/y\" } } }",
          "/properties/A/$ref: must begin with #/$defs/ or rvengine:fields#/$defs/" },
        { HEAD "\"$defs\": { \"B\": { \"$ref\": \"#/$defs/B\" } }, \"properties\": { \"A\": { \"$ref\": \"#/$defs/B\" } } }",
          "is it a circle?" },
        { HEAD "\"properties\": { \"A\": { \"x-group\": \"g\" } } }", "/properties/A: x-group without \"type\": \"array\"" },
        { HEAD "\"properties\": { \"A\": { \"x-kind\": \"tfn\" } } }", "a tax file number needs \"x-sensitivity\": \"tfn\"" },
        { HEAD "\"properties\": { \"A\": { \"x-max-tokens\": 0 } } }", "must be a whole number from 1 to 100000, is 0" },
        { HEAD "\"properties\": { \"A\": { \"x-max-tokens\": 1.5 } } }", "must be a whole number" },
        { HEAD "\"properties\": { \"A\": { \"title\": \"a\\u0007b\" } } }", "without control characters" },
        { HEAD "\"properties\": { \"A\": { \"title\": \"a\\u0000b\" } } }", "a NUL character" },
        { HEAD "\"properties\": { \"A\": { \"x-aliases\": [\"C\"] }, \"B\": { \"x-aliases\": [\"C\"] } } }",
          "the alias \"C\" is also one of" },
        { HEAD "\"properties\": { \"A\": { \"x-aliases\": [\"Sold to\"] }, \"B\": { \"x-aliases\": [\"SOLD_TO\"] } } }", "the alias \"Sold to\" is also one of B" },
        { HEAD "\"properties\": { \"A_B\": {}, \"AB\": {} } }", "/properties/AB: the key is the same as A_B" },
        { HEAD "\"properties\": { \"A\": {} }, \"x-rules\": [ { \"id\": \"r\", \"test\": \"sum(A\", \"message\": \"m\" } ] }",
          "/x-rules/0/test: not an expression: ) was expected (character 6)" },
        { HEAD "\"properties\": { \"A\": {} }, \"x-rules\": [ { \"id\": \"r\", \"test\": \"B > 1\", \"message\": \"m\" } ] }",
          "\"B\" is no field of this schema" },
        { HEAD "\"properties\": { \"A\": {} }, \"x-rule-sets\": [\"au-gts\"] }",
          "/x-rule-sets/0: \"au-gts\" is no rule set that is built in: did you mean au-gst?" },
        { HEAD "\"properties\": { \"A\": {} }, \"x-strategies\": [\"singel\"] }", "did you mean single?" },
        { HEAD "\"properties\": { \"A\": {} }, \"x-evidence\": { \"paid\": true } }", "rank is missing" },
        { HEAD "\"properties\": { \"A\": {} }, \"additionalProperties\": true }", "a record has the schema's fields and no others" },
        { "{ \"x-prompt\": \"p\", \"properties\": { \"A\": {} } }", "x-doctype is missing" },
        { "{ \"x-doctype\": \"X\", \"properties\": { \"A\": {} } }", "x-prompt is missing" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rv_schema *schema = NULL;
        rv_error err = { 0 };
        rv_status st = rv_schema_parse("x.json", cases[i].json, strlen(cases[i].json), &schema, &err);
        if (st != RV_ERR_FORMAT || !strstr(err.message, cases[i].want))
            fail_msg("%s\ngives %d: %s\nwanted: %s", cases[i].json, st, err.message, cases[i].want);
        assert_null(schema);
    }
}

static void a_reference_gives_what_the_property_does_not_say_itself(void **state) {
    static const char json[] =
        HEAD "\"properties\": { \"A\": { \"$ref\": \"rvengine:fields#/$defs/TOTAL_AMOUNT\", \"title\": \"Sum\", \"x-critical\": false },\n"
             "\"B\": { \"$ref\": \"#/$defs/B\" } }, \"$defs\": { \"B\": { \"enum\": [\"x\", \"y\"] } } }";
    rv_schema *s;
    rv_error err;
    (void)state;
    if (rv_schema_parse("/some/folder/mine.json", json, strlen(json), &s, &err)) fail_msg("%s", err.message);
    assert_string_equal(s->name, "mine");
    assert_int_equal(s->fields[0].kind, RV_KIND_MONEY);
    assert_string_equal(s->fields[0].title, "Sum");
    assert_false(s->fields[0].critical);
    assert_int_equal(s->fields[1].kind, RV_KIND_ENUM);
    assert_int_equal(s->fields[1].grammar, RV_GRAMMAR_STRICT);
    rv_schema_free(s);
    assert_int_equal(rv_schema_open("reciept", &s, &err), RV_ERR_ARGUMENT);
    assert_int_equal(rv_schema_open("/no/such/file.json", &s, &err), RV_ERR_IO);
}

static void a_pattern_that_never_ends_is_given_up(void **state) {
    static const char json[] = HEAD "\"properties\": { \"A\": { \"pattern\": \"(a+)+$\" } } }";
    rv_schema *s;
    rv_error err;
    (void)state;
    if (rv_schema_parse("x.json", json, strlen(json), &s, &err)) fail_msg("%s", err.message);
    rv_record *r = checked(s, "A: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab");
    assert_non_null(finding(r, "format.pattern"));
    assert_non_null(strstr(finding(r, "format.pattern")->message, "too long"));
    rv_record_free(r);
    r = checked(s, "A: aaaa");
    assert_null(finding(r, "format.pattern"));
    rv_record_free(r);
    rv_schema_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_built_in_schema_opens_and_asks_for_all_its_fields),
        cmocka_unit_test(every_field_of_a_schema_with_parts_is_in_exactly_one),
        cmocka_unit_test(every_built_in_rule_compiles_and_names_fields_that_some_schema_has),
        cmocka_unit_test(older_names_lead_to_their_fields),
        cmocka_unit_test(what_is_wrong_is_said_with_line_and_path),
        cmocka_unit_test(a_reference_gives_what_the_property_does_not_say_itself),
        cmocka_unit_test(a_pattern_that_never_ends_is_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
