//! Admission: what may pass, and what is added on the way.
