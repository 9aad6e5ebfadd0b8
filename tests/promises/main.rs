//! One module per promise.

mod line;
mod names_and_scopes;
mod outages;
mod refusals;
mod wire_format;
