//! The derive's messages about mistakes: every message in `ui/` points at the user's own token and
//! says what to write instead. Each file has one mistake, and is named for it.

fn assert_compile_errors(class: &str) {
    trybuild::TestCases::new().compile_fail(format!("ui/{class}/*.rs"));
}

#[test]
fn an_unknown_attribute_is_answered_with_the_nearest_one() {
    assert_compile_errors("unknown");
}

#[test]
fn a_malformed_attribute_is_answered_with_how_it_is_written() {
    assert_compile_errors("malformed");
}

#[test]
fn an_attribute_that_is_given_twice_is_refused_at_the_second_one() {
    assert_compile_errors("duplicate");
}

#[test]
fn attributes_that_exclude_each_other_are_refused() {
    assert_compile_errors("conflict");
}

#[test]
fn nested_is_for_structs_that_are_synced() {
    assert_compile_errors("nested");
}

#[test]
fn serde_attributes_that_a_handle_cannot_follow_are_refused() {
    assert_compile_errors("serde");
}

#[test]
fn an_unsupported_type_is_answered_with_what_to_write_instead() {
    assert_compile_errors("unsupported");
}

#[test]
fn reserved_names_are_answered_with_accessor() {
    assert_compile_errors("reserved");
}

#[test]
fn wrong_uses_of_a_handle_do_not_compile_and_say_so_once() {
    assert_compile_errors("usage");
}
