//! A whole cluster as a value, for tests: an API server's rules over a map, caches that are as late as a test
//! wants, kubelets and a scheduler that act on command. Plans are performed on it without any waiting, so a
//! crash can be put after each write.

mod asking;
mod convergence;
mod kinds;
mod machines;
mod objects;
mod outage;
mod owners;
mod perturbation;
mod process;
mod script;
mod server;
mod shown;
mod templates;

use crate::{
    driver::Report,
    garbage_collector::{self, Graph, Node},
    plan::Plan,
};
use client::informer::ObjectKey;
use jiff::SignedDuration;
use kinds::kind;
use process::{Parts, Process};
use serde_json::Value;
use server::Server;
use std::{cell::RefCell, rc::Rc};

/// The collector, which is asked for uids instead of keys.
const GARBAGE: &str = "garbage";

/// The cluster.
pub struct World {
    pub server: Server,
    process: Process,
    parts: Parts,
    /// The owner graph and the revision it was built at.
    graph: RefCell<(u64, Rc<Graph>)>,
}

impl World {
    pub fn new() -> World {
        World::with(Parts::Usual)
    }

    fn with(parts: Parts) -> World {
        World { server: Server::new(), process: Process::start(parts), parts, graph: RefCell::default() }
    }

    /// Lets every cache catch up.
    pub fn sync(&mut self) {
        for plural in std::mem::take(&mut self.server.changed) {
            self.refill(&plural);
        }
    }

    fn refill(&self, plural: &str) {
        self.process.refill(plural, &self.server);
    }

    /// The controllers' process dies and another starts, which lists everything.
    pub fn crash(&mut self) {
        self.process = Process::start(self.parts);
        self.server.changed.clear();
        self.process.list_everything(&self.server);
    }

    /// Time passes.
    pub fn pass(&mut self, seconds: i64) {
        self.server.now += SignedDuration::from_secs(seconds);
    }

    /// The names of all controllers, in the order in which they take turns.
    pub fn controllers(&self) -> Vec<&'static str> {
        self.process.controllers.iter().map(|row| row.name).chain([GARBAGE]).collect()
    }

    /// Everything that `controller` could look at.
    pub fn keys(&self, controller: &str) -> Vec<String> {
        if controller == GARBAGE {
            return self.server.objects.values().map(|object| text(object, "/metadata/uid")).collect();
        }
        let keys = self.process.controller(controller).keys;
        match keys.contains('/') {
            true => vec![keys.to_owned()],
            false => self.server.of_kind(keys).map(|(key, _)| key.to_string()).collect(),
        }
    }

    /// The keys that changes have led to; none if no change leads to this controller.
    fn queued(&self, controller: &str) -> Option<Vec<String>> {
        let row = self.process.controllers.iter().find(|row| row.name == controller);
        let keys = row?.queue.as_ref()?.take_ready();
        Some(keys.into_iter().map(|key| key.to_string()).collect())
    }

    /// What `controller` wants done about `key`.
    pub fn look(&self, controller: &str, key: &str) -> Plan {
        if controller == GARBAGE {
            return garbage_collector::reconcile(key, &self.graph());
        }
        let looks = &self.process.controller(controller).looks;
        looks.plan(&self.server, &object_key(key), self.server.now)
    }

    /// Performs `plan`, at most `writes` of it; returns what became of it.
    pub fn perform(&mut self, controller: &str, key: &str, plan: &Plan, writes: &mut usize) -> Report {
        let report = self.server.perform(plan, writes);
        if controller != GARBAGE {
            let looks = &self.process.controller(controller).looks;
            looks.learn(&object_key(key), &report, self.server.now);
        }
        report
    }

    /// Lets all controllers act, each seeing everything, until none wants to; returns what they did.
    /// Stops for good after `writes` writes.
    pub fn settle(&mut self, writes: &mut usize) -> Vec<String> {
        let mut done = Vec::new();
        for _ in 0..60 {
            let before = self.server.revision;
            for controller in self.controllers() {
                self.sync();
                for key in self.keys(controller) {
                    let plan = self.look(controller, &key);
                    done.extend(plan.actions.iter().map(|action| format!("{controller}: {action}")));
                    self.perform(controller, &key, &plan, writes);
                    if *writes == 0 {
                        return done;
                    }
                    self.sync();
                }
            }
            if self.server.revision == before {
                return done;
            }
        }
        panic!("the controllers never agree:\n{}", done[done.len().saturating_sub(20)..].join("\n"));
    }

    fn graph(&self) -> Rc<Graph> {
        let mut built = self.graph.borrow_mut();
        if built.0 != self.server.revision {
            *built = (self.server.revision, Rc::new(self.build_graph()));
        }
        built.1.clone()
    }

    fn build_graph(&self) -> Graph {
        let mut graph = Graph::new(kinds::all());
        for ((plural, _), object) in &self.server.objects {
            let metadata = serde_json::from_value(object["metadata"].clone()).expect("metadata");
            graph.apply(Node::of(&kind(plural), &metadata));
        }
        graph
    }
}

pub fn object_key(text: &str) -> ObjectKey {
    match text.split_once('/') {
        Some((namespace, name)) => ObjectKey::new(namespace, name),
        None => ObjectKey::cluster(text),
    }
}

pub fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}
