//! Channels over ZeroMQ: one to many, with queues, heartbeats, and connections that come back by themselves.
//!
//! # A send means that it was accepted here
//!
//! `send` puts a value into this process's queue, and returns. ZeroMQ carries it over when there is a connection. If the
//! value is lost later, no error says so:
//!
//! | event | fate of the values |
//! |---|---|
//! | a worker is killed | values in its queue, and under way to it, are lost; other values go to other workers |
//! | a broker or a master restarts | values in this process's queue wait, and go when it is back; values in its queue are lost |
//! | the queue is full, or there is no peer | `send` blocks; `try_send` is [`Error::WouldBlock`] and gives the value back |
//! | a sender closes while its peer takes nothing | `close` waits for [`linger`](Options::linger); values that are left then are lost |
//! | a value is over the limit that was set here | [`Error::TooLong`], and nothing was sent |
//! | a value, or an answer, is over the peer's limit | the peer drops the connection and the value, and the connection comes back |
//! | a worker's answers are not received | 64 MiB of them wait; after these, its [`RouterReader`] is an error for good |
//! | … of many workers | [`max_waiting`](Options::max_waiting) of them wait, after which the fullest readers are errors for good |
//!
//! So a program counts results, and sends a job again if its result does not come. [`Router`] says which worker is gone.
//!
//! # EOF
//!
//! ZeroMQ has none. A sender that is closed or dropped here says goodbye, and a receiver takes the goodbye for EOF. A
//! process that is killed says nothing: see [`Pull`] and [`Router`].
//!
//! # A peer that is not trusted
//!
//! Any process that reaches a port without keys may send values, and goodbyes too. A stranger's goodbye counts as a
//! worker's, and a [`Pull`] is at EOF too early. Nothing in a message can tell the two apart. A stranger who takes the name of
//! a router's worker takes its place too: it gets the orders, and its answers count. So EOF proves nothing where strangers may
//! connect: count results, or set keys ([`Options::curve_server`]) and keep the server's public key among the
//! workers.
//!
//! A deadline holds, whatever strangers send.
//!
//! # Forks
//!
//! A socket has threads of libzmq's, and a process with threads does not fork: [`ipc::fork`] is [`Error::MultiThreaded`]
//! as long as one is open. Fork before the first, or start workers with [`ipc::Command`] or a [`ipc::ForkServer`] that is
//! older.
//!
//! # Format
//!
//! A message of one part is one value, as `docs/channel.md` has it. A message of two parts is a word to the other side. The
//! first part is empty. The second is `bye`, or `hi`, which says that the sender is there. Between a dealer and a router,
//! eight bytes follow, which the dealer chose at random. So a goodbye to a worker that has left is none to the next one of
//! its name.

mod dealer;
mod engine;
mod hub;
mod one_way;
mod router;
mod turns;

use std::fmt;
use std::time::Duration;

use ipc::{Error, Received, Result, Until};
use zmq::{Context, Socket, SocketType};

pub use self::dealer::{DealerReader, DealerWriter};
use self::engine::{Arrived, Engine};
pub use self::one_way::{Pull, Push};
pub use self::router::{Router, RouterReader, RouterWriter};

const BYE: &[u8] = b"bye";
const HI: &[u8] = b"hi";

/// How long closing waits for room for a goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// The shortest pause between two questions to a worker whether it is there.
const QUESTION: Duration = Duration::from_millis(100);

/// Options of ZeroMQ sockets.
///
/// # Examples
///
/// ```
/// use ipc::{Receiver, Sender};
/// use ipc_remote::zeromq::Options;
///
/// let pull = Options::new().pull_bind("tcp://127.0.0.1:*")?;
/// let address = pull.address()?;
/// let results = Receiver::<u32, _>::new(pull);
/// let worker = Sender::new(Options::new().push_connect(&address)?);
/// worker.send(7_u32)?;
/// worker.close()?;
/// assert_eq!(results.recv()?, Some(7));
/// assert_eq!(results.recv()?, None);
/// # Ok::<(), ipc::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing until a socket is made with them"]
pub struct Options {
    max_message: usize,
    max_waiting: usize,
    queue: i32,
    deadline: Duration,
    linger: Duration,
    keys: Keys,
}

/// The encryption of a connection.
#[derive(Clone)]
enum Keys {
    None,
    Server { secret: [u8; 32] },
    Client { server: [u8; 32], public: [u8; 32], secret: [u8; 32] },
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Keys::None) { "none" } else { "CURVE" })
    }
}

impl Options {
    /// Starts with values of at most 64 MiB, and 256 MiB of waiting answers. The queue is 1000, the deadline 30 s, and the
    /// linger 1 s. See the [example](Self#examples).
    pub fn new() -> Self {
        Self {
            max_message: 64 << 20,
            max_waiting: 256 << 20,
            queue: 1000,
            deadline: Duration::from_secs(30),
            linger: Duration::from_secs(1),
            keys: Keys::None,
        }
    }

    /// Sets the longest value that is sent, in bytes, and the longest part that is received (`ZMQ_MAXMSGSIZE`). See [`new`](Self::new).
    ///
    /// libzmq gathers the parts of one message, however many, before this crate sees any. So a hostile peer can take memory
    /// without a limit. Let none connect: use [`curve_server`](Self::curve_server), and a network that keeps others out.
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.max_message = bytes;
        self
    }

    /// Sets how many bytes of answers may wait in a [`Router`], of all its workers together, until they are received. See
    /// [`new`](Self::new).
    ///
    /// If there is no room, the workers with the most waiting lose their last answers: see [`RouterReader`]. So a stranger who
    /// connects often gets no more of it than its share, and takes nothing from a worker with less waiting. One answer alone
    /// may be longer.
    ///
    /// libzmq has a [`queue`](Self::queue) for each peer in front of it, which this does not count.
    pub fn max_waiting(mut self, bytes: usize) -> Self {
        self.max_waiting = bytes;
        self
    }

    /// Sets how many values wait for one peer at each side (`ZMQ_SNDHWM`, `ZMQ_RCVHWM`), at least one. See [`new`](Self::new).
    ///
    /// A peer whose values nobody receives takes up to `values` times [`max_message`](Self::max_message) of memory
    /// here.
    pub fn queue(mut self, values: u32) -> Self {
        self.queue = i32::try_from(values).unwrap_or(i32::MAX).max(1);
        self
    }

    /// Sets how long a peer's machine may be silent before the peer is disconnected (`ZMQ_HEARTBEAT_TIMEOUT`). With
    /// [`Duration::ZERO`], for as long as the kernel takes to notice. The example `count_words_cluster` sets it.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets how long closing waits for the queue (`ZMQ_LINGER`). Values that are left then are lost. See [`new`](Self::new).
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Encrypts with CURVE, as the side that binds. Any peer that knows its public key may connect. See [`curve_keys`].
    pub fn curve_server(mut self, secret: [u8; 32]) -> Self {
        self.keys = Keys::Server { secret };
        self
    }

    /// Encrypts with CURVE, as a side that connects to the one that has the key `server`. [`curve_keys`] makes the keys.
    pub fn curve_client(mut self, server: [u8; 32], public: [u8; 32], secret: [u8; 32]) -> Self {
        self.keys = Keys::Client { server, public, secret };
        self
    }

    /// Makes the sending side of jobs or results, at an address of this machine, such as `tcp://10.0.0.1:7000`.
    /// [`pull_bind`](Self::pull_bind) has an example.
    ///
    /// # Errors
    ///
    /// [`Error::System`]: the error of libzmq.
    pub fn push_bind(&self, address: &str) -> Result<Push> {
        Ok(Push::new(self.bound(zmq::PUSH, address)?))
    }

    /// Makes the sending side, connected to another one's address, perhaps before that is there. See the [example](Self#examples).
    ///
    /// # Errors
    ///
    /// As [`push_bind`](Self::push_bind).
    pub fn push_connect(&self, address: &str) -> Result<Push> {
        Ok(Push::new(self.connected(zmq::PUSH, address, None)?))
    }

    /// Makes the receiving side at an address of this machine. See the [example](Self#examples).
    ///
    /// # Errors
    ///
    /// As [`push_bind`](Self::push_bind).
    pub fn pull_bind(&self, address: &str) -> Result<Pull> {
        Ok(Pull::new(self.bound(zmq::PULL, address)?))
    }

    /// Makes the receiving side, connected to another one's address. [`push_connect`](Self::push_connect) has an example.
    ///
    /// # Errors
    ///
    /// As [`push_bind`](Self::push_bind).
    pub fn pull_connect(&self, address: &str) -> Result<Pull> {
        Ok(Pull::new(self.connected(zmq::PULL, address, None)?))
    }

    /// Makes the master's side of orders and answers, at an address of this machine: see the example `count_words_cluster`.
    ///
    /// # Errors
    ///
    /// As [`push_bind`](Self::push_bind).
    pub fn router(&self, address: &str) -> Result<Router> {
        Router::new(self.bound(zmq::ROUTER, address)?, (self.deadline / 4).max(QUESTION), self.max_waiting)
    }

    /// Makes a worker's side of orders and answers, connected to a router's address. `name` is its own among the router's
    /// workers; a second worker of that name takes its place. The example `count_words_cluster` has one in each worker.
    ///
    /// # Errors
    ///
    /// As [`push_bind`](Self::push_bind).
    pub fn dealer(&self, address: &str, name: &str) -> Result<(DealerReader, DealerWriter)> {
        dealer::new(self.connected(zmq::DEALER, address, Some(name))?)
    }

    fn bound(&self, kind: SocketType, address: &str) -> Result<Engine> {
        let socket = self.socket(kind).map_err(failed("zmq_setsockopt"))?;
        socket.bind(address).map_err(failed("zmq_bind"))?;
        Ok(Engine::new(socket, self.max_message))
    }

    fn connected(&self, kind: SocketType, address: &str, name: Option<&str>) -> Result<Engine> {
        let socket = self.socket(kind).map_err(failed("zmq_setsockopt"))?;
        if let Some(name) = name {
            socket.set_identity(name.as_bytes()).map_err(failed("zmq_setsockopt"))?;
        }
        socket.connect(address).map_err(failed("zmq_connect"))?;
        Ok(Engine::new(socket, self.max_message))
    }

    fn socket(&self, kind: SocketType) -> zmq::Result<Socket> {
        let millis = |time: Duration| i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
        // The context lasts as long as its only socket.
        let socket = Context::new().socket(kind)?;
        socket.set_maxmsgsize(i64::try_from(self.max_message).unwrap_or(i64::MAX))?;
        socket.set_sndhwm(self.queue)?;
        socket.set_rcvhwm(self.queue)?;
        socket.set_linger(millis(self.linger))?;
        socket.set_heartbeat_ivl(millis(self.deadline / 3))?;
        socket.set_heartbeat_timeout(millis(self.deadline))?;
        if kind == zmq::PUSH {
            // No value waits for a peer that is not there: it could go to one that is.
            socket.set_immediate(true)?;
        }
        if kind == zmq::ROUTER {
            socket.set_router_mandatory(true)?;
            socket.set_router_handover(true)?;
        }
        match &self.keys {
            Keys::None => {}
            Keys::Server { secret } => {
                socket.set_curve_server(true)?;
                socket.set_curve_secretkey(secret)?;
            }
            Keys::Client { server, public, secret } => {
                socket.set_curve_serverkey(server)?;
                socket.set_curve_publickey(public)?;
                socket.set_curve_secretkey(secret)?;
            }
        }
        Ok(socket)
    }
}

impl Default for Options {
    /// The same as [`Options::new`].
    fn default() -> Self {
        Self::new()
    }
}

/// Makes a key pair for CURVE: the public and the secret one.
///
/// # Errors
///
/// [`Error::System`] with `ENOTSUP`: this libzmq has no CURVE.
pub fn curve_keys() -> Result<([u8; 32], [u8; 32])> {
    let pair = zmq::CurveKeyPair::new().map_err(failed("zmq_curve_keypair"))?;
    Ok((pair.public_key, pair.secret_key))
}

fn failed(call: &'static str) -> impl Fn(zmq::Error) -> Error {
    move |error| match error {
        // The peer that is named is not there.
        zmq::Error::EHOSTUNREACH | zmq::Error::ETERM => Error::Closed,
        error => Error::System { call, source: std::io::Error::from_raw_os_error(error.to_raw()) },
    }
}

/// The answer of a link's call.
fn sent(sent: bool, until: Until) -> Result<()> {
    if sent { Ok(()) } else { Err(until.error()) }
}

/// Hands on a message that came, if the receiver takes one of its length. No link of ZeroMQ carries ends.
fn taken<R>(message: &[u8], max: usize, take: impl FnOnce(&[u8], Received) -> R) -> Result<Option<R>> {
    if message.len() > max {
        return Err(Error::TooLong { len: message.len(), max });
    }
    Ok(Some(take(message, Received::default())))
}
