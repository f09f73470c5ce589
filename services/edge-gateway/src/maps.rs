//! Maps by names that publishers, issuers and operators choose, and by numbers of our own.
//!
//! Looked into a dozen times whenever somebody comes in, and with each event; their hash costs a fraction of what the standard
//! library's does, which withstands strangers who look for names that collide. What strangers choose (addresses) has that one.

/// See the module.
pub type HashMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;
