//! Maps by key, which each call asks several times.

use std::collections::HashMap;
use std::sync::Arc;

/// Faster than std's, and as that one with a random seed: names of keys may come from outside.
pub(crate) type KeyMap<V> = HashMap<Arc<str>, V, foldhash::fast::RandomState>;
