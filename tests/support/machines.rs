//! Another machine: a process with a network of its own, joined to this one's by a cable.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

use ipc::{Child, PipeReader, PipeWriter, fork, pipe};

use super::{own_network, poll_until};

/// Another machine, and the listener that it connects to. It is told that all is over when `until` is dropped.
pub struct Machine {
    pub child: Child,
    pub listener: TcpListener,
    pub until: PipeWriter,
}

impl Machine {
    /// Where it finds this machine.
    pub const MASTER: &str = "10.9.8.1:7000";

    /// Does `work` on another machine. This process has a network of its own from then on.
    #[track_caller]
    pub fn start(work: impl FnOnce(PipeReader)) -> Self {
        assert!(own_network());
        let (ready, tell_ready) = pipe().expect("a pipe");
        let (go, tell_go) = pipe().expect("a pipe");
        let child = fork((tell_ready, go), |(ready, mut go)| {
            assert!(own_network());
            drop(ready);
            go.read_exact(&mut [0]).expect("the cable is there");
            ip("address add 10.9.8.2/24 dev there");
            ip("link set there up");
            work(go);
        })
        .expect("a test has one thread");
        assert_eq!(std::io::read_to_string(ready).expect("it has its network"), "");
        ip(&format!("link add here type veth peer name there netns {}", child.id()));
        ip("address add 10.9.8.1/24 dev here");
        ip("link set here up");
        let listener = TcpListener::bind(Self::MASTER).expect("an address of this machine");
        (&tell_go).write_all(&[0]).expect("it waits");
        Self { child, listener, until: tell_go }
    }

    /// Cuts the cable here: nothing can be sent any more. No program is told.
    #[track_caller]
    pub fn cut(&self) {
        ip("link set here down");
    }

    /// Cuts the cable there: whatever is sent is lost on its way. The other machine is to [take it down](Self::take_down) when
    /// it reads a byte.
    #[track_caller]
    pub fn cut_there(&self) {
        (&self.until).write_all(&[0]).expect("it is there");
        poll_until("the cable is cut", || ip("link show here").contains("NO-CARRIER"));
    }

    /// On the other machine: takes down its end of the cable.
    #[track_caller]
    pub fn take_down() {
        ip("link set there down");
    }
}

#[track_caller]
fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("ASCII")
}
