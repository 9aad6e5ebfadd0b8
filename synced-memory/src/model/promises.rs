//! The promises by name.
