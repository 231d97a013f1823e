//! The driver of [`Supervision`]: processes, signals, the chaos socket and the clock.
//!
//! One loop takes one event at a time, asks what to do and does it. It runs on the main thread, which lives
//! as long as the process: children are bound to the life of the thread that started them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Instant;

use futures::FutureExt as _;
use futures::stream::{FuturesUnordered, StreamExt as _};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};

use super::UpError;
use super::chaos_socket::{self, Answer, ChildStatus, Order, Pending};
use super::layout::{ChildId, Layout};
use super::processes::signal_pods;
use super::reporter::Reporter;
use super::spawn::{self, ChildSpec, Report, Reports};
use super::supervision::{Effect, Event, State, Supervision};
use crate::signals::Termination;

/// Orders that wait; a further asker waits with its order in hand.
const ORDERS: usize = 8;

/// What the supervisor was given to keep alive.
pub struct Supervisor<'a> {
    layout: Layout,
    specs: BTreeMap<ChildId, ChildSpec>,
    reporter: &'a Reporter,
    supervision: Supervision,
    pids: BTreeMap<ChildId, u32>,
    leader: Option<ChildId>,
    /// Set once, when the first member serves.
    serving: watch::Sender<bool>,
    exits: FuturesUnordered<futures::future::LocalBoxFuture<'static, (ChildId, std::io::Result<ExitStatus>)>>,
    says: FuturesUnordered<futures::future::LocalBoxFuture<'static, (ChildId, Option<Report>, Reports)>>,
}

/// What the loop waits for.
enum Incoming {
    Exit(ChildId, std::io::Result<ExitStatus>),
    Said(ChildId, Report, Reports),
    Silent,
    Order(Pending),
    Stop,
    Tick,
}

/// What the loop goes on with after an event.
enum Flow {
    Continue,
    Finished,
}

impl<'a> Supervisor<'a> {
    /// Nothing is started yet.
    pub fn new(layout: Layout, specs: Vec<ChildSpec>, reporter: &'a Reporter) -> Self {
        Self {
            layout,
            supervision: Supervision::new(specs.iter().map(|spec| spec.id)),
            specs: specs.into_iter().map(|spec| (spec.id, spec)).collect(),
            reporter,
            pids: BTreeMap::new(),
            leader: None,
            serving: watch::Sender::new(false),
            exits: FuturesUnordered::new(),
            says: FuturesUnordered::new(),
        }
    }

    /// Becomes true when the first member serves.
    pub fn serving(&self) -> watch::Receiver<bool> {
        self.serving.subscribe()
    }

    /// Starts everything and keeps it running until a signal asks to stop; returns when all have ended.
    pub async fn run(mut self, socket: UnixListener, mut stop: Termination) -> Result<(), UpError> {
        let (orders, mut pending) = mpsc::channel(ORDERS);
        let socket = tokio::spawn(chaos_socket::serve(socket, orders));
        let outcome = self.serve(&mut pending, &mut stop).await;
        // On an error the children that still run are ended by dropping them; pods stay for the next start.
        socket.abort();
        outcome
    }

    async fn serve(
        &mut self,
        pending: &mut mpsc::Receiver<Pending>,
        stop: &mut Termination,
    ) -> Result<(), UpError> {
        self.handle(Event::Begin)?;
        loop {
            let flow = match self.next(pending, stop).await {
                Incoming::Exit(id, status) => self.exited(id, status)?,
                Incoming::Said(id, report, says) => self.said(id, report, says)?,
                Incoming::Silent => Flow::Continue,
                Incoming::Order(order) => self.order(order)?,
                Incoming::Stop => {
                    self.reporter.doing("stopping nodes, then members (Ctrl-C again to kill them)");
                    self.handle(Event::Stop)?
                }
                Incoming::Tick => self.handle(Event::Tick)?,
            };
            if matches!(flow, Flow::Finished) {
                return Ok(());
            }
        }
    }

    async fn next(&mut self, pending: &mut mpsc::Receiver<Pending>, stop: &mut Termination) -> Incoming {
        let tick = self.supervision.next_tick();
        let sleep = async {
            match tick {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some((id, status)) = self.exits.next() => Incoming::Exit(id, status),
            Some((id, report, says)) = self.says.next() => match report {
                Some(report) => Incoming::Said(id, report, says),
                None => Incoming::Silent,
            },
            Some(order) = pending.recv() => Incoming::Order(order),
            () = stop.next() => Incoming::Stop,
            () = sleep => Incoming::Tick,
        }
    }

    fn handle(&mut self, event: Event) -> Result<Flow, UpError> {
        let mut flow = Flow::Continue;
        for effect in self.supervision.step(event, Instant::now()) {
            if matches!(self.perform(effect)?, Flow::Finished) {
                flow = Flow::Finished;
            }
        }
        Ok(flow)
    }

    fn perform(&mut self, effect: Effect) -> Result<Flow, UpError> {
        match effect {
            Effect::Start(id) => self.start(id)?,
            Effect::Terminate(id) => self.signal(id, Signal::SIGTERM),
            Effect::KillAgent(id) => self.signal(id, Signal::SIGKILL),
            Effect::Kill(id) => self.kill(id)?,
            Effect::Freeze(id) => self.freeze(id, Signal::SIGSTOP)?,
            Effect::Thaw(id) => self.freeze(id, Signal::SIGCONT)?,
            Effect::Say(text) => self.reporter.warn(text),
            Effect::GiveUp(id, how) => return Err(self.never_ready(id, how)),
            Effect::Finished => return self.clean_up().map(|()| Flow::Finished),
        }
        Ok(Flow::Continue)
    }

    fn start(&mut self, id: ChildId) -> Result<(), UpError> {
        let spec = &self.specs[&id];
        let failed = |source| UpError::Spawn { child: id.to_string(), source };
        let mut running = spawn::spawn(spec).map_err(failed)?;
        self.pids.extend(running.process.id().map(|pid| (id, pid)));
        self.listen(id, running.says);
        self.exits.push(async move { (id, running.process.wait().await) }.boxed_local());
        Ok(())
    }

    fn listen(&self, id: ChildId, mut says: Reports) {
        self.says.push(
            async move {
                let report = says.next().await;
                (id, report, says)
            }
            .boxed_local(),
        );
    }

    fn signal(&self, id: ChildId, signal: Signal) {
        let pid = self.pids.get(&id).and_then(|pid| i32::try_from(*pid).ok());
        if let Some(pid) = pid {
            // It may have ended already: then its exit is on its way to us.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Like a power cut: first the agent, so that it can't start anything again, then its pods.
    fn kill(&mut self, id: ChildId) -> Result<(), UpError> {
        self.signal(id, Signal::SIGKILL);
        if id.is_node() { self.power_off(id) } else { Ok(()) }
    }

    fn power_off(&self, id: ChildId) -> Result<(), UpError> {
        let dir = self.layout.child(id);
        let failed = |source| UpError::File { attempt: "end the pods of", path: dir.clone(), source };
        // By the node's own records, and by what else is found below its shims.
        signal_pods(&dir, Signal::SIGKILL).map_err(failed)?;
        kubelet::power_off(&dir).map(|_| ()).map_err(failed)
    }

    fn freeze(&self, id: ChildId, signal: Signal) -> Result<(), UpError> {
        self.signal(id, signal);
        if !id.is_node() {
            return Ok(());
        }
        let dir = self.layout.child(id);
        signal_pods(&dir, signal).map_err(UpError::file("stop or resume the pods of", dir))
    }

    fn exited(&mut self, id: ChildId, status: std::io::Result<ExitStatus>) -> Result<Flow, UpError> {
        self.pids.remove(&id);
        if self.leader == Some(id) {
            self.leader = None;
        }
        let how = status.map_or_else(|error| format!("can't be waited for ({error})"), spawn::how);
        self.handle(Event::Exited(id, how))
    }

    fn said(&mut self, id: ChildId, report: Report, says: Reports) -> Result<Flow, UpError> {
        self.listen(id, says);
        match report {
            Report::Ready => {
                if !id.is_node() {
                    self.serving.send_replace(true);
                }
                return self.handle(Event::Ready(id));
            }
            Report::Leading => self.leader = Some(id),
            Report::Following if self.leader == Some(id) => self.leader = None,
            Report::Following => {}
        }
        Ok(Flow::Continue)
    }

    fn order(&mut self, pending: Pending) -> Result<Flow, UpError> {
        let (answer, flow) = match self.carry_out(&pending.order) {
            Ok(flow) => (Answer::Done(self.statuses()), flow?),
            Err(refused) => (Answer::Refused(refused), Flow::Continue),
        };
        // The asker may be gone; what was ordered is done nevertheless.
        let _ = pending.answer.send(answer);
        Ok(flow)
    }

    fn carry_out(&mut self, order: &Order) -> Result<Result<Flow, UpError>, String> {
        let event = match order {
            Order::List => return Ok(Ok(Flow::Continue)),
            Order::Kill { child } => Event::Kill(self.child(child)?),
            Order::Stop { child } => Event::Freeze(self.child(child)?),
            Order::Resume { child } => Event::Resume(self.child(child)?),
        };
        Ok(self.handle(event))
    }

    fn child(&self, name: &str) -> Result<ChildId, String> {
        let id: ChildId = name.parse()?;
        let names: Vec<String> = self.specs.keys().map(ToString::to_string).collect();
        let known = self.specs.contains_key(&id);
        if known {
            Ok(id)
        } else {
            Err(format!("this cluster has no {name}: it has {}", crate::text::and(&names)))
        }
    }

    fn statuses(&self) -> Vec<ChildStatus> {
        let status = |(id, state, restarts): (ChildId, State, u32)| ChildStatus {
            name: id.to_string(),
            role: if id.is_node() { "node" } else { "member" }.to_owned(),
            state: state.word().to_owned(),
            pid: self.pids.get(&id).copied(),
            restarts,
            leader: self.leader == Some(id),
        };
        self.supervision.states().map(status).collect()
    }

    fn never_ready(&self, id: ChildId, how: String) -> UpError {
        let log: PathBuf = self.specs[&id].log.clone();
        UpError::NeverReady { child: id.to_string(), how, tail: spawn::tail(&log), log }
    }

    /// After a stop nothing of the cluster may be left on this machine, not even what a killed agent left.
    fn clean_up(&self) -> Result<(), UpError> {
        self.specs.keys().filter(|id| id.is_node()).try_for_each(|id| self.power_off(*id))
    }
}
