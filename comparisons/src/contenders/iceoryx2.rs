//! iceoryx2: publish and subscribe of slices in shared memory, a service for each direction; to wait asleep, an event service
//! beside each.
//!
//! # Safety
//!
//! Payload is lent uninitialised, and [`Source::write`] writes every byte of it before it is sent.
#![expect(unsafe_code, reason = "declares payload that was written in place to be initialised")]

use std::time::{Duration, Instant};

use iceoryx2::node::Node;
use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;
use iceoryx2::sample::Sample;
use iceoryx2::sample_mut::SampleMut;
use iceoryx2::service::port_factory::{event, publish_subscribe};

use crate::endpoint::{Endpoint, Guest, complete, failed, failed_debug};
use crate::order::{Contender, Order, Wait};
use crate::payload::{Pass, Room, Source};

/// How long both sides may take to find each other.
const MEETING_TIME: Duration = Duration::from_secs(10);
/// The subscriber's buffer: this many messages, or as many as have this many bytes, but no less than the least.
const MOST_BUFFERED: usize = 256;
const BUFFERED_BYTES: usize = 1 << 20;
const LEAST_BUFFERED: usize = 4;

/// One direction: its messages, and its event when it is waited for asleep.
struct Way {
    messages: publish_subscribe::PortFactory<ipc::Service, [u8], ()>,
    wake: Option<event::PortFactory<ipc::Service>>,
}

/// Fields are dropped in this order: messages before ports, these before the services, these before the node.
pub(crate) struct Iceoryx {
    /// The message that was made last, and the one that was received last, where both are in place.
    made: Option<SampleMut<ipc::Service, [u8], ()>>,
    latest: Option<Sample<ipc::Service, [u8], ()>>,
    publisher: Publisher<ipc::Service, [u8], ()>,
    subscriber: Subscriber<ipc::Service, [u8], ()>,
    notifier: Option<Notifier<ipc::Service>>,
    listener: Option<Listener<ipc::Service>>,
    ways: [Way; 2],
    _node: Node<ipc::Service>,
    in_place: bool,
}

impl Iceoryx {
    pub(crate) fn host(order: &Order) -> Result<(Self, Guest), String> {
        let endpoint = Self::open(order, "back", "there")?;
        let guest = Guest::start(order)?;
        endpoint.meet()?;
        Ok((endpoint, guest))
    }

    pub(crate) fn guest(order: &Order) -> Result<Self, String> {
        let endpoint = Self::open(order, "there", "back")?;
        endpoint.meet()?;
        Ok(endpoint)
    }

    fn open(order: &Order, incoming: &str, outgoing: &str) -> Result<Self, String> {
        set_log_level(LogLevel::Error);
        let node = NodeBuilder::new()
            .config(&config(order)?)
            .signal_handling_mode(SignalHandlingMode::Disabled)
            .create::<ipc::Service>()
            .map_err(failed_debug("node"))?;
        let incoming = Way::open(&node, order, incoming)?;
        let outgoing = Way::open(&node, order, outgoing)?;
        let subscriber = incoming.messages.subscriber_builder().create().map_err(failed_debug("subscriber"))?;
        let listener = incoming.wake.as_ref().map(|wake| wake.listener_builder().create()).transpose();
        let notifier = outgoing.wake.as_ref().map(|wake| wake.notifier_builder().create()).transpose();
        let publisher = outgoing
            .messages
            .publisher_builder()
            .initial_max_slice_len(order.size_bytes.max(8))
            .max_loaned_samples(1)
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
            .create()
            .map_err(failed_debug("publisher"))?;
        Ok(Self {
            made: None,
            latest: None,
            publisher,
            subscriber,
            notifier: notifier.map_err(failed_debug("notifier"))?,
            listener: listener.map_err(failed_debug("listener"))?,
            ways: [incoming, outgoing],
            _node: node,
            in_place: order.contender == Contender::IceoryxLoan,
        })
    }

    /// Waits until the other side has all its ports, and has attached to this one's: what is published before reaches nobody,
    /// or is dropped when the buffer is full. An empty greeting in each direction shows it.
    fn meet(&self) -> Result<(), String> {
        await_that(|| Ok(self.ways.iter().all(Way::is_complete)))?;
        self.subscriber.has_samples().map_err(failed_debug("has_samples"))?;
        let greeting = self.publisher.loan_slice(0).map_err(failed("loan"))?;
        greeting.send().map_err(failed("send"))?;
        await_that(|| self.subscriber.receive().map(|greeting| greeting.is_some()).map_err(failed("receive")))
    }
}

fn await_that(holds: impl Fn() -> Result<bool, String>) -> Result<(), String> {
    let start = Instant::now();
    while !holds()? {
        if start.elapsed() > MEETING_TIME {
            return Err(format!("iceoryx2: the other side did not come within {MEETING_TIME:?}"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

impl Way {
    fn open(node: &Node<ipc::Service>, order: &Order, direction: &str) -> Result<Self, String> {
        let name = ServiceName::new(&format!("{}/{direction}", order.tag)).map_err(failed_debug("service name"))?;
        let messages = node
            .service_builder(&name)
            .publish_subscribe::<[u8]>()
            .payload_alignment(Alignment::ALIGN_64)
            .enable_safe_overflow(false)
            .history_size(0)
            .max_publishers(1)
            .max_subscribers(1)
            .subscriber_max_borrowed_samples(1)
            .subscriber_max_buffer_size((BUFFERED_BYTES / order.size_bytes).clamp(LEAST_BUFFERED, MOST_BUFFERED))
            .open_or_create()
            .map_err(failed_debug("service"))?;
        let wake = match order.wait {
            Wait::Spin => None,
            Wait::Block => Some(node.service_builder(&name).event().open_or_create().map_err(failed_debug("event"))?),
        };
        Ok(Self { messages, wake })
    }

    fn is_complete(&self) -> bool {
        let (messages, wake) = (self.messages.dynamic_config(), self.wake.as_ref().map(PortFactory::dynamic_config));
        messages.number_of_publishers() == 1
            && messages.number_of_subscribers() == 1
            && wake.is_none_or(|wake| wake.number_of_listeners() == 1 && wake.number_of_notifiers() == 1)
    }
}

/// All names of a run lie in its own directory, or begin with its tag: so they can be counted and removed.
fn config(order: &Order) -> Result<Config, String> {
    let mut config = Config::default();
    config.global.prefix = FileName::new(format!("{}_", order.tag).as_bytes()).map_err(failed_debug("prefix"))?;
    let root = Path::new(order.directory.as_bytes()).map_err(failed_debug("root path"))?;
    config.global.set_root_path(&root);
    Ok(config)
}

impl Endpoint for Iceoryx {
    #[inline]
    fn make(&mut self, source: &mut Source, sequence: u64, pass: Pass) -> Result<(), String> {
        if !self.in_place {
            source.make(sequence, pass);
            return Ok(());
        }
        let mut loan = self.publisher.loan_slice_uninit(source.size_bytes()).map_err(failed("loan"))?;
        source.write(sequence, pass, loan.payload_mut());
        // SAFETY: `write` has written every byte.
        self.made = Some(unsafe { loan.assume_init() });
        Ok(())
    }

    #[inline]
    fn send(&mut self, source: &Source, sequence: u64) -> Result<(), String> {
        let sample = match self.made.take() {
            Some(made) => made,
            None => {
                let loan = self.publisher.loan_slice_uninit(source.size_bytes()).map_err(failed("loan"))?;
                loan.write_from_slice(source.bytes(sequence))
            }
        };
        if sample.send().map_err(failed("send"))? != 1 {
            return Err("iceoryx2: the message reached nobody".into());
        }
        match &self.notifier {
            Some(notifier) => notifier.notify().map(drop).map_err(failed("notify")),
            None => Ok(()),
        }
    }

    #[inline]
    fn receive(&mut self, room: &mut Room, sequence: u64) -> Result<(), String> {
        let sample = loop {
            if let Some(sample) = self.subscriber.receive().map_err(failed("receive"))? {
                break sample;
            }
            match &self.listener {
                Some(listener) => drop(listener.blocking_wait(|_| ()).map_err(failed("wait"))?),
                None => std::hint::spin_loop(),
            }
        };
        if self.in_place {
            self.latest = Some(sample);
            return Ok(());
        }
        let buffer = room.buffer(sequence);
        complete(sample.payload().len(), buffer)?;
        // The memory goes back to the publisher before the message is looked at, as early as can be.
        buffer.copy_from_slice(sample.payload());
        Ok(())
    }

    #[inline]
    fn check(&mut self, room: &Room, sequence: u64, pass: Pass) -> Result<(), String> {
        let check = room.check(sequence, pass);
        match self.latest.take() {
            Some(sample) => check.verify(sample.payload()),
            None => check.verify(room.bytes(sequence)),
        }
    }
}
