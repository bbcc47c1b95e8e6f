//! `iceoryx2`: publishing and subscribing through shared memory, polled.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use ::iceoryx2::node::Node;
use ::iceoryx2::port::{publisher::Publisher, subscriber::Subscriber};
use ::iceoryx2::prelude::{BackpressureStrategy, NodeBuilder, ServiceName, SignalHandlingMode, ipc};
use ::iceoryx2::service::port_factory::publish_subscribe::PortFactory;

use crate::channel::{Receiver, Sender};

use super::{Made, other};

pub const NOTE: &str = "Publish and subscribe on slices of bytes, with one publisher and one subscriber. There is no overflow: \
                        the publisher retries until there is room, so nothing is lost. Queues have 256 samples, or 16 for 64 \
                        KiB. The payload is written into a loaned sample, and the subscriber polls, as its own benchmark does. \
                        Waiting with its events is not measured. Here each message is copied, as with all shared memory; a \
                        program that reads in place saves that copy.";

type Service = ipc::Service;

/// A channel that both sides open after the fork: its ports belong to the process that makes them.
#[derive(Clone)]
pub struct Topic {
    name: String,
    /// Of the longest message.
    size: usize,
}

impl Topic {
    /// A new one that nobody else uses.
    pub fn new(size: usize) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        Self { name: format!("ipc-peers/{}/{}", std::process::id(), NUMBER.fetch_add(1, Relaxed)), size }
    }

    pub fn node() -> io::Result<Node<Service>> {
        // Its handlers would keep Ctrl-C from this program.
        NodeBuilder::new().signal_handling_mode(SignalHandlingMode::Disabled).create().map_err(other)
    }

    pub fn open(&self, node: &Node<Service>) -> io::Result<PortFactory<Service, [u8], ()>> {
        let queue = if self.size > 4096 { 16 } else { 256 };
        let name = ServiceName::new(&self.name).map_err(other)?;
        let service = node.service_builder(&name).publish_subscribe::<[u8]>();
        let service = service.max_publishers(1).max_subscribers(1).history_size(0);
        let service = service.subscriber_max_buffer_size(queue).enable_safe_overflow(false);
        service.open_or_create().map_err(other)
    }

    pub fn publisher(&self, service: &PortFactory<Service, [u8], ()>) -> io::Result<Publisher<Service, [u8], ()>> {
        let publisher = service.publisher_builder().initial_max_slice_len(self.size);
        publisher.backpressure_strategy(BackpressureStrategy::RetryUntilDelivered).create().map_err(other)
    }
}

/// A port and what it stands on, in the order in which they must go.
struct Open<Port> {
    port: Port,
    _service: PortFactory<Service, [u8], ()>,
    _node: Node<Service>,
}

pub struct Publishing {
    topic: Topic,
    open: Option<Open<Publisher<Service, [u8], ()>>>,
}

pub struct Subscribing {
    topic: Topic,
    open: Option<Open<Subscriber<Service, [u8], ()>>>,
}

pub fn channel(size: usize) -> Made<Publishing, Subscribing> {
    let topic = Topic::new(size);
    Ok((Publishing { topic: topic.clone(), open: None }, Subscribing { topic, open: None }))
}

impl Sender for Publishing {
    fn open(&mut self) -> io::Result<()> {
        let node = Topic::node()?;
        let service = self.topic.open(&node)?;
        self.open = Some(Open { port: self.topic.publisher(&service)?, _service: service, _node: node });
        Ok(())
    }

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let publisher = &self.open.as_ref().ok_or(io::ErrorKind::NotConnected)?.port;
        let sample = publisher.loan_slice_uninit(message.len()).map_err(other)?;
        sample.write_from_slice(message).send().map(drop).map_err(other)
    }
}

impl Receiver for Subscribing {
    fn open(&mut self) -> io::Result<()> {
        let node = Topic::node()?;
        let service = self.topic.open(&node)?;
        let port = service.subscriber_builder().create().map_err(other)?;
        self.open = Some(Open { port, _service: service, _node: node });
        Ok(())
    }

    fn receive(&mut self, buf: &mut [u8], _: u64, mut each: impl FnMut(&[u8])) -> io::Result<u64> {
        let subscriber = &self.open.as_ref().ok_or(io::ErrorKind::NotConnected)?.port;
        loop {
            if let Some(sample) = subscriber.receive().map_err(other)? {
                let message = buf.get_mut(..sample.payload().len()).ok_or(io::ErrorKind::InvalidData)?;
                message.copy_from_slice(sample.payload());
                each(message);
                return Ok(1);
            }
            std::hint::spin_loop();
        }
    }
}
