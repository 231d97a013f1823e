//! What should be: one reconcile a file.
