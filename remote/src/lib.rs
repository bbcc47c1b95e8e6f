//! Channels of `ipc` to other machines, where a bare TCP connection ([`ipc::TcpOptions`]) is not enough: over ZeroMQ, and as
//! RPC.
//!
//! A worker function over `impl ipc::Link` runs on a fork, over TCP and over [`zeromq`]. The example `count_words_cluster`
//! runs one function over all of them. In the guide of `ipc`, "From one machine to many" says when to use which.

#![deny(unsafe_code)]

pub mod rpc;
pub mod zeromq;
