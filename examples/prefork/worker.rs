//! A worker: one process, one thread, and as many connections as come.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use ipc::{DatagramSocket, PipeReader, PipeWriter, Watch, wait_any};
use rustix::io::Errno;
use rustix::net::SocketFlags;

use crate::Options;
use crate::connection::{Connection, Service};
use crate::messages::{Given, Order, Report, tell};
use crate::site::Site;

/// How long none is accepted after one could not be, for want of descriptors or memory.
const REST: Duration = Duration::from_millis(100);

struct Worker<'a> {
    options: &'a Options,
    control: DatagramSocket,
    reports: PipeWriter,
    /// `None`: the master is gone, and neither this nor `control` says any more.
    lifeline: Option<PipeReader>,
    /// `None`: no connection is accepted any more.
    listener: Option<TcpListener>,
    rests_until: Instant,
    /// Whether a connection is closed as soon as no request is under way.
    stopping: bool,
    connections: Vec<Connection>,
    service: Service,
}

/// The work of a worker's process, from its fork to its exit.
pub fn work(given: Given, listener: Option<TcpListener>, options: &Options, table: String) -> ipc::Result<u8> {
    debug_assert_eq!(ipc::open_ends(), 4, "a worker holds what it was given, and no other end");
    let Given { control, lifeline, reports, ready } = given;
    let site = match Site::open(&options.root) {
        Ok(site) => site,
        Err(why) => {
            tell(ready, Err(&format!("the folder {} cannot be opened: {why}", options.root.display())))?;
            return Ok(1);
        }
    };
    let report = Report { worker: std::process::id().into(), ..Report::default() };
    let mut worker = Worker {
        options,
        control,
        reports,
        lifeline: Some(lifeline),
        listener,
        rests_until: Instant::now(),
        stopping: false,
        connections: Vec::new(),
        service: Service { site, report, table, keep: true, timeout: options.timeout },
    };
    tell(ready, Ok(()))?;
    while worker.listener.is_some() || !worker.connections.is_empty() {
        worker.turn()?;
    }
    worker.report()?;
    Ok(0)
}

impl Worker<'_> {
    /// Waits until something can be done, and does it.
    fn turn(&mut self) -> ipc::Result<()> {
        let now = Instant::now();
        let mut next: Option<Instant> = self.connections.iter().map(|connection| connection.deadline).min();
        // The connections first, so that each has the same place in both lists.
        let count = self.connections.len();
        let mut on: Vec<Watch> = self.connections.iter().map(Connection::wait).collect();
        if let Some(lifeline) = &self.lifeline {
            on.extend([Watch::readable(lifeline), Watch::readable(&self.control)]);
        }
        if let Some(listener) = self.listener.as_ref().filter(|_| count < self.options.connections) {
            match self.rests_until <= now {
                true => on.push(Watch::readable(listener)),
                false => next = Some(next.map_or(self.rests_until, |next| next.min(self.rests_until))),
            }
        }
        wait_any(&mut on, next.map(|next| next.saturating_duration_since(now)))?;
        let ready: Vec<bool> = on.iter().map(|on| !on.ready().is_empty()).collect();
        let is_ready = |index| ready.get(index).is_some_and(|ready| *ready);

        let unused = self.service.report.requests == 0;
        self.attend(&ready[..count]);
        if unused && self.service.report.requests > 0 {
            self.report()?; // that it works is news
        }
        if is_ready(count + 2) {
            self.accept();
        }
        if is_ready(count + 1) {
            self.obey()?;
        }
        if is_ready(count) {
            self.lifeline = None;
            self.drain();
        }
        Ok(())
    }

    /// Goes on with the connections that can, and ends those whose time is up.
    fn attend(&mut self, ready: &[bool]) {
        let now = Instant::now();
        for (index, ready) in ready.iter().enumerate().rev() {
            let connection = &mut self.connections[index];
            let stays = (!ready || connection.advance(&mut self.service))
                && (connection.deadline > now || connection.expire(&mut self.service));
            if !stays || self.stopping && connection.is_idle() {
                // The last one takes its place, and has had its turn.
                self.connections.swap_remove(index);
            }
        }
    }

    /// Accepts one, if no other worker was quicker: all wait for the same socket, which is made not to wait.
    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        let accepted = rustix::net::accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC);
        match accepted.map(|stream| Connection::new(stream, self.options.timeout)) {
            Ok(Ok(connection)) => {
                self.service.report.connections += 1;
                self.connections.push(connection);
            }
            // It was gone before it was looked at.
            Ok(Err(_)) => {}
            Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => {
                self.rests_until = Instant::now() + REST;
            }
            // Nothing to accept any more, or an error of the connection itself (accept.2).
            Err(_) => {}
        }
    }

    fn obey(&mut self) -> ipc::Result<()> {
        while let Some(order) = Order::next(&self.control)? {
            match order {
                Order::Report(table) => {
                    self.service.table = table;
                    self.report()?;
                }
                Order::Drain => self.drain(),
                Order::Stop => {
                    self.drain();
                    self.stopping = true;
                    // Once more for those whose request has arrived and was not looked at.
                    let service = &mut self.service;
                    self.connections.retain_mut(|connection| connection.advance(service) && !connection.is_idle());
                }
            }
        }
        Ok(())
    }

    fn drain(&mut self) {
        self.listener = None;
        self.service.keep = false;
    }

    fn report(&mut self) -> ipc::Result<()> {
        self.service.report.open = self.connections.len() as u64;
        self.service.report.send(&self.reports)
    }
}
