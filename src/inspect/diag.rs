//! The connections of unix sockets, which the kernel tells over netlink ([sock_diag(7)]).
//!
//! [sock_diag(7)]: https://man7.org/linux/man-pages/man7/sock_diag.7.html

use std::collections::HashMap;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};

use crate::sys::descriptor::off_standard;
use crate::sys::{Errno, Result, retry};

// <linux/netlink.h>, <linux/sock_diag.h>, <linux/unix_diag.h>
const HEAD: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 0x1;
const DUMP: u16 = 0x300;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SHOW_PEER: u32 = 4;
const PEER: u16 = 2;
const AF_UNIX: u8 = 1;

/// The inode of the socket at the other side. `None`: there is none (any more).
pub(super) fn peer(inode: u32) -> Result<Option<u32>> {
    let mut peers = HashMap::new();
    ask(inode, REQUEST, |answer| peers.extend(parse_socket(answer)))?;
    Ok(peers.get(&inode).copied().flatten())
}

/// Every unix socket of this network namespace, and its peer.
pub(super) fn peers() -> Result<HashMap<u32, Option<u32>>> {
    let mut peers = HashMap::new();
    ask(0, REQUEST | DUMP, |answer| peers.extend(parse_socket(answer)))?;
    Ok(peers)
}

fn ask(inode: u32, flags: u16, mut each: impl FnMut(&[u8])) -> Result<()> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    let socket = off_standard(socket)?; // or another thread's `println!` asks the kernel something
    retry(|| send(&socket, &request(inode, flags), SendFlags::empty()))?;
    // The kernel answers at once, in messages of at most 32 KiB.
    let mut buf = vec![0; 64 << 10];
    loop {
        let (len, _) = retry(|| recv(&socket, &mut buf[..], RecvFlags::empty()))?;
        for (kind, body) in messages(&buf[..len]) {
            match kind {
                DONE => return Ok(()),
                ERROR => return refused(body),
                SOCK_DIAG_BY_FAMILY => each(body),
                _ => {}
            }
        }
        if flags & DUMP == 0 {
            return Ok(());
        }
    }
}

fn request(inode: u32, flags: u16) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD + 24);
    bytes.extend_from_slice(&(HEAD as u32 + 24).to_ne_bytes());
    bytes.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]); // sequence number, port
    bytes.extend_from_slice(&[AF_UNIX, 0, 0, 0]); // family, protocol, padding
    bytes.extend_from_slice(&u32::MAX.to_ne_bytes()); // in whatever state
    bytes.extend_from_slice(&inode.to_ne_bytes());
    bytes.extend_from_slice(&SHOW_PEER.to_ne_bytes());
    bytes.extend_from_slice(&[0xff; 8]); // no cookie
    bytes
}

pub(crate) fn refused(body: &[u8]) -> Result<()> {
    match body.first_chunk::<4>().map(|code| i32::from_ne_bytes(*code)) {
        Some(0) => Ok(()),
        // Other numbers are no errno.
        Some(code @ -4095..=-1) => Err(Errno::from_raw_os_error(-code)),
        _ => Err(Errno::PROTO),
    }
}

/// The messages in the received bytes, each with its type. One that is cut short is left out.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = u32::from_ne_bytes(*bytes.first_chunk::<4>()?) as usize;
        let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk::<2>()?);
        let body = bytes.get(HEAD..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// The inode of a socket and of its peer.
pub(crate) fn parse_socket(body: &[u8]) -> Option<(u32, Option<u32>)> {
    let inode = u32::from_ne_bytes(*body.get(4..)?.first_chunk::<4>()?);
    let mut attributes = body.get(16..)?;
    let mut peer = None;
    while let Some(head) = attributes.first_chunk::<4>() {
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]);
        let Some(value) = attributes.get(4..len) else { break };
        if kind == PEER {
            // 0: it was closed.
            peer = value.first_chunk::<4>().map(|inode| u32::from_ne_bytes(*inode)).filter(|inode| *inode != 0);
        }
        attributes = attributes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Some((inode, peer))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn inode(fd: impl AsFd) -> u32 {
        rustix::fs::fstat(fd).unwrap().st_ino as u32
    }

    #[test]
    fn both_sides_of_a_pair_know_each_other() {
        let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
        let (a_inode, b_inode) = (inode(&a), inode(&b));
        assert_eq!(peer(a_inode), Ok(Some(b_inode)));
        assert_eq!(peers().unwrap()[&b_inode], Some(a_inode));
        drop(b);
        assert_eq!(peer(a_inode), Ok(None));
        drop(a);
        assert_eq!(peer(a_inode), Err(Errno::NOENT));
    }

    #[test]
    fn what_is_no_errno_is_an_error_all_the_same() {
        let answer = |code: i32| refused(&code.to_ne_bytes());
        assert_eq!((answer(0), answer(-1), answer(-2)), (Ok(()), Err(Errno::PERM), Err(Errno::NOENT)));
        for code in [1, 20, 4095, i32::MAX, -4096, -65_536, i32::MIN] {
            assert_eq!(answer(code), Err(Errno::PROTO), "{code}");
        }
        assert_eq!(refused(&[0; 3]), Err(Errno::PROTO));
    }

    #[test]
    fn what_is_cut_short_is_left_out() {
        let whole = request(7, REQUEST);
        assert_eq!(messages(&whole).count(), 1);
        for len in 0..whole.len() {
            assert_eq!(messages(&whole[..len]).count(), 0);
        }
        for len in 0..40 {
            let bytes = vec![0xff; len];
            assert_eq!(messages(&bytes).count(), 0, "longer than what is there");
            assert!(parse_socket(&bytes).is_none_or(|(_, peer)| peer.is_none()));
            assert_eq!(messages(&vec![0; len]).count(), 0, "a length of 0 does not go on for ever");
        }
    }
}
