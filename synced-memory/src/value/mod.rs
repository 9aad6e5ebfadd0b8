//! What is stored under a key: the envelope, its JSON text, and changes to it. No I/O, no clock.

#[cfg_attr(
    not(test),
    expect(
        dead_code,
        unused_imports,
        reason = "the rooms above do not use it yet"
    )
)]
pub(crate) mod document;
pub(crate) mod envelope;
pub(crate) mod json;
pub(crate) mod mutation;
pub(crate) mod shape;
