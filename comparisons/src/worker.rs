//! The two processes of a run: the host, which measures, and the guest, which the host starts.

use std::process::ExitCode;

use rustix::process::{Signal, set_parent_process_death_signal};

use crate::contenders::iceoryx2::Iceoryx;
use crate::contenders::interprocess::{Pipe, Socket};
use crate::contenders::ipc_channel::{Bytes, Shared};
use crate::contenders::onecopy::OnecopyChannel;
use crate::endpoint::{Endpoint, Guest, failed};
use crate::order::{Contender, GUEST, HOST, Order, Sample};
use crate::{affinity, baselines, workloads};

/// Does the work of a host or a guest, when this process was started for it.
pub(crate) fn work_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let (role, text) = (arguments.next()?, arguments.next()?);
    if role != HOST && role != GUEST {
        return None;
    }
    let done = serde_json::from_str(&text).map_err(failed("order")).and_then(|order| work(&role, &order));
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", if role == HOST { "host" } else { "guest" });
            ExitCode::FAILURE
        }
    })
}

fn work(role: &str, order: &Order) -> Result<(), String> {
    // Who started this process may be killed: nobody is left behind.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed("prctl"))?;
    affinity::pin(order.cores[usize::from(role == GUEST)])?;
    if role == GUEST {
        return guest(order);
    }
    let sample = host(order)?;
    println!("{}", serde_json::to_string(&sample).map_err(failed("JSON"))?);
    Ok(())
}

fn host(order: &Order) -> Result<Sample, String> {
    match order.contender {
        Contender::Channel | Contender::ChannelInto => play(OnecopyChannel::host(order)?, order),
        Contender::IceoryxCopy | Contender::IceoryxLoan => play(Iceoryx::host(order)?, order),
        Contender::IpcBytes => play(Bytes::host(order)?, order),
        Contender::IpcShared => play(Shared::host(order)?, order),
        Contender::Socket => play(Socket::host(order)?, order),
        Contender::Pipe => play(Pipe::host(order)?, order),
        Contender::Memcpy => Ok(baselines::memcpy(order)),
        Contender::Line => baselines::line_host(order),
    }
}

fn play<E: Endpoint>((mut endpoint, guest): (E, Guest), order: &Order) -> Result<Sample, String> {
    let sample = workloads::host(&mut endpoint, order)?;
    guest.finish()?;
    Ok(sample)
}

fn guest(order: &Order) -> Result<(), String> {
    match order.contender {
        Contender::Channel | Contender::ChannelInto => workloads::guest(&mut OnecopyChannel::guest(order)?, order),
        Contender::IceoryxCopy | Contender::IceoryxLoan => workloads::guest(&mut Iceoryx::guest(order)?, order),
        Contender::IpcBytes => workloads::guest(&mut Bytes::guest(order)?, order),
        Contender::IpcShared => workloads::guest(&mut Shared::guest(order)?, order),
        Contender::Socket => workloads::guest(&mut Socket::guest(order)?, order),
        Contender::Pipe => workloads::guest(&mut Pipe::guest(order)?, order),
        Contender::Memcpy => Err("one process copies, and has no guest".into()),
        Contender::Line => baselines::line_guest(order),
    }
}
