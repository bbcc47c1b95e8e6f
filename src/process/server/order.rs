//! The messages between a caller and its fork server.
//!
//! An order is one message on the control socket: a [`Request`], and with it one end of a pair of its own, the *line*. All
//! that follows goes over the line, so that orders of several threads never meet:
//!
//! 1. the server, or a process that the server did not make, answers: an [`Answer`];
//! 2. the caller sends the worker its message and its ends; the worker waits for them before it runs anything;
//! 3. the server reports how a worker that is its own child left.
//!
//! A caller that gives up closes the line or shuts it down, and a worker that has not begun leaves.

/// An order: how many ends and bytes the worker will be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// At most 253.
    pub(super) ends: usize,
    /// In bytes; at most the longest message of the line.
    pub(super) message: usize,
}

impl Request {
    pub(super) const LEN: usize = 5;

    /// The message that stands for an empty one, which would look like EOF.
    pub(super) const NO_MESSAGE: &[u8] = &[0];

    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let [a, b, c, d] = (self.message as u32).to_ne_bytes();
        [self.ends as u8, a, b, c, d]
    }

    pub(super) fn parse([ends, a, b, c, d]: [u8; Self::LEN]) -> Self {
        Self { ends: ends.into(), message: u32::from_ne_bytes([a, b, c, d]) as usize }
    }
}

/// A message of a server or a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The worker is a child of the caller's. Its pidfd comes with it.
    Yours(i32),
    /// The worker is a child of the server's, which says later how it left. Its pidfd comes with it.
    Mine(i32),
    /// There is no worker: the call that failed, and its errno.
    Refused(Step, i32),
    /// The worker has left, with that wait status ([wait(2)]).
    ///
    /// [wait(2)]: https://man7.org/linux/man-pages/man2/wait.2.html
    Left(i32),
    /// The worker leaves without having run. Its pidfd comes with it, if it has one.
    Unused(i32),
}

/// The call that has failed in the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There is no place for the worker's ends.
    Receiving,
    Forking,
    Holding,
    /// There is no memory for the worker's message.
    Reserving,
}

impl Step {
    const ALL: [Self; 4] = [Self::Receiving, Self::Forking, Self::Holding, Self::Reserving];

    /// The call, by the name of its manual page.
    pub(super) fn call(self) -> &'static str {
        match self {
            Self::Receiving => "recvmsg",
            Self::Forking => "fork",
            Self::Holding => "pidfd_open",
            Self::Reserving => "malloc",
        }
    }
}

impl Answer {
    pub(super) const LEN: usize = 12;

    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let [kind, first, second] = match self {
            Self::Yours(pid) => [1, pid, 0],
            Self::Mine(pid) => [2, pid, 0],
            Self::Refused(step, errno) => [3, step as i32, errno],
            Self::Left(status) => [4, status, 0],
            Self::Unused(pid) => [5, pid, 0],
        };
        let mut bytes = [0; Self::LEN];
        for (place, word) in bytes.chunks_exact_mut(4).zip([kind, first, second]) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// `None`: the bytes are not of this format.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().ok()?;
        let word = |i: usize| i32::from_ne_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        let (first, second) = (word(4), word(8));
        match word(0) {
            // Signals to such a number would go to a whole group of processes.
            1 | 2 | 5 if first <= 0 => None,
            1 => Some(Self::Yours(first)),
            2 => Some(Self::Mine(first)),
            3 => Some(Self::Refused(*Step::ALL.get(usize::try_from(first).ok()?)?, second)),
            4 => Some(Self::Left(first)),
            5 => Some(Self::Unused(first)),
            _ => None,
        }
    }
}

/// An order that is parsed is written as it was. An answer, which names a process, is too.
#[cfg(fuzzing)]
pub(crate) fn fuzz_answer(bytes: &[u8]) {
    if let Ok(request) = bytes.try_into() {
        assert_eq!(Request::parse(request).to_bytes(), request);
    }
    let Some(answer) = Answer::parse(bytes) else { return };
    assert_eq!(Answer::parse(&answer.to_bytes()), Some(answer));
    if let Answer::Yours(pid) | Answer::Mine(pid) | Answer::Unused(pid) = answer {
        assert!(pid > 0, "{pid} is no process");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_arrives_as_it_was_sent() {
        let refused = Step::ALL.map(|step| Answer::Refused(step, 11));
        let others = [Answer::Yours(7), Answer::Mine(i32::MAX), Answer::Left(9), Answer::Unused(1)];
        for answer in others.into_iter().chain(refused) {
            assert_eq!(Answer::parse(&answer.to_bytes()), Some(answer));
        }
    }

    #[test]
    fn a_request_arrives_as_it_was_sent() {
        for request in [Request { ends: 0, message: 0 }, Request { ends: 253, message: 4160 << 10 }] {
            assert_eq!(Request::parse(request.to_bytes()), request);
        }
    }

    #[test]
    fn other_bytes_are_no_answer() {
        for bytes in [&[][..], &[0; 11], &[0; 12], &[0xff; 12], &[3, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0], &[1; 13]] {
            assert_eq!(Answer::parse(bytes), None);
        }
        for pid in [0, -1, i32::MIN] {
            for answer in [Answer::Yours(pid), Answer::Mine(pid), Answer::Unused(pid)] {
                assert_eq!(Answer::parse(&answer.to_bytes()), None, "{answer:?}");
            }
        }
    }
}
