//! The keeper: no program outlives the supervisor, however that ends.
//!
//! A death signal reaches the programs themselves, and not what they have started. So a process is forked at the beginning that
//! knows every group that runs. It waits for EOF of a pipe whose writer only the supervisor has. EOF arrives when the supervisor
//! is gone, by `kill -9` too, and then the groups are killed. A process that has left its group, as a daemon does, is not found.

use std::collections::BTreeSet;

use ipc::{Child, DatagramSocket};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, setsid};

pub struct Keeper {
    orders: DatagramSocket,
    child: Child,
}

impl Keeper {
    pub fn start() -> Result<Self, ipc::Error> {
        let pair = ipc::datagram_pair()?;
        let child = ipc::fork(pair.child, keep)?;
        Ok(Self { orders: pair.parent, child })
    }

    /// From now on the group dies with the supervisor.
    pub fn keep(&self, group: u32) -> ipc::Result<()> {
        self.orders.send(format!("+{group}").as_bytes())
    }

    /// Nobody is left in the group.
    pub fn forget(&self, group: u32) -> ipc::Result<()> {
        self.orders.send(format!("-{group}").as_bytes())
    }

    /// Lets it go, and the groups that are still kept with it.
    pub fn close(self) -> ipc::Result<()> {
        self.orders.close()?;
        self.child.wait().map(drop)
    }
}

/// In the keeper: returns when the supervisor is gone.
fn keep(orders: DatagramSocket) -> Result<(), Box<dyn std::error::Error>> {
    // A Ctrl-C, which goes to all of a terminal's group, is not for it.
    setsid()?;
    let mut groups = BTreeSet::new();
    while let Some(order) = orders.recv_vec()? {
        let order = String::from_utf8(order)?;
        match order.split_at_checked(1) {
            Some(("+", group)) => groups.insert(group.parse::<i32>()?),
            Some(("-", group)) => groups.remove(&group.parse()?),
            _ => return Err(format!("not an order: {order}").into()),
        };
    }
    for group in groups {
        // A group that is gone already needs no killing.
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
    Ok(())
}
