//! Objects as they lie in the store.
