//! ipc-channel: its channel of bytes, and its shared memory passed through a channel.

use std::collections::VecDeque;

use ipc_channel::TryRecvError;
use ipc_channel::ipc::{
    self, IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcReceiver, IpcSender, IpcSharedMemory,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::endpoint::{Endpoint, Guest, complete, failed};
use crate::order::{Order, Wait};
use crate::payload::{Pass, Room, Source, kept_messages};

/// The host makes the place to meet and the guest both directions.
fn meet<T: Serialize + DeserializeOwned>(order: &Order) -> Result<(T, Guest), String> {
    let (server, name) = IpcOneShotServer::<T>::new().map_err(failed("one-shot server"))?;
    let guest = Guest::start(&Order { meeting: name, ..order.clone() })?;
    let (_, ends) = server.accept().map_err(failed("accept"))?;
    Ok((ends, guest))
}

fn join<T: Serialize + DeserializeOwned>(order: &Order, ends: T) -> Result<(), String> {
    IpcSender::connect(order.meeting.clone()).map_err(failed("connect"))?.send(ends).map_err(failed("send"))
}

/// Receives by one of the two ways to wait.
#[inline]
fn await_one<T, E: std::fmt::Display>(
    wait: Wait,
    recv: impl FnOnce() -> Result<T, E>,
    try_recv: impl Fn() -> Result<T, TryRecvError>,
) -> Result<T, String> {
    if wait == Wait::Block {
        return recv().map_err(failed("recv"));
    }
    loop {
        match try_recv() {
            Err(TryRecvError::Empty) => {}
            result => return result.map_err(failed("try_recv")),
        }
    }
}

/// The channel of bytes. A message arrives as a vector, which is private memory: no copy is added.
pub(crate) struct Bytes {
    sender: IpcBytesSender,
    receiver: IpcBytesReceiver,
    wait: Wait,
    latest: Vec<u8>,
    /// As for the channel of onecopy.
    kept: VecDeque<Vec<u8>>,
    keep: usize,
}

impl Bytes {
    pub(crate) fn host(order: &Order) -> Result<(Self, Guest), String> {
        let ((sender, receiver), guest) = meet(order)?;
        Ok((Self::over(sender, receiver, order), guest))
    }

    pub(crate) fn guest(order: &Order) -> Result<Self, String> {
        let (sender, their_receiver) = ipc::bytes_channel().map_err(failed("bytes_channel"))?;
        let (their_sender, receiver) = ipc::bytes_channel().map_err(failed("bytes_channel"))?;
        join(order, (their_sender, their_receiver))?;
        Ok(Self::over(sender, receiver, order))
    }

    fn over(sender: IpcBytesSender, receiver: IpcBytesReceiver, order: &Order) -> Self {
        let keep = if order.cold { kept_messages(order.size_bytes) } else { 0 };
        Self { sender, receiver, wait: order.wait, latest: Vec::new(), kept: VecDeque::new(), keep }
    }
}

impl Endpoint for Bytes {
    #[inline]
    fn send(&mut self, source: &Source, sequence: u64) -> Result<(), String> {
        self.sender.send(source.bytes(sequence)).map_err(failed("send"))
    }

    #[inline]
    fn receive(&mut self, _: &mut Room, _: u64) -> Result<(), String> {
        self.latest = await_one(self.wait, || self.receiver.recv(), || self.receiver.try_recv())?;
        Ok(())
    }

    #[inline]
    fn check(&mut self, room: &Room, sequence: u64, pass: Pass) -> Result<(), String> {
        let message = std::mem::take(&mut self.latest);
        room.check(sequence, pass).verify(&message)?;
        if self.keep > 0 {
            self.kept.push_back(message);
            if self.kept.len() > self.keep {
                self.kept.pop_front();
            }
        }
        Ok(())
    }
}

/// Shared memory, new for each message, which the receiver copies out.
pub(crate) struct Shared {
    sender: IpcSender<IpcSharedMemory>,
    receiver: IpcReceiver<IpcSharedMemory>,
    wait: Wait,
}

impl Shared {
    pub(crate) fn host(order: &Order) -> Result<(Self, Guest), String> {
        let ((sender, receiver), guest) = meet(order)?;
        Ok((Self { sender, receiver, wait: order.wait }, guest))
    }

    pub(crate) fn guest(order: &Order) -> Result<Self, String> {
        let (sender, their_receiver) = ipc::channel().map_err(failed("channel"))?;
        let (their_sender, receiver) = ipc::channel().map_err(failed("channel"))?;
        join::<(IpcSender<IpcSharedMemory>, IpcReceiver<IpcSharedMemory>)>(order, (their_sender, their_receiver))?;
        Ok(Self { sender, receiver, wait: order.wait })
    }
}

impl Endpoint for Shared {
    #[inline]
    fn send(&mut self, source: &Source, sequence: u64) -> Result<(), String> {
        let memory = IpcSharedMemory::from_bytes(source.bytes(sequence));
        self.sender.send(memory).map_err(failed("send"))
    }

    #[inline]
    fn receive(&mut self, room: &mut Room, sequence: u64) -> Result<(), String> {
        let memory = await_one(self.wait, || self.receiver.recv(), || self.receiver.try_recv())?;
        let buffer = room.buffer(sequence);
        complete(memory.len(), buffer)?;
        buffer.copy_from_slice(&memory);
        Ok(())
    }
}
