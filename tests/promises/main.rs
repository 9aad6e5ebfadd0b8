//! One module per promise.

mod asynchronous;
mod clocks;
mod closures;
mod commands;
mod contract;
mod exactly_once;
mod flushes;
mod journal;
mod line;
mod mutations;
mod names_and_scopes;
mod nested_names;
mod operations;
mod outages;
mod python_collections;
mod python_defects;
mod python_tables;
mod refusals;
mod round_trips;
mod runtimes;
mod set_aside;
mod shutdown;
mod sidecars;
mod sqlite;
mod together;
mod wire_format;
