//! The channel.

use std::collections::VecDeque;

use onecopy::channel::{Message, Path, Stats};
use onecopy::{Channel, Listener, WaitStrategy};

use crate::endpoint::{Endpoint, Guest, complete, failed};
use crate::order::{Contender, Order, Wait};
use crate::payload::{Pass, Room, Source, kept_messages};

pub(crate) struct OnecopyChannel {
    channel: Channel,
    into: bool,
    /// The message that was received last.
    latest: Option<Message>,
    /// What was received stays for a while in a cold run, so that its memory is as cold as the sender's.
    kept: VecDeque<Message>,
    keep: usize,
}

impl OnecopyChannel {
    pub(crate) fn host(order: &Order) -> Result<(Self, Guest), String> {
        let listener = Listener::bind(&order.tag).map_err(failed("bind"))?;
        let guest = Guest::start(order)?;
        let channel = listener.accept().map_err(failed("accept"))?;
        Ok((Self::over(channel, order), guest))
    }

    pub(crate) fn guest(order: &Order) -> Result<Self, String> {
        Ok(Self::over(Channel::connect(&order.tag).map_err(failed("connect"))?, order))
    }

    fn over(mut channel: Channel, order: &Order) -> Self {
        channel.set_wait_strategy(match order.wait {
            Wait::Spin => WaitStrategy::Spin,
            Wait::Block => WaitStrategy::Block,
        });
        let keep = if order.cold { kept_messages(order.size_bytes) } else { 0 };
        let into = order.contender == Contender::ChannelInto;
        Self { channel, into, latest: None, kept: VecDeque::new(), keep }
    }
}

impl Endpoint for OnecopyChannel {
    #[inline]
    fn send(&mut self, source: &Source, sequence: u64) -> Result<(), String> {
        self.channel.send(source.bytes(sequence)).map_err(failed("send"))
    }

    #[inline]
    fn receive(&mut self, room: &mut Room, sequence: u64) -> Result<(), String> {
        if self.into {
            let buffer = room.buffer(sequence);
            let bytes = self.channel.recv_into(buffer).map_err(failed("recv_into"))?;
            return complete(bytes.ok_or("the channel has ended")?, buffer);
        }
        self.latest = self.channel.recv().map_err(failed("recv"))?;
        if self.latest.is_some() { Ok(()) } else { Err("the channel has ended".into()) }
    }

    #[inline]
    fn check(&mut self, room: &Room, sequence: u64, pass: Pass) -> Result<(), String> {
        let check = room.check(sequence, pass);
        let Some(message) = self.latest.take() else { return check.verify(room.bytes(sequence)) };
        check.verify(&message)?;
        if self.keep > 0 {
            self.kept.push_back(message);
            if self.kept.len() > self.keep {
                self.kept.pop_front();
            }
        }
        Ok(())
    }

    fn remark(&self) -> Option<String> {
        let stats = self.channel.stats();
        let way = Path::ALL.into_iter().max_by_key(|path| stats.received(*path).messages).map(Path::name)?;
        Some(match fallback(&stats) {
            Some(reason) => format!("{way}, since {reason}"),
            None => way.into(),
        })
    }
}

fn fallback(stats: &Stats) -> Option<&str> {
    stats.fallbacks().last().map(|last| &last.reason[..])
}
