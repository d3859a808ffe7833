//! Many channels in one process, which waits for all of them in one call.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use onecopy::channel::{Arming, ChannelReceiver, Message};
use onecopy::{Channel, Deadline, Error, Result};
use rustix::event::epoll;
use rustix::io::Errno;

/// The other channels, on which nothing comes, and what waits for all.
pub(super) struct Crowd {
    epoll: OwnedFd,
    others: Vec<Channel>,
}

impl Crowd {
    /// A wait for `receiver` and for all of `others`, which are armed from now on.
    pub(super) fn new(receiver: &ChannelReceiver, mut others: Vec<Channel>) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|errno| failed("epoll_create1", errno))?;
        let add = |number: usize, fd: &dyn std::os::fd::AsFd| {
            epoll::add(&epoll, fd.as_fd(), epoll::EventData::new_u64(number as u64), epoll::EventFlags::IN)
                .map_err(|errno| failed("epoll_ctl", errno))
        };
        add(0, receiver)?;
        for (number, channel) in (1..).zip(&mut others) {
            add(number, channel)?;
            let _armed = channel.arm()?;
        }
        Ok(Self { epoll, others })
    }

    /// The next message of `receiver`, as a loop over all channels finds it.
    pub(super) fn receive(&mut self, receiver: &mut ChannelReceiver) -> Result<Option<Message>> {
        loop {
            match receiver.recv_by(Deadline::Now) {
                Err(Error::WouldBlock { .. }) if receiver.arm()? == Arming::Armed => self.wait()?,
                Err(Error::WouldBlock { .. }) => {}
                received => return received,
            }
        }
    }

    fn wait(&mut self) -> Result<()> {
        let mut events = [const { MaybeUninit::uninit() }; 16];
        let ready = match epoll::wait(&self.epoll, &mut events, None) {
            Ok((ready, _)) => ready,
            Err(Errno::INTR) => return Ok(()),
            Err(errno) => return Err(failed("epoll_wait", errno)),
        };
        for event in ready.iter() {
            // What has nothing to say but that it ends.
            let other = (event.data.u64() as usize).checked_sub(1).and_then(|index| self.others.get_mut(index));
            if let Some(other) = other {
                let _armed = other.arm()?;
            }
        }
        Ok(())
    }
}

fn failed(call: &'static str, errno: Errno) -> Error {
    Error::Os { call, object: "all channels".into(), source: errno.into(), remedy: None }
}
