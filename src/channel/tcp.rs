//! Channels to another machine: a TCP connection whose sides have greeted each other.

mod around;
mod connect;
mod half;
mod hello;
mod link;

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use self::around::{Around, Given};
use self::connect::{connect, leads_to_itself};
use self::half::halves;
use self::hello::Hello;
pub use self::link::{TcpLink, TcpReader, TcpWriter};
use crate::error::{Error, Result};
use crate::framed::{MessageReader, MessageWriter};
use crate::sys::Errno;

/// The shortest deadline: the kernel counts its questions to an idle peer in seconds.
const SHORTEST: Duration = Duration::from_secs(3);

/// The longest deadline: a day. A third of it passes before a question, for which the kernel takes 32 767 s at most.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a call that receives looks again before it sleeps, unless it is set otherwise.
const SPIN: Duration = Duration::from_micros(20);

/// Options of a channel to another machine over TCP: its limits, and the checks of each side on the other.
///
/// [`connect`](Self::connect) on one machine and [`greet`](Self::greet) on the other make a [`TcpLink`]: a [`TcpReader`] to
/// make a [`Receiver`](crate::Receiver) of, and a [`TcpWriter`] for a [`Sender`](crate::Sender). Each side says hello first,
/// and checks the other's before it takes anything else.
///
/// In the guide: [from one machine to many](crate::guide::from_one_machine_to_many).
///
/// # A machine that vanishes
///
/// A process that leaves is seen as on a pipe: its values arrive, and then EOF. One that is killed is seen at once too. But
/// if it had values unread, its kernel resets the connection: those of its own that had not arrived here are lost, and then
/// comes [`Error::Reset`]. A machine that loses its power or its cable says nothing. A call that waits is [`Error::System`] with `ETIMEDOUT` once the other kernel has been silent
/// for the [`deadline`](Self::deadline), or at most half as much longer. So is one that sends, though there may be room
/// for the value here, and so is each later call. Values that had arrived are received first. A process that is slow or
/// stopped is not taken for dead: its kernel answers for it.
///
/// A value that was sent may be on its way to a machine that is gone. No error tells which values arrived there: count
/// results, not values sent. A lost connection does not come back by itself.
///
/// # A peer that is not trusted
///
/// The hello has to come within the deadline, and takes 32 bytes. Memory is taken as a value arrives, up to
/// [`max_message`](Self::max_message). The bytes are neither encrypted nor authenticated: for that,
/// [`greet_over`](Self::greet_over) takes TLS.
///
/// # Examples
///
/// ```
/// use std::net::{SocketAddr, TcpListener};
/// use std::time::Duration;
///
/// use ipc::{Link, Receiver, Sender, TcpOptions};
///
/// // Runs over any link: on a fork, packed, or on another machine.
/// fn double(jobs: Receiver<u32, impl Link>, results: Sender<u32, impl Link>) -> ipc::Result<()> {
///     for job in jobs.iter() {
///         results.send(2 * job?)?;
///     }
///     results.close()
/// }
///
/// let options = TcpOptions::new()
///     .stamp(1)
///     .max_message(1 << 20)
///     .deadline(Duration::from_secs(10))
///     .spin(Duration::from_micros(50));
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let address: SocketAddr = listener.local_addr()?;
/// # let worker_options = options.clone();
/// let worker = ipc::fork((), move |()| -> ipc::Result<()> {
/// #   let options = worker_options;
///     let link = options.connect(address)?;
///     double(Receiver::new(link.reader), Sender::new(link.writer))
/// })?;
///
/// let (stream, _) = listener.accept()?;
/// let link = options.greet(stream)?;
/// let (jobs, results) = (Sender::new(link.writer), Receiver::<u32, _>::new(link.reader));
/// jobs.send(21_u32)?;
/// jobs.close()?;
/// assert_eq!(results.recv()?, Some(42));
/// assert_eq!(results.recv()?, None);
/// assert!(worker.wait()?.success());
/// # Ok::<(), ipc::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing until a connection is made with them"]
pub struct TcpOptions {
    max_message: usize,
    stamp: u64,
    deadline: Duration,
    spin: Duration,
}

impl TcpOptions {
    /// Starts with a longest value of 64 MiB, a deadline of 30 s and no stamp. See the [example](Self#examples).
    pub fn new() -> Self {
        Self { max_message: 64 << 20, stamp: 0, deadline: Duration::from_secs(30), spin: SPIN }
    }

    /// Sets the longest value that this side receives, in bytes. See the [example](Self#examples).
    ///
    /// The hello tells the peer. Its [`Sender`](crate::Sender) then refuses a longer value before it is sent
    /// ([`Error::TooLong`]).
    ///
    /// A lower limit of the [`Receiver`](crate::Receiver) holds too.
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.max_message = bytes;
        self
    }

    /// Sets a number for the kind of values that are sent here, such as a version that the two programs agreed on. See the
    /// [example](Self#examples).
    ///
    /// Two sides with different stamps refuse each other. 0 is no stamp, and a side without one is not refused.
    pub fn stamp(mut self, stamp: u64) -> Self {
        self.stamp = stamp;
        self
    }

    /// Sets the stamp to a hash of the name of a type.
    ///
    /// Both sides name the same type, such as a tuple of everything that is sent. Programs that were built from one source
    /// agree. The compiler does not promise stable names: use [`stamp`](Self::stamp) for programs that are built apart.
    ///
    /// # Examples
    ///
    /// ```
    /// type Job = (u64, String);
    /// type Answer = Option<String>;
    ///
    /// let options = ipc::TcpOptions::new().stamp_of::<(Job, Answer)>(); // the same line in both programs
    /// ```
    pub fn stamp_of<T>(self) -> Self {
        // FNV-1a.
        let hash = std::any::type_name::<T>()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        self.stamp(hash.max(1))
    }

    /// Sets how long connecting and the hello may take, and how long a machine may be silent before it counts as gone.
    ///
    /// At least 3 s, and at most a day; whole seconds count. See the [example](Self#examples).
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Lets blocking and `_timeout` calls that receive look again for this long before they sleep; 20 µs at first, and zero for
    /// not at all. See the [example](Self#examples) for the options.
    ///
    /// The rest of a value, or the next one, is often under way already, and a thread that slept is awake too late for it. A
    /// look is one system call. After four calls in a row that looked in vain, calls sleep at once, and one now and then looks
    /// again. So a receiver that is idle, or a peer that trickles, occupies no core.
    ///
    /// A stream around the connection ([`greet_over`](Self::greet_over)) is not looked at again.
    ///
    /// In the guide: [spinning](crate::guide::spinning).
    #[doc(alias = "set_spin")]
    pub fn spin(mut self, spin: Duration) -> Self {
        self.spin = spin;
        self
    }

    /// Connects to another machine and greets it. Blocks until that machine has answered, or the deadline.
    ///
    /// Takes the first of several addresses that accepts. One that does not answer uses up only its share of the time. The
    /// deadline does not end the lookup of a name: if that may take long, pass a [`SocketAddr`](std::net::SocketAddr).
    ///
    /// # Errors
    ///
    /// - [`Error::System`]: no address could be connected to (`ECONNREFUSED`, `EHOSTUNREACH`).
    /// - [`Error::TimedOut`]: the peer did not answer in time.
    /// - As [`greet`](Self::greet).
    ///
    /// # Platform
    ///
    /// [connect(2)](https://man7.org/linux/man-pages/man2/connect.2.html).
    ///
    /// # Examples
    ///
    /// See [`TcpOptions`].
    pub fn connect(&self, address: impl ToSocketAddrs) -> Result<TcpLink> {
        let mut refused = Error::InvalidInput { what: "the name has no address" };
        let addresses: Vec<_> = address.to_socket_addrs()?.collect();
        let until = self.until()?;
        for (index, address) in addresses.iter().enumerate() {
            match connect(address, until, addresses.len() - index) {
                Ok(stream) => return self.greet_until(stream, None, until),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// Greets the peer of a connection that was accepted. Blocks until the peer has said hello, or the deadline.
    ///
    /// A silent peer holds this call up until the deadline. If several may connect, greet each on its own thread. Both
    /// sides are equal: it does not matter who connected.
    ///
    /// # Errors
    ///
    /// - [`Error::Malformed`]: the peer sent something else, or has another version. Its bytes are in the error.
    /// - [`Error::WrongKind`]: it has another stamp.
    /// - [`Error::System`] with `ECONNREFUSED`: the connection leads to itself. The kernel can make one if no process
    ///   listens at a local port of its ephemeral range.
    /// - [`Error::Truncated`]: it left before it had said hello.
    /// - [`Error::TimedOut`]: it did not say hello in time.
    /// - [`Error::Reset`], [`Error::Closed`]: it went away.
    /// - [`Error::InvalidInput`]: the deadline is shorter than 3 s, or longer than a day.
    ///
    /// # Platform
    ///
    /// Sets the socket's options `TCP_NODELAY`, `SO_KEEPALIVE` with its times, `SO_RCVTIMEO` and `SO_SNDTIMEO`
    /// ([tcp(7)](https://man7.org/linux/man-pages/man7/tcp.7.html),
    /// [socket(7)](https://man7.org/linux/man-pages/man7/socket.7.html)). The stream must have no other user. A peer that
    /// does not read lets the connection fill. Before Linux 6.15, a machine that vanishes while it is full is noticed some
    /// minutes later.
    ///
    /// # Examples
    ///
    /// See [`TcpOptions`].
    pub fn greet(&self, stream: TcpStream) -> Result<TcpLink> {
        let until = self.until()?;
        stream.set_nonblocking(false)?;
        self.greet_until(stream, None, until)
    }

    /// Greets the peer over a stream around the connection, such as TLS. Otherwise the same as [`greet`](Self::greet).
    ///
    /// `stream` reads and writes `socket`: pass a clone of the socket that it has ([`TcpStream::try_clone`]). This call
    /// makes the socket non-blocking. The stream has to pass on [`WouldBlock`](io::ErrorKind::WouldBlock): its calls are
    /// repeated when the socket is ready. A handshake that is still due takes place with the hello. The link has two descriptors
    /// more, and wakes a call that receives when a send on another thread has made the stream read.
    ///
    /// `finish` tells the peer that nothing follows, as TLS does with `close_notify`. It is called when the [`TcpWriter`] is
    /// closed or dropped. A connection that ends without it is [`Error::Reset`] to a peer whose TLS looks at that.
    ///
    /// # Errors
    ///
    /// As [`greet`](Self::greet); and [`Error::System`] with the error of the stream.
    ///
    /// # Examples
    ///
    /// With rustls: `remote/examples/tls`. With a stream that adds nothing:
    ///
    /// ```
    /// use std::net::{TcpListener, TcpStream};
    ///
    /// use ipc::{Receiver, Sender, TcpOptions};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let address = listener.local_addr()?;
    /// let worker = ipc::fork((), move |()| -> ipc::Result<()> {
    ///     let jobs = Receiver::<String, _>::new(TcpOptions::new().connect(address)?.reader);
    ///     assert_eq!(jobs.recv()?.as_deref(), Some("a job"));
    ///     Ok(())
    /// })?;
    /// let (socket, _) = listener.accept()?;
    /// let stream = socket.try_clone()?; // here: `StreamOwned::new(tls, socket.try_clone()?)`
    /// let link = TcpOptions::new().greet_over(stream, socket, |_stream| Ok(()))?;
    /// let jobs = Sender::new(link.writer);
    /// jobs.send("a job".to_owned())?;
    /// jobs.close()?;
    /// assert!(worker.wait()?.success());
    /// # Ok::<(), ipc::Error>(())
    /// ```
    pub fn greet_over<S>(
        &self,
        stream: S,
        socket: TcpStream,
        finish: impl FnMut(&mut S) -> io::Result<()> + Send + 'static,
    ) -> Result<TcpLink>
    where
        S: Read + Write + Send + 'static,
    {
        let until = self.until()?;
        socket.set_nonblocking(true)?;
        self.greet_until(socket, Some(Box::new(Given { stream, finish })), until)
    }

    fn until(&self) -> Result<Instant> {
        if !(SHORTEST..=LONGEST).contains(&self.deadline) {
            return Err(Error::InvalidInput { what: "a deadline is 3 s at least, and a day at most" });
        }
        Ok(Instant::now() + self.deadline)
    }

    fn greet_until(&self, socket: TcpStream, around: Option<Box<dyn Around>>, until: Instant) -> Result<TcpLink> {
        if leads_to_itself(&socket) {
            return Err(Error::system("connect", Errno::CONNREFUSED));
        }
        let (mut incoming, mut outgoing) = halves(socket, around, self.deadline, self.spin)?;
        let ours = Hello { longest: self.max_message as u64, stamp: self.stamp };
        let theirs = ours.exchange(&mut incoming, &mut outgoing, until).inspect_err(|error| {
            if matches!(error, Error::TimedOut) {
                outgoing.give_up();
            }
        })?;
        let longest = usize::try_from(theirs.longest).unwrap_or(usize::MAX);
        Ok(TcpLink {
            reader: TcpReader { reader: MessageReader::new(incoming), longest: self.max_message },
            writer: TcpWriter { writer: MessageWriter::new(outgoing), longest },
        })
    }
}

impl Default for TcpOptions {
    /// The same as [`TcpOptions::new`].
    fn default() -> Self {
        Self::new()
    }
}
