//! One module per promise.

mod asynchronous;
mod clocks;
mod commands;
mod exactly_once;
mod flushes;
mod journal;
mod line;
mod mutations;
mod names_and_scopes;
mod operations;
mod outages;
mod python_defects;
mod python_tables;
mod refusals;
mod runtimes;
mod shutdown;
mod together;
mod wire_format;
