//! The server's own process, and the first steps of a worker, before it runs the entry.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::process::Pid;

use super::order::{Answer, Request, Step};
use crate::end::End;
use crate::process::fork::leave;
use crate::process::fork_options::Fork;
use crate::process::outcome::Outcome;
use crate::socket::{DatagramSocket, Received};
use crate::sys::fork::{Permit, Side};
use crate::sys::poll::{POLLIN, POLLRDHUP, pollfd};
use crate::sys::process::Parent;
use crate::sys::sibling::{Sibling, Thread};
use crate::sys::signal::{self, Mask};
use crate::sys::{self, Errno, ancillary};

/// How long the server sleeps if a child of its own has left, and the process that traces it has not let go of it.
const NAP: Duration = Duration::from_millis(10);

/// The server. Every signal is blocked in it, so that no signal to a whole process group ends it, such as a terminal's
/// Ctrl-C. Its workers have the dispositions of the start.
pub(super) struct Server<'a> {
    control: DatagramSocket,
    options: Fork,
    /// Their parent, if workers are to die with it.
    parent: Option<Parent>,
    /// Whether that is this process by now.
    is_parent: bool,
    /// The signals that are blocked in a worker.
    mask: &'a Mask,
    /// This thread, if workers can be children of the caller's.
    thread: Option<Thread>,
    /// The workers that are not.
    children: Vec<OwnChild>,
}

/// A worker that the server has to wait for, and the line of its caller.
struct OwnChild {
    pidfd: OwnedFd,
    line: End,
}

/// An order that has arrived.
struct Order {
    line: End,
    request: Request,
    /// Room for the worker's message, once it is reserved.
    message: Vec<u8>,
}

/// The process that this is after a fork.
enum Made {
    /// The server, and whether the worker is its own child.
    Server(Pid, OwnedFd, Whose),
    Worker,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Callers,
    Servers,
}

impl<'a> Server<'a> {
    pub(super) fn new(control: DatagramSocket, options: Fork, parent: Option<Parent>, mask: &'a Mask) -> Self {
        // A kernel that is made small does not say all of it, and another libc is not known.
        let thread = Thread::current().ok();
        Self { control, options, parent, is_parent: false, mask, thread, children: Vec::new() }
    }

    /// Carries out orders until the caller is gone. Returns the status to leave with.
    pub(super) fn run<R: Outcome>(mut self, entry: &impl Fn(Vec<u8>, Received) -> R) -> u8 {
        loop {
            let Some(mut order) = self.next_order() else { return 0 };
            if order.is_off() {
                continue;
            }
            match order.reserve().and_then(|()| self.fork()) {
                Ok(Made::Server(pid, pidfd, whose)) => {
                    order.answer_with(pid, &pidfd, whose);
                    if whose == Whose::Servers {
                        self.children.push(OwnChild { pidfd, line: order.line });
                    }
                }
                Ok(Made::Worker) => {
                    let Self { control, options, parent, mask, children, .. } = self;
                    // A worker has neither the server's socket nor the lines of other orders.
                    drop((control, children));
                    work(order, parent, options, mask, entry)
                }
                Err((step, errno)) => order.answer(Answer::Refused(step, errno.raw_os_error()), &[]),
            }
        }
    }

    /// Blocks until there is an order. `None`: the caller is gone.
    fn next_order(&mut self) -> Option<Order> {
        loop {
            if !self.children.is_empty() && !self.await_children() {
                continue;
            }
            let mut request = [0; Request::LEN];
            match ancillary::receive(self.control.as_fd(), &mut request, true) {
                // An order whose line could not be installed, because this process has no descriptors left: the caller sees
                // the line end.
                Ok(Some((_, mut beside))) if !beside.lost => {
                    if let Some(line) = beside.fds.pop() {
                        let request = Request::parse(request);
                        return Some(Order { line: End::received(line), request, message: Vec::new() });
                    }
                }
                Ok(Some(_)) | Err(Errno::INTR | Errno::MSGSIZE) => {}
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// Blocks until there is an order, or a child of the server's own has left. Reports the children that have. Returns
    /// whether there is an order.
    fn await_children(&mut self) -> bool {
        let watch = |fd, events| pollfd { fd, events, revents: 0 };
        let mut fds = vec![watch(self.control.as_fd().as_raw_fd(), POLLIN | POLLRDHUP)];
        fds.extend(self.children.iter().map(|child| watch(child.pidfd.as_raw_fd(), POLLIN)));
        if sys::retry(|| sys::poll::poll(&mut fds, None)).is_err() {
            // There is no memory for that many. Orders go on.
            return true;
        }
        let before = self.children.len();
        let mut has_left = fds.iter().skip(1).map(|fd| fd.revents != 0);
        self.children.retain(|child| !(has_left.next() == Some(true) && child.is_reported()));
        let is_order = fds.first().is_some_and(|fd| fd.revents != 0);
        if !is_order && self.children.len() == before {
            let _ = sys::poll::poll(&mut fds[..1], Some(NAP));
        }
        is_order
    }

    /// Makes the worker: a child of the caller's, or of this process if that is refused.
    fn fork(&mut self) -> Result<Made, (Step, Errno)> {
        if let Some(thread) = &self.thread {
            match alone().and_then(|permit| thread.fork(permit)) {
                Ok(Sibling::New) => return Ok(Made::Worker),
                Ok(Sibling::Maker(pid, pidfd)) => return Ok(Made::Server(pid, pidfd, Whose::Callers)),
                Err(errno @ (Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE)) => {
                    return Err((Step::Forking, errno));
                }
                // A sandbox, an emulator.
                Err(_) => self.thread = None,
            }
        }
        // Its workers die with this process then.
        if self.parent.is_some() && !self.is_parent {
            self.parent = Some(Parent::new().map_err(|errno| (Step::Holding, errno))?);
            self.is_parent = true;
        }
        match alone().and_then(Permit::fork).map_err(|errno| (Step::Forking, errno))? {
            Side::Child => Ok(Made::Worker),
            Side::Parent(pid) => match sys::process::pidfd(pid) {
                Ok(pidfd) => Ok(Made::Server(pid, pidfd, Whose::Servers)),
                Err(errno) => {
                    sys::process::kill_and_reap(pid);
                    Err((Step::Holding, errno))
                }
            },
        }
    }
}

/// The server has one thread.
fn alone() -> Result<Permit, Errno> {
    Permit::alone()?.map_err(|_| Errno::INVAL)
}

impl Order {
    /// Returns whether the caller has given up.
    fn is_off(&self) -> bool {
        sys::poll::look(self.line.as_fd(), POLLRDHUP).is_ok_and(|events| events != 0)
    }

    /// Checks that there is a place for all that the worker will be sent. Nothing else in this process takes it meanwhile,
    /// and the worker has a copy of it.
    fn reserve(&mut self) -> Result<(), (Step, Errno)> {
        let places = (0..self.request.ends).map(|_| sys::descriptor::duplicate(self.line.as_fd()));
        drop(places.collect::<Result<Vec<_>, _>>().map_err(|errno| (Step::Receiving, errno))?);
        let len = self.request.message.max(Request::NO_MESSAGE.len());
        self.message.try_reserve_exact(len).map_err(|_| (Step::Reserving, Errno::NOMEM))
    }

    /// Reports the worker. One that cannot be reported is ended.
    fn answer_with(&self, pid: Pid, pidfd: &OwnedFd, whose: Whose) {
        let pid = pid.as_raw_nonzero().get();
        let answer = if whose == Whose::Callers { Answer::Yours(pid) } else { Answer::Mine(pid) };
        let bytes = answer.to_bytes();
        let send = |fds: &[_]| sys::retry(|| ancillary::send(self.line.as_fd(), &bytes, fds, false));
        // Without it if too many descriptors are under way: the caller opens one by the number.
        match send(&[pidfd.as_raw_fd()]).or_else(|_| send(&[])) {
            // The caller has given up, and so does the worker.
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => {}
            Err(_) => drop(sys::process::send_signal(pidfd.as_fd(), sys::process::SIGKILL)),
        }
    }

    fn answer(&self, answer: Answer, fds: &[i32]) {
        say(&self.line, answer, fds);
    }
}

impl OwnChild {
    /// Reports it if it has left, and returns whether it did.
    fn is_reported(&self) -> bool {
        match sys::process::peek(self.pidfd.as_fd()) {
            Ok(None) => false,
            Ok(Some(status)) => {
                // Before it is gone: if this process is killed in between, the status can be had by one way or the other.
                say(&self.line, Answer::Left(status), &[]);
                let _ = sys::process::reap(self.pidfd.as_fd());
                true
            }
            // Cannot be: it is this process's child. A caller that waits sees the line end.
            Err(_) => true,
        }
    }
}

/// Sends an answer to a caller, which may be gone.
fn say(line: &impl AsFd, answer: Answer, fds: &[i32]) {
    let _ = sys::retry(|| ancillary::send(line.as_fd(), &answer.to_bytes(), fds, false));
}

/// The worker, from its first moment to its end.
fn work<R: Outcome>(
    Order { line, request, mut message }: Order,
    parent: Option<Parent>,
    options: Fork,
    mask: &Mask,
    entry: &impl Fn(Vec<u8>, Received) -> R,
) -> ! {
    if parent.is_some_and(|parent| parent.die_with().is_err()) {
        sys::process::give_up("fork server: die_with_parent was refused\n");
    }
    // The room is there.
    message.resize(request.message.max(Request::NO_MESSAGE.len()), 0);
    let received = match sys::retry(|| ancillary::receive(line.as_fd(), &mut message, true)) {
        Ok(Some((_, beside))) => match Received::new(request.message, beside) {
            Ok(received) => received,
            Err(_) => sys::process::give_up("fork server: ends of a worker were lost\n"),
        },
        // The caller has given up, or is gone: this process has not begun, and leaves.
        Ok(None) | Err(_) => {
            let pid = sys::process::own_pid();
            let pidfd = sys::process::pidfd(pid).ok();
            let fds: Vec<_> = pidfd.iter().map(AsRawFd::as_raw_fd).collect();
            say(&line, Answer::Unused(pid.as_raw_nonzero().get()), &fds);
            sys::process::exit(0)
        }
    };
    message.truncate(request.message);
    drop(line);
    if options.reset_signals {
        signal::reset_all();
        Mask::set_empty();
    } else {
        mask.restore();
    }
    leave(|| entry(message, received).status())
}
