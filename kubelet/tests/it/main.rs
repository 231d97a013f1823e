//! All tests that need more than one module: one program, so that it is linked once.

mod cgroups;
mod containers;
mod cri;
mod environment;
mod exec;
mod fork_server;
mod image_volumes;
mod images;
mod logs;
mod native;
mod privileged;
mod properties;
mod races;
mod registry;
mod registry_logins;
mod registry_tls;
mod scripts;
mod shared_processes;
mod table;
mod tars;
mod web;
