/* The safetensors reader against good headers and one header for every rule that it enforces. */
#include "tests/support/folder.h"
#include "loader/safetensors.h"

/* Reads a file made of `length` (the first eight bytes), the header text and `data_bytes` of data,
 * from a block of exactly that size so that the sanitizer sees a read past it. */
static rv_status read_with(uint64_t length, const char *header, size_t header_bytes, size_t data_bytes, rv_error *err) {
    size_t bytes = 8 + header_bytes + data_bytes;
    uint8_t *file = calloc(1, bytes);
    rv_safetensors s = { 0 };
    assert_non_null(file);
    for (int i = 0; i < 8; i++) file[i] = (uint8_t)(length >> 8 * i);
    memcpy(file + 8, header, header_bytes);
    rv_status st = rv_safetensors_read(file, bytes, "x.safetensors", &s, err);
    if (st) assert_null(s.tensors);
    rv_safetensors_free(&s);
    free(file);
    return st;
}

static void rejects(const char *header, size_t data_bytes, rv_status code, const char *part) {
    rv_error err = { 0 };
    rv_status st = read_with(strlen(header), header, strlen(header), data_bytes, &err);
    expect_error(st, &err, code, part);
    assert_non_null(strstr(err.message, "x.safetensors"));
}

static void accepts(const char *header, size_t data_bytes) {
    rv_error err = { 0 };
    expect_ok(read_with(strlen(header), header, strlen(header), data_bytes, &err), &err);
}

/* One rule: a header that breaks it, the data that follows, and words of the message. */
#define REJECTS(sentence, header, data_bytes, part) \
    static void sentence(void **state) { (void)state; rejects(header, data_bytes, RV_ERR_FORMAT, part); }
#define T(name, dtype, shape, begin, end) \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" #begin "," #end "]}"

REJECTS(an_overlap_is_an_error, "{" T("a", "U8", "4", 0, 4) "," T("b", "U8", "4", 2, 6) "}", 6,
        "\"b\": data_offsets: overlaps another tensor")
REJECTS(two_tensors_on_the_same_bytes_are_an_error, "{" T("a", "U8", "4", 0, 4) "," T("b", "U8", "4", 0, 4) "}", 4,
        "overlaps")
REJECTS(a_gap_between_tensors_is_an_error, "{" T("a", "U8", "4", 0, 4) "," T("b", "U8", "4", 6, 10) "}", 10,
        "\"b\": data_offsets: 2 bytes before it belong to no tensor")
REJECTS(a_gap_at_the_start_is_an_error, "{" T("a", "U8", "4", 1, 5) "}", 5, "1 bytes before it belong to no tensor")
REJECTS(trailing_bytes_are_an_error, "{" T("a", "U8", "4", 0, 4) "}", 7, "3 bytes after the last tensor belong to none")
REJECTS(data_without_tensors_is_an_error, "{}", 1, "1 bytes after the last tensor")
REJECTS(data_that_is_cut_short_is_an_error, "{" T("a", "F32", "4", 0, 16) "}", 15,
        "ends at byte 16 of the data, but the file holds only 15")
REJECTS(an_offset_of_2_to_the_64_less_1_is_an_error, "{" T("a", "U8", "4", 0, 18446744073709551615) "}", 4,
        "ends at byte")
REJECTS(an_offset_of_2_to_the_64_is_an_error, "{" T("a", "U8", "4", 0, 18446744073709551616) "}", 4,
        "data_offsets: must hold")
REJECTS(an_end_before_the_beginning_is_an_error, "{" T("a", "U8", "4", 4, 0) "}", 4, "the end is before the beginning")
REJECTS(a_negative_offset_is_an_error, "{" T("a", "U8", "4", -1, 3) "}", 4, "data_offsets: must hold two whole numbers")
REJECTS(a_fractional_offset_is_an_error, "{" T("a", "U8", "4", 0.0, 4) "}", 4,
        "data_offsets: must hold two whole numbers")
REJECTS(a_string_as_offset_is_an_error, "{" T("a", "U8", "4", "0", 4) "}", 4, "a number in data_offsets was expected")
REJECTS(one_offset_is_an_error, "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0]}}", 4,
        "a number in data_offsets")
REJECTS(three_offsets_are_an_error, "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4,4]}}", 4,
        "after two data_offsets")
REJECTS(offsets_that_are_no_list_are_an_error, "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":4}}", 4,
        "data_offsets as an array")
REJECTS(a_shape_smaller_than_its_bytes_is_an_error, "{" T("a", "F32", "3", 0, 16) "}", 16,
        "shape and dtype make 12 bytes, but data_offsets span 16")
REJECTS(a_shape_larger_than_its_bytes_is_an_error, "{" T("a", "BF16", "3,3", 0, 16) "}", 16, "make 18 bytes")
REJECTS(a_shape_whose_product_overflows_is_an_error, "{" T("a", "U8", "4294967296,4294967296", 0, 0) "}", 0,
        "the size does not fit in 64 bits")
REJECTS(an_overflow_that_a_zero_would_hide_is_an_error, "{" T("a", "U8", "4294967296,4294967296,0", 0, 0) "}", 0,
        "the size does not fit in 64 bits")
REJECTS(a_shape_whose_bits_overflow_is_an_error, "{" T("a", "F32", "4611686018427387905", 0, 4) "}", 4,
        "does not fit in 64")
REJECTS(half_a_byte_is_an_error, "{" T("a", "F4", "3", 0, 1) "}", 1, "not a whole number of bytes")
REJECTS(a_negative_extent_is_an_error, "{" T("a", "U8", "-4", 0, 4) "}", 4, "shape: must hold whole numbers from 0")
REJECTS(a_fractional_extent_is_an_error, "{" T("a", "U8", "4.0", 0, 4) "}", 4, "shape: must hold whole numbers from 0")
REJECTS(an_extent_with_an_exponent_is_an_error, "{" T("a", "U8", "4e0", 0, 4) "}", 4,
        "shape: must hold whole numbers from 0")
REJECTS(an_extent_of_2_to_the_63_is_an_error, "{" T("a", "U8", "9223372036854775808", 0, 4) "}", 4, "shape: must hold")
REJECTS(a_null_extent_is_an_error, "{" T("a", "U8", "null", 0, 4) "}", 4, "a number in shape was expected")
REJECTS(a_shape_that_is_no_list_is_an_error, "{\"a\":{\"dtype\":\"U8\",\"shape\":4,\"data_offsets\":[0,4]}}", 4,
        "shape as an array")
REJECTS(an_unknown_dtype_is_an_error, "{" T("a", "BF17", "4", 0, 8) "}", 8, "dtype: \"BF17\" is no safetensors type")
REJECTS(a_dtype_in_lower_case_is_an_error, "{" T("a", "bf16", "4", 0, 8) "}", 8, "\"bf16\" is no safetensors type")
REJECTS(an_endless_dtype_is_cut_in_the_message, "{" T("a", "F3232323232323232323232323232323232323232323232323232", "4",
        0, 8) "}",
        8, "F323232323232323232323232323232323232323\" is no")
REJECTS(a_dtype_that_is_no_string_is_an_error, "{\"a\":{\"dtype\":8,\"shape\":[4],\"data_offsets\":[0,4]}}", 4,
        "dtype as a string")
REJECTS(a_missing_dtype_is_an_error, "{\"a\":{\"shape\":[4],\"data_offsets\":[0,4]}}", 4, "\"a\": dtype is missing")
REJECTS(a_missing_shape_is_an_error, "{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,4]}}", 4, "\"a\": shape is missing")
REJECTS(missing_offsets_are_an_error, "{\"a\":{\"dtype\":\"U8\",\"shape\":[4]}}", 4, "\"a\": data_offsets is missing")
REJECTS(a_shape_given_twice_is_an_error,
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"shape\":[4],\"data_offsets\":[0,4]}}", 4,
        "is given twice")
REJECTS(an_escaped_repeat_of_a_key_is_an_error,
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"sh\\u0061pe\":[4],\"data_offsets\":[0,4]}}", 4, "is given twice")
REJECTS(a_tensor_named_twice_is_an_error, "{" T("a", "U8", "4", 0, 4) "," T("a", "U8", "4", 4, 8) "}", 8,
        "\"a\": is there twice")
REJECTS(an_escaped_repeat_of_a_name_is_an_error, "{" T("a", "U8", "4", 0, 4) "," T("\\u0061", "U8", "4", 4, 8) "}", 8,
        "\"a\": is there twice")
REJECTS(a_name_with_a_nul_is_an_error, "{" T("a\\u0000b", "U8", "4", 0, 4) "}", 4, "the name holds a NUL character")
REJECTS(a_tensor_that_is_no_object_is_an_error, "{\"a\":[]}", 0, "a tensor's object was expected")
REJECTS(a_null_tensor_is_an_error, "{\"a\":null}", 0, "a tensor's object was expected")
REJECTS(metadata_that_is_no_object_is_an_error, "{\"__metadata__\":\"pt\"}", 0, "__metadata__ as an object")
REJECTS(metadata_with_a_number_is_an_error, "{\"__metadata__\":{\"format\":1}}", 0, "a string inside __metadata__")
REJECTS(metadata_with_an_object_is_an_error, "{\"__metadata__\":{\"format\":{}}}", 0, "a string inside __metadata__")
REJECTS(metadata_given_twice_is_an_error, "{\"__metadata__\":{},\"__metadata__\":{}}", 0,
        "\"__metadata__\": is given twice")
REJECTS(a_header_that_is_a_list_is_an_error, "[]", 0, "does not begin with {")
REJECTS(a_header_with_a_leading_blank_is_an_error, " {}", 0, "does not begin with {")
REJECTS(a_header_with_a_byte_order_mark_is_an_error, "\xef\xbb\xbf{}", 0, "does not begin with {")
REJECTS(a_header_that_is_cut_short_is_an_error, "{\"a\":{\"dtype\":\"U8\"", 0, "the text ends too early")
REJECTS(a_comma_too_many_is_an_error, "{" T("a", "U8", "4", 0, 4) ",}", 4, "a key in quotes was expected")
REJECTS(text_after_the_header_is_an_error, "{}x", 0, "something follows the end")
REJECTS(a_name_that_is_not_utf8_is_an_error, "{" T("a\xff", "U8", "4", 0, 4) "}", 4,
        "bytes that are not UTF-8 at byte 11")
REJECTS(a_lone_surrogate_in_a_name_is_an_error, "{" T("a\\ud800", "U8", "4", 0, 4) "}", 4, "a bad escape in a string")
REJECTS(an_empty_header_is_an_error, "", 0, "does not begin with {")
REJECTS(an_unclosed_brace_alone_is_an_error, "{", 0, "does not begin with {")

static void nesting_without_end_is_an_error(void **state) {
    (void)state;
    enum { DEPTH = 100000 };
    char *text = malloc(DEPTH + 32);
    assert_non_null(text);
    strcpy(text, "{\"a\":{\"x\":");
    memset(text + strlen(text), '[', DEPTH);
    text[10 + DEPTH] = '\0';
    rejects(text, 0, RV_ERR_FORMAT, "nested too deeply");
    free(text);
}

static void nine_dimensions_are_unsupported(void **state) {
    (void)state;
    rejects("{" T("a", "U8", "1,1,1,1,1,1,1,1,1", 0, 1) "}", 1, RV_ERR_UNSUPPORTED,
        "\"a\": has more than 8 dimensions");
    accepts("{" T("a", "U8", "1,1,1,1,1,1,1,1", 0, 1) "}", 1);
}

static void a_header_of_2_to_the_60_bytes_is_an_error(void **state) {
    (void)state;
    rv_error err = { 0 };
    rv_status st = read_with(UINT64_C(1) << 60, "{}", 2, 0, &err);
    expect_error(st, &err, RV_ERR_FORMAT,
        "claims a header of 1152921504606846976 bytes, more than the format's 100000000");
    st = read_with(UINT64_MAX, "{}", 2, 0, &err);
    expect_error(st, &err, RV_ERR_FORMAT, "claims a header of 18446744073709551615 bytes");
    st = read_with(UINT64_MAX - 7, "{}", 2, 0, &err);
    expect_error(st, &err, RV_ERR_FORMAT, "claims a header of 18446744073709551608 bytes");
}

static void a_header_longer_than_the_file_is_an_error(void **state) {
    (void)state;
    rv_error err = { 0 };
    expect_error(read_with(3, "{}", 2, 0, &err), &err, RV_ERR_FORMAT, "the header of 3 bytes is longer than the file");
    expect_error(read_with(100000000, "{}", 2, 0, &err), &err, RV_ERR_FORMAT,
        "the header of 100000000 bytes is longer");
    expect_error(read_with(100000001, "{}", 2, 0, &err), &err, RV_ERR_FORMAT, "claims a header of 100000001 bytes");
}

static void a_header_that_ends_inside_its_json_is_an_error(void **state) {
    (void)state;
    const char *header = "{" T("a", "U8", "4", 0, 4) "}";
    rv_error err = { 0 };
    for (size_t cut = 2; cut < strlen(header); cut++)
        expect_error(read_with(cut, header, strlen(header), 4, &err), &err, RV_ERR_FORMAT, "not valid JSON");
}

static void a_file_shorter_than_eight_bytes_is_an_error(void **state) {
    (void)state;
    rv_safetensors s;
    rv_error err = { 0 };
    for (uint64_t n = 0; n < 8; n++) {
        uint8_t *file = calloc(1, n ? n : 1);
        assert_non_null(file);
        expect_error(rv_safetensors_read(file, n, "x", &s, &err), &err, RV_ERR_FORMAT, "bytes long: cut short?");
        free(file);
    }
}

static void a_git_lfs_pointer_is_named(void **state) {
    (void)state;
    static const char text[] = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4976698672\n";
    rv_safetensors s;
    rv_error err = { 0 };
    expect_error(rv_safetensors_read(text, sizeof text - 1, "x", &s, &err), &err, RV_ERR_FORMAT,
        "run \"git lfs pull\"");
}

static void a_pytorch_archive_is_named(void **state) {
    (void)state;
    rv_safetensors s;
    rv_error err = { 0 };
    expect_error(rv_safetensors_read("PK\3\4aaaaaaaa", 12, "x", &s, &err), &err, RV_ERR_UNSUPPORTED, "zip archive");
}

static void every_dtype_is_known(void **state) {
    (void)state;
    static const struct { const char *name; unsigned bits; rv_dtype type; } types[] = {
        { "BOOL", 8, RV_DTYPE_COUNT }, { "U8", 8, RV_U8 }, { "I8", 8, RV_I8 }, { "F8_E5M2", 8, RV_DTYPE_COUNT },
        { "F8_E4M3", 8, RV_DTYPE_COUNT }, { "F8_E8M0", 8, RV_DTYPE_COUNT }, { "I16", 16, RV_DTYPE_COUNT },
        { "U16", 16, RV_DTYPE_COUNT }, { "F16", 16, RV_F16 }, { "BF16", 16, RV_BF16 }, { "I32", 32, RV_I32 },
        { "U32", 32, RV_DTYPE_COUNT }, { "F32", 32, RV_F32 }, { "F64", 64, RV_DTYPE_COUNT }, { "I64", 64, RV_I64 },
        { "U64", 64, RV_DTYPE_COUNT }, { "F4", 4, RV_DTYPE_COUNT }, { "F6_E2M3", 6, RV_DTYPE_COUNT } };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char file[256] = { 0 };
        unsigned bytes = types[i].bits * 3 * 4 / 8;
        int n = snprintf(file + 8, sizeof file - 8,
            "{\"a\":{\"dtype\":\"%s\",\"shape\":[3,4],\"data_offsets\":[0,%u]}}",
                         types[i].name, bytes);
        file[0] = (char)n;
        rv_safetensors s;
        rv_error err = { 0 };
        expect_ok(rv_safetensors_read(file, 8 + (unsigned)n + bytes, "x", &s, &err), &err);
        assert_int_equal(s.tensors[0].type->type, types[i].type);
        assert_string_equal(s.tensors[0].type->name, types[i].name);
        if (types[i].type != RV_DTYPE_COUNT) assert_int_equal(rv_dtype_size(types[i].type) * 8, types[i].bits);
        rv_safetensors_free(&s);
    }
}

static void tensors_come_sorted_by_name_with_shape_and_place(void **state) {
    (void)state;
    static const char header[] = "{" T("b", "F16", "2,3", 0, 12) ",\"__metadata__\":{\"format\":\"pt\",\"k\":\"v\"},"
                                 T("\\u00e9", "U8", "", 12, 13) "," T("a", "U8", "4,1", 13, 17) "}  \n";
    char file[sizeof header + 8 + 17] = { 0 };
    rv_safetensors s;
    rv_error err = { 0 };
    file[0] = (char)(sizeof header - 1);
    memcpy(file + 8, header, sizeof header - 1);
    expect_ok(rv_safetensors_read(file, 8 + sizeof header - 1 + 17, "x", &s, &err), &err);
    assert_int_equal(s.count, 3);
    assert_int_equal(s.data_bytes, 17);
    assert_ptr_equal(s.data, file + 8 + sizeof header - 1);
    assert_string_equal(s.tensors[0].name, "a");
    assert_string_equal(s.tensors[1].name, "b");
    assert_string_equal(s.tensors[2].name, "\xc3\xa9");
    assert_int_equal(s.tensors[1].n_dims, 2);
    assert_int_equal(s.tensors[1].shape[0], 2);
    assert_int_equal(s.tensors[1].shape[1], 3);
    assert_int_equal(s.tensors[1].begin, 0);
    assert_int_equal(s.tensors[1].end, 12);
    assert_int_equal(s.tensors[2].n_dims, 0);
    rv_safetensors_free(&s);
}

static void legal_oddities_are_accepted(void **state) {
    (void)state;
    accepts("{}", 0);
    accepts("{\"__metadata__\":{}}", 0);
    accepts("{\"__metadata__\":{\"a\":\"b\",\"a\":\"c\"}}", 0);
    accepts("{" T("empty", "F32", "0", 0, 0) "," T("also", "F32", "5,0,7", 0, 0) "," T("a", "U8", "1", 0, 1) "}", 1);
    accepts("{" T("empty at the end", "F32", "0", 4, 4) "," T("a", "U8", "4", 0, 4) "}", 4);
    accepts("{\"a\":{\"new key\":{\"x\":[1,2]},\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4);
    accepts("{\"\\u0061\":{\"d\\u0074ype\":\"U\\u0038\",\"shape\":[4],\"data_offsets\":[0,4]}}\t\n\r ", 4);
}

/* Any single byte of a good header may be wrong: the reader answers, and never reads outside. */
static void every_flipped_byte_gets_an_answer(void **state) {
    (void)state;
    static const char header[] = "{" T("a", "BF16", "2,3", 0, 12) "," T("b\\n", "U8", "4", 12, 16) "}";
    size_t accepted = 0;
    for (size_t i = 0; i < sizeof header - 1; i++)
        for (int flip = 1; flip < 256; flip++) {
            char text[sizeof header];
            rv_error err = { 0 };
            memcpy(text, header, sizeof header);
            text[i] = (char)(text[i] ^ flip);
            if (read_with(sizeof header - 1, text, sizeof header - 1, 16, &err) == RV_OK) accepted++;
            else assert_true(err.code == RV_ERR_FORMAT && err.message[0]);
        }
    assert_true(accepted < (sizeof header - 1) * 255 / 10);        /* names may change, little else */
}

int main(void) {
#define S(sentence) cmocka_unit_test(sentence)
    const struct CMUnitTest tests[] = {
        S(an_overlap_is_an_error), S(two_tensors_on_the_same_bytes_are_an_error), S(a_gap_between_tensors_is_an_error),
        S(a_gap_at_the_start_is_an_error), S(trailing_bytes_are_an_error), S(data_without_tensors_is_an_error),
        S(data_that_is_cut_short_is_an_error), S(an_offset_of_2_to_the_64_less_1_is_an_error),
        S(an_offset_of_2_to_the_64_is_an_error), S(an_end_before_the_beginning_is_an_error),
        S(a_negative_offset_is_an_error), S(a_fractional_offset_is_an_error), S(a_string_as_offset_is_an_error),
        S(one_offset_is_an_error), S(three_offsets_are_an_error), S(offsets_that_are_no_list_are_an_error),
        S(a_shape_smaller_than_its_bytes_is_an_error), S(a_shape_larger_than_its_bytes_is_an_error),
        S(a_shape_whose_product_overflows_is_an_error), S(an_overflow_that_a_zero_would_hide_is_an_error),
        S(a_shape_whose_bits_overflow_is_an_error), S(half_a_byte_is_an_error), S(a_negative_extent_is_an_error),
        S(a_fractional_extent_is_an_error), S(an_extent_with_an_exponent_is_an_error),
        S(an_extent_of_2_to_the_63_is_an_error), S(a_null_extent_is_an_error), S(a_shape_that_is_no_list_is_an_error),
        S(an_unknown_dtype_is_an_error), S(a_dtype_in_lower_case_is_an_error),
            S(an_endless_dtype_is_cut_in_the_message),
        S(a_dtype_that_is_no_string_is_an_error), S(a_missing_dtype_is_an_error), S(a_missing_shape_is_an_error),
        S(missing_offsets_are_an_error), S(a_shape_given_twice_is_an_error), S(an_escaped_repeat_of_a_key_is_an_error),
        S(a_tensor_named_twice_is_an_error), S(an_escaped_repeat_of_a_name_is_an_error),
            S(a_name_with_a_nul_is_an_error),
        S(a_tensor_that_is_no_object_is_an_error), S(a_null_tensor_is_an_error),
            S(metadata_that_is_no_object_is_an_error),
        S(metadata_with_a_number_is_an_error), S(metadata_with_an_object_is_an_error),
            S(metadata_given_twice_is_an_error),
        S(a_header_that_is_a_list_is_an_error), S(a_header_with_a_leading_blank_is_an_error),
        S(a_header_with_a_byte_order_mark_is_an_error), S(a_header_that_is_cut_short_is_an_error),
        S(a_comma_too_many_is_an_error), S(text_after_the_header_is_an_error), S(a_name_that_is_not_utf8_is_an_error),
        S(a_lone_surrogate_in_a_name_is_an_error), S(an_empty_header_is_an_error),
            S(an_unclosed_brace_alone_is_an_error),
        S(nesting_without_end_is_an_error), S(nine_dimensions_are_unsupported),
            S(a_header_of_2_to_the_60_bytes_is_an_error),
        S(a_header_longer_than_the_file_is_an_error), S(a_header_that_ends_inside_its_json_is_an_error),
        S(a_file_shorter_than_eight_bytes_is_an_error), S(a_git_lfs_pointer_is_named), S(a_pytorch_archive_is_named),
        S(every_dtype_is_known), S(tensors_come_sorted_by_name_with_shape_and_place), S(legal_oddities_are_accepted),
        S(every_flipped_byte_gets_an_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
