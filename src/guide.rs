#![doc = chapters!()]
#![doc = include_str!("../docs/guide.md")]

// The pages link to each other by file, which leads nowhere on docs.rs. A definition that comes first wins, so each page here
// begins with the names of the modules.
macro_rules! chapters {
    () => {
        "
[streams-and-messages]: crate::guide::streams_and_messages
[pipes]: crate::guide::pipes
[four-ends]: crate::guide::four_ends
[closing]: crate::guide::closing
[small-writes]: crate::guide::small_writes
[messages]: crate::guide::messages
[many-small-messages]: crate::guide::many_small_messages
[channels]: crate::guide::channels
[deadlines]: crate::guide::deadlines
[spliced]: crate::guide::deadlines#spliced-pipes-and-fifos
[waiting]: crate::guide::waiting
[children]: crate::guide::children
[programs]: crate::guide::programs
[threads-and-fork]: crate::guide::threads_and_fork
[threads]: crate::guide::threads_and_fork
[fork-server]: crate::guide::fork_server
[signals]: crate::guide::signals
[signals-to-wait-for]: crate::guide::signals#signals-to-wait-for
[moving-bytes]: crate::guide::moving_bytes
[rings]: crate::guide::rings
[spinning]: crate::guide::spinning
[travelling]: crate::guide::travelling
[into-another-program]: crate::guide::travelling#into-another-program
[lifeline]: crate::guide::travelling#lifeline
[preforking-server]: crate::guide::preforking_server
[tokio]: crate::guide::tokio
[from-one-machine-to-many]: crate::guide::from_one_machine_to_many
[testing]: crate::guide::testing
[when-it-hangs]: crate::guide::when_it_hangs
[from-elsewhere]: crate::guide::from_elsewhere
[given-ends]: crate::guide::given_ends
[packed]: crate::guide::packed
[ring]: crate::guide::ring
[channel]: crate::guide::channel_format
[platforms]: crate::guide::platforms
[picture]: crate#four-ends-two-of-them-closed
[who-holds]: crate::ProcessMap

"
    };
}
use chapters;

// An item of a feature links to a chapter of the guide if the feature is off.
macro_rules! chapter {
    ($name:ident, $file:literal, $items:literal) => {
        #[doc = chapters!()]
        #[cfg_attr(feature = "channel", doc = "[`TypedForkServer`]: crate::TypedForkServer")]
        #[cfg_attr(not(feature = "channel"), doc = "[`TypedForkServer`]: crate::guide::channels")]
        #[cfg_attr(feature = "testing", doc = "[`fork_in_test`]: crate::fork_in_test\n")]
        #[cfg_attr(not(feature = "testing"), doc = "[`fork_in_test`]: crate::guide::testing\n")]
        #[doc = include_str!(concat!("../docs/", $file))]
        #[doc = concat!("\n\n**See also:** ", $items, ".")]
        pub mod $name {}
    };
}

chapter!(
    streams_and_messages,
    "guide/streams-and-messages.md",
    "[`pipe()`](crate::pipe()), [`datagram_pair()`](crate::datagram_pair()), [`stream_pair()`](crate::stream_pair())"
);
chapter!(
    pipes,
    "guide/pipes.md",
    "[`PipeReader`](crate::PipeReader), [`PipeWriter`](crate::PipeWriter), [`PIPE_BUF`](crate::PIPE_BUF)"
);
chapter!(four_ends, "guide/four-ends.md", "[`fork()`](crate::fork()), [`Ends`](crate::Ends), [`Fork`](crate::Fork)");
chapter!(closing, "guide/closing.md", "[`open_ends`](crate::open_ends), [`PipeWriter`](crate::PipeWriter)");
chapter!(small_writes, "guide/small-writes.md", "[`BufferedWriter`](crate::BufferedWriter)");
chapter!(
    messages,
    "guide/messages.md",
    "[`DatagramSocket`](crate::DatagramSocket), [`datagram_pair_with`](crate::datagram_pair_with)"
);
chapter!(
    many_small_messages,
    "guide/many-small-messages.md",
    "[`PackedSocket`](crate::PackedSocket), [`MessageWriter`](crate::MessageWriter), [`MessageReader`](crate::MessageReader)"
);
#[cfg(feature = "channel")] // which its examples need
chapter!(
    channels,
    "guide/channels.md",
    "[`channel()`](crate::channel()), [`duplex()`](crate::duplex()), [`Link`](crate::Link), [`Fd`](crate::Fd)"
);
#[cfg(not(feature = "channel"))]
/// Values of Rust between processes: needs the feature `channel`, and so does this chapter.
pub mod channels {}
chapter!(
    deadlines,
    "guide/deadlines.md",
    "[`Deadline`](crate::Deadline), [`PipeReader::read_timeout`](crate::PipeReader::read_timeout)"
);
chapter!(
    waiting,
    "guide/waiting.md",
    "[`wait_any`](crate::wait_any), [`wait_ready`](crate::wait_ready), [`Watch`](crate::Watch), [`Ready`](crate::Ready)"
);
chapter!(children, "guide/children.md", "[`Child`](crate::Child), [`Outcome`](crate::Outcome), [`Fork`](crate::Fork)");
chapter!(
    programs,
    "guide/programs.md",
    "[`Command`](crate::Command), [`Child`](crate::Child), [`KillOnDrop`](crate::KillOnDrop), [`Error::StatusTaken`](crate::Error::StatusTaken)"
);
chapter!(
    threads_and_fork,
    "guide/threads-and-fork.md",
    "[`fork()`](crate::fork()), [`ForkServer`](crate::ForkServer), [`fork_unchecked`](crate::fork_unchecked), [`Error::MultiThreaded`](crate::Error::MultiThreaded)"
);
#[cfg(any(feature = "channel", not(doctest)))] // which its examples need
chapter!(
    fork_server,
    "guide/fork-server.md",
    "[`ForkServer`](crate::ForkServer), [`TypedForkServer`], [`Fork::serve`](crate::Fork::serve), [`Child`](crate::Child)"
);
chapter!(
    signals,
    "guide/signals.md",
    "[`Signals`](crate::Signals), [`Fork::reset_signals`](crate::Fork::reset_signals), [`Error::Closed`](crate::Error::Closed)"
);
chapter!(
    travelling,
    "guide/travelling.md",
    "[`Command`](crate::Command), [`claim`](crate::claim), [`Received`](crate::Received)"
);
chapter!(
    moving_bytes,
    "guide/moving-bytes.md",
    "[`copy`](crate::copy()), [`copy_up_to`](crate::copy_up_to), [`PipeReader::tee`](crate::PipeReader::tee)"
);
chapter!(
    rings,
    "guide/rings.md",
    "[`RingWriter`](crate::RingWriter), [`RingReader`](crate::RingReader), [`Blob`](crate::Blob)"
);
chapter!(spinning, "guide/spinning.md", "[`PipeReader::set_spin`](crate::PipeReader::set_spin)");
chapter!(
    preforking_server,
    "guide/preforking-server.md",
    "[`fork()`](crate::fork()), [`wait_any`](crate::wait_any), [`Command::give`](crate::Command::give)"
);
#[cfg(all(feature = "tokio", any(feature = "channel", not(doctest))))] // which its examples need
chapter!(tokio, "guide/tokio.md", "[`ipc::tokio`](crate::tokio)");
#[cfg(not(feature = "tokio"))]
/// For tokio: needs the feature `tokio`, and so does this chapter.
pub mod tokio {}
#[cfg(feature = "channel")] // which its examples need
chapter!(
    from_one_machine_to_many,
    "guide/from-one-machine-to-many.md",
    "[`TcpOptions`](crate::TcpOptions), [`Link`](crate::Link), [`Receiver`](crate::Receiver), [`Sender`](crate::Sender)"
);
#[cfg(not(feature = "channel"))]
/// Over TCP and further: needs the feature `channel`, and so does this chapter.
pub mod from_one_machine_to_many {}
#[cfg(any(feature = "testing", not(doctest)))] // which its examples need
chapter!(
    testing,
    "guide/testing.md",
    "[`fork_in_test`], [`fork()`](crate::fork()), [`open_ends`](crate::open_ends), [`Error::MultiThreaded`](crate::Error::MultiThreaded)"
);
chapter!(
    when_it_hangs,
    "guide/when-it-hangs.md",
    "[`holders`](crate::holders), [`Holders`](crate::Holders), [`ProcessMap`](crate::ProcessMap)"
);
chapter!(
    from_elsewhere,
    "from-elsewhere.md",
    "[`pipe()`](crate::pipe()), [`fork()`](crate::fork()), [`Command`](crate::Command)"
);
chapter!(given_ends, "given-ends.md", "[`Command::give`](crate::Command::give), [`claim`](crate::claim)");
chapter!(
    packed,
    "packed.md",
    "[`PackedSocket`](crate::PackedSocket), [`MessageWriter`](crate::MessageWriter), [`MessageReader`](crate::MessageReader)"
);
chapter!(ring, "ring.md", "[`RingWriter`](crate::RingWriter), [`RingReader`](crate::RingReader)");
chapter!(channel_format, "channel.md", "[typed channels](crate::guide::channels)");
chapter!(platforms, "platforms.md", "[the crate](crate)");
