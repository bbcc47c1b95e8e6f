//! Links beside what they stand on, without them: the same bytes through a `TcpStream` with a length in front, libzmq and tarpc.
//!
//! ```text
//! cargo bench -p ipc-remote
//! ```
//!
//! Prints the table of `remote/README.md`. Pairs take turns, in rounds; a row is the round with the median ratio. `LINKS_ONLY=Push` runs
//! the rows with that in them, and `LINKS_ONLY='| 64 |'` those of one size.

mod rpc;
mod tcp;
mod zeromq;

use std::net::TcpListener;
use std::time::{Duration, Instant};

const SIZES: [(usize, usize); 3] = [(64, 200_000), (4096, 30_000), (65_536, 4_000)];
const ROUNDS: usize = 11;

/// Sends messages of one size from one process to another, with an answer at the end. Returns the messages a second.
type Run = fn(usize, usize) -> f64;

fn main() {
    let is_test = std::env::args().any(|arg| arg == "--test");
    let only = std::env::var("LINKS_ONLY").unwrap_or_default();
    let pairs: [(&str, Run, Run); 8] = [
        (
            "`TcpOptions`, one way, each value flushed, beside a `TcpStream` with a `BufReader`",
            tcp::flushed,
            tcp::ahead,
        ),
        (
            "`TcpOptions`, one way, each value flushed, beside a `TcpStream` that reads each length",
            tcp::flushed,
            tcp::bare,
        ),
        ("`TcpOptions`, one way, beside one in a `BufWriter` and a `BufReader`", tcp::ours, tcp::buffered),
        ("`TcpOptions`, there and back, beside a `TcpStream`", tcp::ours_back, tcp::bare_back),
        ("`Push` and `Pull`, beside libzmq", zeromq::ours, zeromq::bare),
        ("a call through `transport`, beside tarpc over TCP", rpc::ours, rpc::bare),
        ("the same over a `StreamSocket`, beside tarpc over TCP", rpc::socket, rpc::bare),
        ("the same over a `StreamSocket`, beside tarpc over tokio's `UnixStream`", rpc::socket, rpc::unix),
    ];
    println!("| link | bytes | messages/s | bare | ratio |\n|---|---|---|---|---|");
    for (name, ours, bare) in pairs {
        for (size, count) in SIZES.into_iter().filter(|(size, _)| format!("{name} | {size} |").contains(&only)) {
            let is_slow = name.contains("back") || name.contains("tarpc");
            let count = if is_test {
                10
            } else if is_slow {
                count.min(20_000) / 4
            } else if name.contains("BufWriter") {
                10 * count // or a pass is over before the connection has its speed
            } else {
                count
            };
            let mut rounds: Vec<_> = (0..if is_test { 1 } else { ROUNDS })
                .map(|round| match round % 2 {
                    0 => {
                        let ours = ours(size, count);
                        (ours, bare(size, count))
                    }
                    _ => {
                        let bare = bare(size, count);
                        (ours(size, count), bare)
                    }
                })
                .collect();
            rounds.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
            let (ours, bare) = rounds[rounds.len() / 2];
            println!("| {name} | {size} | {ours:.0} | {bare:.0} | {:.2} |", ours / bare);
        }
    }
}

fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// The time from the first message to the answer, which says that all have arrived.
fn timed(count: usize, run: impl FnOnce()) -> f64 {
    let started = Instant::now();
    run();
    rate(count, started.elapsed())
}

fn listen() -> (TcpListener, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    (listener, address)
}
