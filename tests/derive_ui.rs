//! What the derive says to mistaken code: every message in `ui/` is at the user's own token and
//! says what to write instead.

fn refused(class: &str) {
    trybuild::TestCases::new().compile_fail(format!("ui/{class}/*.rs"));
}

#[test]
fn an_unknown_word_is_told_the_nearest_one() {
    refused("unknown");
}

#[test]
fn a_malformed_attribute_is_told_how_it_is_written() {
    refused("malformed");
}

#[test]
fn what_is_given_twice_is_refused_at_the_second() {
    refused("duplicate");
}

#[test]
fn words_that_exclude_each_other_are_refused() {
    refused("conflict");
}

#[test]
fn nested_is_for_structs_that_are_synced() {
    refused("nested");
}

#[test]
fn what_serde_does_and_a_handle_cannot_follow_is_refused() {
    refused("serde");
}

#[test]
fn what_cannot_be_shared_is_told_what_to_write_instead() {
    refused("unsupported");
}

#[test]
fn reserved_names_are_told_of_accessor() {
    refused("reserved");
}

#[test]
fn wrong_uses_of_a_handle_do_not_compile_and_say_so_once() {
    refused("usage");
}
