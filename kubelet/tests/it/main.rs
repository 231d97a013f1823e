//! All tests that need more than one module: one program, so that it is linked once.

mod environment;
mod images;
mod privileged;
mod tars;
mod fork_server;
mod logs;
mod native;
mod properties;
mod scripts;
mod table;
