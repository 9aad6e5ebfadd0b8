//! Measurements; see the `[[bench]]` targets.
