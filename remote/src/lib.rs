//! Channels of `ipc` between machines.
