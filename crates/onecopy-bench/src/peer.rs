//! A worker: one of the two processes that move messages. It does what it is told and knows nothing of rows.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::process::{PTracer, Pid, Signal, getppid, set_parent_process_death_signal, set_ptracer};

use crate::control::{Control, Join, Meeting, Motion, Order, Reply, Run, Sample, Side};
use crate::endpoints::{self, Accept, Ends, primitives};
use crate::payload::{Arena, Content};
use crate::primitive::{Primitive, Use};
use crate::workloads::{Outcome, lines, loan, lock, lossy, memcpy, registered, rtt, stream, wake};
use crate::{affinity, interrupt, janitor};

/// Names the process that started this one as a worker.
pub(crate) const PARENT: &str = "ONECOPY_BENCH_PARENT";

/// Plays the part of a worker and never returns, when [`run`](crate::run) started this process as one; else does nothing.
///
/// A binary that calls [`run`](crate::run) calls this at the very start of its `main`.
pub fn run_peer_if_asked() {
    janitor::work_if_asked();
    let Ok(parent) = std::env::var(PARENT) else { return };
    let parent = parent.parse().ok().and_then(Pid::from_raw);
    let served = die_with(parent).and_then(|()| Worker::new()?.serve());
    std::process::exit(match served {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("onecopy bench: a worker lost its orders: {error}");
            1
        }
    });
}

/// Makes the kernel end this process when the measuring one ends, however that comes.
fn die_with(parent: Option<Pid>) -> std::io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    interrupt::block()?;
    // The workers attach to each other, which Yama allows to parents alone unless this is said; without Yama it is EINVAL.
    let _ = set_ptracer(PTracer::Any);
    if getppid() == parent { Ok(()) } else { Err(std::io::Error::other("the measuring process is gone")) }
}

struct Worker {
    control: Control,
    part: Part,
    side: Side,
    lossy: bool,
    corrupt: bool,
    fragmented: bool,
    arenas: [Arena; 2],
}

/// What this side has of what both share.
enum Part {
    Nothing,
    Accept(Accept),
    Ends(Box<Ends>),
    Lines(lines::Lines),
    /// What wakes the other side, and what this one is woken by.
    Bell(Box<wake::Bell>),
    /// A lock.
    Contest(Box<lock::Contest>),
}

impl Worker {
    fn new() -> std::io::Result<Self> {
        let control = Control::new(std::io::stdin().as_fd().try_clone_to_owned()?);
        let (part, arenas) = (Part::Nothing, memcpy::arenas());
        Ok(Self { control, part, side: Side::Host, lossy: false, corrupt: false, fragmented: false, arenas })
    }

    fn serve(mut self) -> std::io::Result<()> {
        while let Some(order) = self.control.recv()? {
            let reply = self.obey(order);
            self.control.send(&reply, &[])?;
        }
        Ok(())
    }

    fn obey(&mut self, order: Order) -> Reply {
        match order {
            Order::Join(join) => self.join(&join),
            Order::Accept => self.accept(),
            Order::Run(run) => done(self.run(&run)),
            Order::Memcpy(memcpy) => {
                let [from, into] = &mut self.arenas;
                done(match memcpy.in_place {
                    true => loan::measure_alone(&memcpy),
                    false => memcpy::measure(from, into, &memcpy),
                })
            }
            Order::Go => Reply::Failed("there was nothing to start".into()),
        }
    }

    fn join(&mut self, join: &Join) -> Reply {
        if let Some(Err(errno)) = join.cpu.map(affinity::pin) {
            return Reply::Failed(format!("sched_setaffinity: {errno}"));
        }
        match Content::open(join.input.as_deref()) {
            Ok(content) => self.arenas[0] = Arena::new(content),
            Err(error) => return Reply::Failed(format!("the input cannot be read: {error}")),
        }
        (self.side, self.corrupt, self.fragmented) = (join.side, join.corrupt, join.fragmented);
        let fds = std::iter::from_fn(|| self.control.take_fd()).collect();
        let joined = match (join.meeting, join.side) {
            (Meeting::Nothing, _) => Ok((Part::Nothing, Reply::Joined(None))),
            (Meeting::Lines, _) => return self.join_lines(fds),
            (Meeting::Primitive(primitive, usage), _) => {
                primitive_part(primitive, usage, join, fds).map(|part| (part, Reply::Joined(None)))
            }
            (Meeting::Transport(transport), Side::Host) => endpoints::host(transport, join, fds)
                .map(|(announced, accept)| (Part::Accept(accept), Reply::Announced(announced))),
            (Meeting::Transport(transport), Side::Guest) => {
                endpoints::guest(transport, join, fds).map(|ends| self.joined(ends))
            }
        };
        self.lossy = matches!(join.meeting, Meeting::Transport(transport) if transport.is_lossy());
        match joined {
            Ok((part, reply)) => {
                self.part = part;
                reply
            }
            Err(error) => refusal(&error),
        }
    }

    fn joined(&self, ends: Ends) -> (Part, Reply) {
        let ends = if self.fragmented { ends.fragmented() } else { ends };
        let limit_bytes = ends.sender.any().limit_bytes();
        (Part::Ends(Box::new(ends)), Reply::Joined(limit_bytes))
    }

    fn join_lines(&mut self, fds: Vec<OwnedFd>) -> Reply {
        match fds.first().map(lines::Lines::map) {
            Some(Ok(lines)) => {
                self.part = Part::Lines(lines);
                Reply::Joined(None)
            }
            Some(Err(errno)) => Reply::Failed(format!("mmap of two cache lines: {errno}")),
            None => Reply::Failed("no memory came for the cache lines".into()),
        }
    }

    fn accept(&mut self) -> Reply {
        match std::mem::replace(&mut self.part, Part::Nothing) {
            Part::Accept(accept) => match accept() {
                Ok(ends) => {
                    let (part, reply) = self.joined(ends);
                    self.part = part;
                    reply
                }
                Err(error) => refusal(&error),
            },
            _ => Reply::Failed("there was nothing to accept".into()),
        }
    }

    fn run(&mut self, run: &Run) -> Outcome {
        let control = &mut self.control;
        let mut go = || match control.send(&Reply::Armed, &[]).and_then(|()| control.recv()) {
            Ok(Some(Order::Go)) => Ok(()),
            _ => Err("the measuring process gave no start".to_owned()),
        };
        let (arena, corrupt) = (&mut self.arenas[0], self.corrupt);
        let ends = match &mut self.part {
            Part::Ends(ends) => ends,
            Part::Lines(lines) => return lines.play(self.side, run, &mut go),
            Part::Bell(bell) => return bell.play(self.side, run, corrupt, &mut go),
            Part::Contest(contest) => return contest.play(self.side, run, corrupt, &mut go),
            Part::Nothing | Part::Accept(_) => return Err("there was no link".into()),
        };
        let way = ends.begin(run);
        let outcome = match (run.motion, self.side, self.lossy) {
            (Motion::RoundTrip, Side::Guest, _) => rtt::ping(ends, arena, run, corrupt, &mut go),
            (Motion::RoundTrip, Side::Host, _) => rtt::pong(ends, arena, run, &mut go),
            (Motion::InPlace { is_touched }, Side::Guest, _) => {
                loan::send(&mut ends.sender, arena, run, is_touched, corrupt, &mut go)
            }
            (Motion::InPlace { is_touched }, Side::Host, _) => {
                loan::receive(&mut ends.intake, arena, run, is_touched, &mut go)
            }
            (Motion::Registered, Side::Guest, _) => registered::send(&mut ends.sender, arena, run, corrupt, &mut go),
            (Motion::Registered, Side::Host, _) => registered::receive(&mut ends.intake, arena, run, &mut go),
            (Motion::OneWay, Side::Guest, false) => stream::send(ends.sender.any_mut(), arena, run, corrupt, &mut go),
            (Motion::OneWay, Side::Host, false) => stream::receive(&mut ends.intake, arena, run, &mut go),
            (Motion::OneWay, Side::Guest, true) => lossy::send(ends, arena, run, corrupt, &mut go),
            (Motion::OneWay, Side::Host, true) => lossy::receive(ends, arena, run, &mut go),
        };
        outcome.map(|sample| Sample { path: ends.way_since(&way), ..sample })
    }
}

fn primitive_part(primitive: Primitive, usage: Use, join: &Join, fds: Vec<OwnedFd>) -> onecopy::Result<Part> {
    Ok(match usage {
        Use::Wake => Part::Bell(Box::new(primitives::bell(primitive, join, &fds)?)),
        Use::Uncontended | Use::Contended => {
            Part::Contest(Box::new(primitives::contest(primitive, usage == Use::Contended, join, &fds)?))
        }
    })
}

fn done(outcome: Outcome) -> Reply {
    outcome.map_or_else(Reply::Failed, Reply::Done)
}

/// Tells a mechanism that is missing here from one that failed.
fn refusal(error: &onecopy::Error) -> Reply {
    match error {
        onecopy::Error::Unsupported { .. } => Reply::Unavailable(error.to_string()),
        _ => Reply::Failed(error.to_string()),
    }
}
