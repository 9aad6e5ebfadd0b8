//! One module per promise.

mod names_and_scopes;
mod wire_format;
