//! What the derive says about mistakes: every message in `ui/` is at the user's own token and says
//! what to write instead. Each file has one mistake, and is named for it.

fn refused(class: &str) {
    trybuild::TestCases::new().compile_fail(format!("ui/{class}/*.rs"));
}

#[test]
fn an_unknown_attribute_is_answered_with_the_nearest_one() {
    refused("unknown");
}

#[test]
fn a_malformed_attribute_is_answered_with_how_it_is_written() {
    refused("malformed");
}

#[test]
fn what_is_given_twice_is_refused_at_the_second() {
    refused("duplicate");
}

#[test]
fn attributes_that_exclude_each_other_are_refused() {
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
fn what_cannot_be_shared_is_answered_with_what_to_write_instead() {
    refused("unsupported");
}

#[test]
fn reserved_names_are_answered_with_accessor() {
    refused("reserved");
}

#[test]
fn wrong_uses_of_a_handle_do_not_compile_and_say_so_once() {
    refused("usage");
}
