//! The door: the only reader and writer of the store.
