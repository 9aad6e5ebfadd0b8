//! A reference for mutations: what operations do, in plain Rust on trees of values.
//!
//! - `edits.rs`: operations and calls in the terms of the reference
//! - `targets.rs`: which element of a list an operation may mean
//! - `apply.rs`: the results of one call; `routes.rs`: those of several calls, one after the other
//! - `closures.rs`: which calls were made on what other calls wrote

pub(super) mod apply;
pub(super) mod closures;
pub(super) mod edits;
pub(super) mod routes;
mod targets;
