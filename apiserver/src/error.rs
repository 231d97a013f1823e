//! Every failure becomes a Status here.
