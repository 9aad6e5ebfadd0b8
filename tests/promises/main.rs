//! One module per promise.

mod clocks;
mod commands;
mod flushes;
mod line;
mod names_and_scopes;
mod operations;
mod outages;
mod python_defects;
mod refusals;
mod runtimes;
mod shutdown;
mod wire_format;
