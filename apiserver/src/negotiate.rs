//! What a client accepts.
