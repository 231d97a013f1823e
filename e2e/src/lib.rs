//! Real binaries, real kubectl, several processes, faults.
