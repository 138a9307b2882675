/* schema, validate and eval: the commands about fields, which need no model. */
#include "tests/cli/program.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER "Here it is:\n**STORE:** =HYPERLINK(\"http://x\")\nABN: 51 824 753 557\nDATE: 05/03/2024\nTOTAL: $99.00\nGST: $9.00\nPAYMENT: VISA 4111 1111 1111 1111\n"

static const char *answer_file(void) { return file_write("answer.txt", ANSWER, strlen(ANSWER)); }

static void schemas_are_listed_shown_and_checked(void **state) {
    (void)state;
    prints("universal +OTHER +47 ", "schema", "list");
    prints("\"name\": \"receipt_14\"", "schema", "list", "--json");
    prints("BUSINESS_ABN +abn +critical", "schema", "show", "receipt");
    prints("\nTOTAL_AMOUNT: the total to pay, GST included\n", "schema", "show", "receipt", "--prompt");
    prints("Copy the list of what was bought", "schema", "show", "receipt", "--prompt", "--part", "2");
    prints("^Extract the receipt as KEY: VALUE lines\\.\n$", "schema", "show", "demo_receipt", "--prompt");
    outcome source = run_with(NULL, ARGS("schema", "show", "tax_invoice", "--source"));
    assert_int_equal(source.code, 0);
    const char *copy = file_write("mine.json", source.out, source.out_bytes);
    outcome_free(&source);
    prints("mine\\.json: good: INVOICE 1\\.0\\.0, 29 fields", "schema", "check", copy);
}

static void a_faulty_schema_is_refused_with_line_and_path(void **state) {
    static const char text[] =
        "{ \"x-doctype\": \"X\",\n  \"x-prompt\": \"Read.\",\n  \"properties\": { \"TOTAL\": { \"x-kind\": \"mony\" } } }\n";
    (void)state;
    const char *path = file_write("faulty.json", text, sizeof text - 1);
    refuses(4, "faulty\\.json: line 3: /properties/TOTAL/x-kind: \"mony\" is no kind of value: did you mean money\\?", "schema", "check", path);
    refuses(3, "no such file|No such file", "schema", "check", "/no/such/file.json");
    refuses(2, "no built-in schema of that name", "schema", "show", "reciept");
    refuses(2, "did you mean check\\?", "schema", "chek", path);
    refuses(2, "show takes one name", "schema", "show");
    refuses(2, "--part needs --prompt", "schema", "show", "receipt", "--part", "1");
    refuses(2, "part 9: schema receipt has 3 parts", "schema", "show", "receipt", "--prompt", "--part", "9");
    prints("--part N\\]", "schema", "--help");
}

static void answers_are_checked_and_written_in_every_form(void **state) {
    const char *path = answer_file();
    (void)state;
    prints("ABN of the seller: the ABN's check digits do not fit", "validate", "--schema", "receipt", path);
    prints("\nTOTAL_AMOUNT: \\$99\\.00\n", "validate", "-s", "receipt", "-f", "kv", path);
    prints("\"cents\": 9900", "validate", "-s", "receipt", "-f", "json", path);
    prints("\"tax_invoice_valid\":false", "validate", "-s", "receipt", "-f", "jsonl", path);
    prints(",\"'=HYPERLINK\\(\"\"http://x\"\"\\)\",", "validate", "-s", "receipt", "-f", "csv", path);
    prints("<!DOCTYPE html>.*=HYPERLINK\\(&quot;http://x&quot;\\).*</html>\n$", "validate", "-s", "receipt", "-f", "html", path);
    static const char *const forms[] = { "md", "kv", "json", "jsonl", "csv", "html" };
    for (int i = 0; i < 6; i++) {
        outcome o = run_with(NULL, ARGS("validate", "-s", "receipt", "-f", forms[i], path));
        assert_int_equal(o.code, 0);
        assert_null(strstr(o.out, "4111"));                /* masked in everything */
        assert_null(strstr(o.err, "4111"));
        outcome_free(&o);
    }
    setting from_stdin = { .input = ANSWER };
    check_prints(__LINE__, "\nTOTAL_AMOUNT: \\$99\\.00\n", &from_stdin, ARGS("validate", "-s", "receipt", "-f", "kv"));
}

static void several_documents_make_one_report(void **state) {
    static const char text[] = "file,STORE,TOTAL,DATE\na.png,Acme,$5.00,01/02/2024\nb.png,Bert,$6.00,31/02/2024\n";
    const char *path = file_write("two.csv", text, sizeof text - 1);
    (void)state;
    prints("^file,.*\r\na\\.png,.*\r\nb\\.png,[^\n]*\r\n$", "validate", "-s", "receipt", "-f", "csv", path);
    prints("^[{].*a\\.png.*[}]\n[{].*b\\.png.*[}]\n$", "validate", "-s", "receipt", "-f", "jsonl", path);
    prints("^\\[\n[{].*a\\.png.*[}]\n,\n[{].*b\\.png.*[}]\n\\]\n$", "validate", "-s", "receipt", "-f", "json", path);
    prints("a\\.png.*</article>\n<article.*b\\.png.*</html>\n$", "validate", "-s", "receipt", "-f", "html", path);
    refuses(2, "--image belongs to one document", "validate", "-s", "receipt", "-f", "html", "--image", RECEIPT, path);
}

static void a_misspelt_column_is_said(void **state) {
    static const char text[] = "file,STORE,TOTLA\na.png,Acme,$5.00\nb.png,Bert,$6.00\n";
    (void)state;
    outcome o = run_with(NULL, ARGS("validate", "-s", "receipt", "-f", "csv", file_write("misspelt.csv", text, sizeof text - 1)));
    assert_int_equal(o.code, 0);
    assert_true(matches(o.err, "line 1: TOTLA: no field of the schema, left out"));
    outcome_free(&o);
}

static void fail_on_decides_the_exit_code(void **state) {
    static const struct { const char *on; int code; } cases[] = { { "never", 0 }, { "error", 1 }, { "warning", 1 }, { "review", 1 } };
    const char *path = answer_file();
    (void)state;
    for (int i = 0; i < 4; i++) {
        outcome o = run_with(NULL, ARGS("validate", "-s", "receipt", "--fail-on", cases[i].on, path));
        assert_int_equal(o.code, cases[i].code);
        assert_true(o.out_bytes > 100);                    /* the report is there all the same */
        outcome_free(&o);
    }
    static const char good[] = "SUPPLIER_NAME: Acme\nINVOICE_DATE: 20/03/2024\nTOTAL_AMOUNT: $5.00\n";
    outcome o = run_with(NULL, ARGS("validate", "-s", "receipt", "--fail-on", "review", "--today", "2024-06-30",
                                    file_write("good.txt", good, sizeof good - 1)));
    assert_int_equal(o.code, 0);
    outcome_free(&o);
}

static void the_review_page_goes_to_a_file_with_its_image(void **state) {
    const char *path = answer_file(), *page = scratch("review.html");
    size_t bytes;
    (void)state;
    outcome o = run_with(NULL, ARGS("validate", "-s", "receipt", "-f", "html", "--image", RECEIPT, "-o", page, path));
    assert_int_equal(o.code, 0);
    assert_int_equal(o.out_bytes, 0);
    outcome_free(&o);
    char *html = file_read(page, &bytes);
    assert_non_null(strstr(html, "src=\"data:image/png;base64,iVBOR"));
    assert_null(strstr(html, "<script"));
    assert_null(strstr(html, "http://x\""));
    free(html);
}

static void what_makes_no_sense_is_refused(void **state) {
    const char *path = answer_file();
    (void)state;
    refuses(2, "--schema is missing", "validate", path);
    refuses(2, "one file at a time", "validate", "-s", "receipt", path, path);
    refuses(2, "--image is for --format html", "validate", "-s", "receipt", "--image", RECEIPT, path);
    refuses(2, "must be a day as 2026-07-26", "validate", "-s", "receipt", "--today", "30/6/2024", path);
    refuses(4, "is empty", "validate", "-s", "receipt", "/dev/null");
    static const char card[] = "{\"TOTAL\": 4111111111111111 4111111111111111}";
    outcome o = run_with(NULL, ARGS("validate", "-s", "receipt", file_write("card.json", card, sizeof card - 1)));
    assert_int_equal(o.code, 4);
    assert_null(strstr(o.err, "4111111"));
    outcome_free(&o);
    refuses(3, "cannot open|No such", "validate", "-s", "receipt", "/no/such/file");
    refuses(5, "no form that browsers show", "validate", "-s", "receipt", "-f", "html", "--image", path, path);
    refuses(2, "--truth is missing", "eval", "-s", "receipt", path);
    refuses(2, "one or two files", "eval", "-s", "receipt", "-t", path);
    refuses(2, "lint takes one truth file", "eval", "lint", "-s", "receipt");
}

/* ---- files that are not as they should be ---- */

static const char *text_file(const char *name, const char *text) { return file_write(name, text, strlen(text)); }

/* Each is refused by every command that reads fields, with the same words. */
static void files_of_fields_that_are_damaged_are_refused_with_their_line(void **state) {
    static const struct { const char *name, *text, *says; } files[] = {
        { "header.csv", "file,TOTAL_AMOUNT\n", "header\\.csv: no documents: only a line of names" },
        { "list.json", " [ ]", "list\\.json: no documents: an empty list" },
        { "latin1.csv", "file,SUPPLIER_NAME\na.png,Caf\xe9\n", "latin1\\.csv: line 2: not UTF-8 .byte 0xe9.: save the file as UTF-8" },
        { "utf16.csv", "\xff\xfe" "f,x\n", "utf16\\.csv: line 1: not UTF-8 .byte 0xff." },
        { "cells.csv", "file,TOTAL_AMOUNT\na,1,2\n", "cells\\.csv: line 2: 3 cells, the header has 2" },
        { "quote.csv", "file,TOTAL_AMOUNT\na,\"1\n", "quote\\.csv: line 2: a quoted cell that never ends" },
        { "both.csv", "file,TOTAL_AMOUNT,TOTAL\na,1.00,2.00\n", "line 1: columns 2 and 3 are both TOTAL_AMOUNT" },
        { "both.json", "{\"file\":\"a\",\"fields\":{\"TOTAL_AMOUNT\":\"$5\",\"TOTAL\":\"$6\"}}", "line 1: TOTAL_AMOUNT is there twice, once as TOTAL" },
        { "twice.json", "{\"file\":\"a\",\"fields\":{\"TOTAL\":\"$5\",\"TOTAL\":\"$6\"}}", "line 1: not valid JSON: duplicate object key" },
        { "broken.json", "{\"file\":\"a\",\"fields\":{\"TOTAL\":\"$5\"\n,}}", "line 2: not valid JSON" },
        { "cut.jsonl", "{\"file\":\"a\",\"fields\":{\"TOTAL\":\"$5\"}}\n{\"file\":\"b\"", "cut\\.jsonl: line 2: not valid JSON" },
        { "number.json", "[{\"file\":\"a,[\",\"TOTAL\":\"$5\"},\n{\"file\":\"b\",\n\"TOTAL\":\"$5\"},\n\n 3]", "number\\.json: line 5: a document must be a JSON object" },
        { "object.json", "{\"file\":\"a\",\"fields\":{\"TOTAL_AMOUNT\":{\"amount\":1}}}", "line 1: TOTAL_AMOUNT: must be a text, a number, a list of them, or an object with \"value\"" },
        { "items.json", "{\"file\":\"a\",\"fields\":{\"LINE_ITEM_DESCRIPTIONS\":[\"x\",{\"y\":1}]}}", "line 1: LINE_ITEM_DESCRIPTIONS: must be a text" },
        { "fields.json", "{\"file\":\"a\",\"fields\":[1,2]}", "line 1: \"fields\" must be an object" },
        { "nan.json", "{\"file\":\"a\",\"fields\":{\"TOTAL_AMOUNT\":NaN}}", "line 1: not valid JSON" },
        { "huge.json", "{\"file\":\"a\",\"fields\":{\"TOTAL_AMOUNT\":1e999}}", "line 1: not valid JSON" },
    };
    static const char good[] = "file,TOTAL_AMOUNT\na,$5.00\n";
    (void)state;
    char *right = strdup(file_write("right.csv", good, sizeof good - 1));
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *path = strdup(text_file(files[i].name, files[i].text));
        refuses(4, files[i].says, "validate", "-s", "receipt", path);
        refuses(4, files[i].says, "eval", "-s", "receipt", "-t", right, path);
        refuses(4, files[i].says, "eval", "-s", "receipt", "-t", path, right);
        refuses(4, files[i].says, "eval", "lint", "-s", "receipt", path);
        free(path);
    }
    refuses(4, "a is there twice .eval lint says where.", "eval", "-s", "receipt", "-t", right, text_file("again.csv", "file,TOTAL_AMOUNT\na,1.00\na,2.00\n"));
    refuses(3, "cannot read: Is a directory", "validate", "-s", "receipt", "/tmp");
    free(right);
}

static void what_is_left_out_of_an_evaluation_is_said(void **state) {
    char *truth = strdup(text_file("truth.csv", "file,TOTAL_AMOUNT\n7,$5.00\n"));
    (void)state;
    const char *run = text_file("run.jsonl", "{\"id\":7,\"fields\":{\"TOTAL_AMOUNT\":\"$5.00\",\"TOTLA\":\"$5.00\",\"SUPLIER\":\"x\"}}\n");
    prints("run\\.jsonl: no field of the schema, left out: (TOTLA, SUPLIER|SUPLIER, TOTLA)\n.*1 \\(100\\.0 %\\) right", "eval", "-s", "receipt", "-t", truth, run);
    prints("\"unknown\": \"(TOTLA|SUPLIER), ", "eval", "-s", "receipt", "-t", truth, "-f", "json", run);
    outcome o = run_with(NULL, ARGS("eval", "lint", "-s", "receipt", "-f", "json", text_file("names.csv", "file,TOTAL_AMOUNT,\x1b[31mX\na,1.00,2\n")));
    assert_int_equal(o.code, 1);
    assert_null(strchr(o.out, 0x1b));
    assert_true(matches(o.out, "\"field\": \"\\[31mX\""));
    outcome_free(&o);
    free(truth);
}

static void options_that_would_do_nothing_are_refused(void **state) {
    const char *path = answer_file();
    (void)state;
    refuses(2, "--source and --prompt are for show", "schema", "list", "--prompt");
    refuses(2, "--json is for list and show", "schema", "check", "--json", "my.json");
    refuses(2, "exclude each other", "schema", "show", "receipt", "--source", "--json");
    refuses(2, "a file is its own source", "schema", "show", "./my.json", "--source");
    refuses(2, "\"\": no built-in schema of that name", "schema", "check", "");
    refuses(2, "lint compares nothing", "eval", "lint", "-s", "receipt", path, "--wrong", "3");
    refuses(2, "stdin .-. can be read only once", "eval", "-s", "receipt", "-t", "-", "-");
    refuses(2, "stdin .-. can be read only once", "validate", "-s", "receipt", "--page-text", "-");
}

/* A full disk, and a run that fails: the code says so, and what was in the file before stays. */
static void a_report_that_cannot_be_written_is_an_error(void **state) {
    char *path = strdup(answer_file()), *out = strdup(text_file("before.txt", "before"));
    static const setting full = { .out = OUT_FULL };
    const char *const *const commands[] = {
        ARGS("schema", "list"), ARGS("schema", "list", "--json"), ARGS("schema", "show", "receipt"), ARGS("schema", "show", "receipt", "--json"), ARGS("schema", "show", "receipt", "--source"),
        ARGS("schema", "show", "receipt", "--prompt"), ARGS("validate", "-s", "receipt", path), ARGS("eval", "lint", "-s", "receipt", path) };
    (void)state;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        outcome o = run_with(&full, commands[i]);
        assert_int_equal(o.code, 3);
        assert_true(matches(o.err, "cannot write the answer: No space left on device"));
        outcome_free(&o);
    }
    refuses(3, "/dev/full: cannot write: No space left on device", "validate", "-s", "receipt", "-o", "/dev/full", path);
    refuses(4, "not valid JSON", "validate", "-s", "receipt", "-o", out, text_file("bad.json", "{\"a\":"));
    size_t bytes;
    char *text = file_read(out, &bytes);
    assert_string_equal(text, "before");
    free(text);
    free(path);
    free(out);
}

#define TRUTH RV_TEST_DEMO "/receipts/expected.jsonl"

static void runs_are_compared_with_the_truth_and_with_each_other(void **state) {
    static const char a[] = "file,SUPPLIER,TOTAL\nr7000.png,Northern Electrical,152.39\n",
                      b[] = "file,SUPPLIER,TOTAL\nr7000.png,NORTHERN ELECTRICAL,$152.93\n";
    char *first = strdup(file_write("a.csv", a, sizeof a - 1)), *second = strdup(file_write("b.csv", b, sizeof b - 1));
    (void)state;
    prints("8 documents, 7 of them without an answer.*\nTOTAL +8 +0\\.0 +12\\.5 ", "eval", "-s", "demo_receipt", "-t", TRUTH, first);
    prints("1 documents, 7 more without an answer left out.*\nTOTAL +1 +0\\.0 +100\\.0 ", "eval", "-s", "demo_receipt", "-t", TRUTH,
           "--ignore-missing", first);
    prints("b\\.csv against .*a\\.csv, on the same documents:.*documents: 0 better, 1 worse, 7 equal", "eval", "-s", "demo_receipt", "-t",
           TRUTH, first, second);
    prints("^run,field,precision,recall,f1,support,exact,same,anls,invented,missed\r\n", "eval", "-s", "demo_receipt", "-t", TRUTH, "-f",
           "csv", first);
    prints("\"interval_95\"", "eval", "-s", "demo_receipt", "-t", TRUTH, "-f", "json", first);
    prints("wrong in .*a\\.csv:.*\nr7000\\.png ABN\n  truth:  82 138 594 886\n  answer: NOT_FOUND\n", "eval", "-s", "demo_receipt", "-t", TRUTH, "--wrong", "3", first);
    prints("8 documents, 0 problems", "eval", "lint", "-s", "demo_receipt", TRUTH);
    outcome o = run_with(NULL, ARGS("eval", "lint", "-s", "demo_receipt", first));
    assert_int_equal(o.code, 1);                           /* fields that no document has */
    assert_true(matches(o.out, "a\\.csv: PAYMENT: no document has this field"));
    outcome_free(&o);
    free(first);
    free(second);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schemas_are_listed_shown_and_checked),
        cmocka_unit_test(a_faulty_schema_is_refused_with_line_and_path),
        cmocka_unit_test(answers_are_checked_and_written_in_every_form),
        cmocka_unit_test(several_documents_make_one_report),
        cmocka_unit_test(a_misspelt_column_is_said),
        cmocka_unit_test(fail_on_decides_the_exit_code),
        cmocka_unit_test(the_review_page_goes_to_a_file_with_its_image),
        cmocka_unit_test(what_makes_no_sense_is_refused),
        cmocka_unit_test(files_of_fields_that_are_damaged_are_refused_with_their_line),
        cmocka_unit_test(what_is_left_out_of_an_evaluation_is_said),
        cmocka_unit_test(options_that_would_do_nothing_are_refused),
        cmocka_unit_test(a_report_that_cannot_be_written_is_an_error),
        cmocka_unit_test(runs_are_compared_with_the_truth_and_with_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
