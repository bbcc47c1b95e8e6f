//! Machines, made of this one: network namespaces that are joined by cables, or processes on loopback.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::time::Duration;

use ipc::{Child, Command, PipeReader, PipeWriter, Watch};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Set in the process that has a network of its own already.
const ENTERED: &str = "COUNT_WORDS_CLUSTER_ENTERED";

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Place {
    Namespaces,
    Loopback,
}

/// Goes to the place of the machines. For namespaces, the program begins anew in a network of its own, which disappears
/// with it.
pub fn enter(asked: Option<Place>) -> Result<Place> {
    if std::env::var_os(ENTERED).is_some() {
        run("ip", &["link", "set", "lo", "up"])?;
        return Ok(Place::Namespaces);
    }
    let may = || run("unshare", &["--net", "ip", "link", "set", "lo", "up"]);
    match asked {
        Some(Place::Loopback) => return Ok(Place::Loopback),
        Some(Place::Namespaces) => may()?,
        None if may().is_err() => return Ok(Place::Loopback),
        None => {}
    }
    let program = std::env::current_exe()?;
    let mut begin = std::process::Command::new("unshare");
    begin.args(["--net", "--"]).arg(program).args(std::env::args_os().skip(1)).env(ENTERED, "1");
    Err(begin.exec().into())
}

/// In a machine: waits until its network is there.
pub fn wait_for_network() -> Result<()> {
    let ready: PipeWriter = ipc::claim("ready")?;
    let mut go: PipeReader = ipc::claim("go")?;
    drop(ready);
    go.read_exact(&mut [0])?;
    Ok(())
}

pub struct Machine {
    pub name: String,
    child: Child,
    cable: Option<String>,
}

impl Machine {
    /// Starts a machine, which then connects to the port.
    pub fn start(place: Place, number: usize, port: u16, link: &str) -> Result<Self> {
        let program = std::env::current_exe()?;
        let master = match place {
            Place::Namespaces => format!("10.77.{number}.1:{port}"),
            Place::Loopback => format!("127.0.0.1:{port}"),
        };
        let command = match place {
            Place::Namespaces => Command::new("unshare").args(["--net", "--"]).arg(program),
            Place::Loopback => Command::new(program),
        };
        let (mut is_ready, ready) = ipc::pipe()?;
        let (wait, go) = ipc::pipe()?;
        let name = number.to_string();
        let child = command
            .args(["--link", link, "--worker", &master, &name])
            .give("ready", ready)
            .give("go", wait)
            .die_with_parent()
            .spawn()?;
        is_ready.read_to_end(&mut Vec::new())?;
        let cable = match place {
            Place::Namespaces => Some(connect(number, child.id())?),
            Place::Loopback => None,
        };
        go.write_atomic(&[0])?;
        Ok(Self { name, child, cable })
    }

    /// Accepts its connection, within the time.
    pub fn accept(&self, listener: &TcpListener, within: Duration) -> Result<TcpStream> {
        let mut on = [Watch::readable(listener), Watch::readable(&self.child)];
        ipc::wait_any(&mut on, Some(within))?;
        match on.map(|watch| watch.ready().is_readable()) {
            [true, _] => Ok(listener.accept()?.0),
            [false, true] => Err(format!("machine {} has left before it connected", self.name).into()),
            [false, false] => Err(format!("machine {} does not connect", self.name).into()),
        }
    }

    /// Its process dies in the middle of what it does.
    pub fn kill(&self) -> Result<()> {
        Ok(self.child.kill()?)
    }

    /// Its cable is cut: nothing comes from it any more, not even that it is gone.
    pub fn cut(&self) -> Result<()> {
        let cable = self.cable.as_deref().ok_or("it has no cable")?;
        run("ip", &["link", "set", cable, "down"])
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have left
        let _ = self.child.wait();
    }
}

/// Joins the network of that process to this one's, by a cable with two ends.
fn connect(number: usize, pid: u32) -> Result<String> {
    let cable = format!("machine{number}");
    let pid = pid.to_string();
    run("ip", &["link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &pid])?;
    run("ip", &["address", "add", &format!("10.77.{number}.1/24"), "dev", &cable])?;
    run("ip", &["link", "set", &cable, "up"])?;
    let there = ["--target", &pid, "--net", "ip"];
    run("nsenter", &[&there[..], &["address", "add", &format!("10.77.{number}.2/24"), "dev", "eth0"]].concat())?;
    run("nsenter", &[&there[..], &["link", "set", "eth0", "up"]].concat())?;
    Ok(cable)
}

fn run(program: &str, args: &[&str]) -> Result<()> {
    let output = Command::new(program).args(args).output()?;
    match output.status.success() {
        true => Ok(()),
        false => {
            Err(format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()).into())
        }
    }
}
