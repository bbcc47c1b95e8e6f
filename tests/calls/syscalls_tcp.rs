//! A value over TCP costs one system call at each side, and no more to look again in vain (P11), as strace sees it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::Duration;

use crate::support::{self, Later, Trial, asleep_in, measured, tcp_pair};
use ipc::{Receiver, Sender, TcpLink, TcpOptions};

/// What this program does where a test of this module has started it.
pub fn started() -> Option<ExitCode> {
    support::run_traced(traced())
}

pub fn trials() -> Vec<Trial> {
    support::traced_trials(module_path!(), traced())
}

/// A link that looks again for so long, and its peer, which has said hello.
fn link(spin: Duration) -> (TcpLink, TcpStream) {
    let (here, mut there) = tcp_pair();
    there.write_all(&[&b"\xffipc\r\n\x1a\0\x01\0\0\0\0\0\0\0"[..], &[0xff; 8], &[0; 8]].concat()).unwrap();
    (TcpOptions::new().spin(spin).greet(here).unwrap(), there)
}

support::traced! {
    sending_and_receiving_what_is_there_is_one_call_each => ["sendto", "recvfrom"] {
        let (link, mut there) = link(Duration::from_secs(1));
        let (values, answers) = (Sender::new(link.writer), Receiver::<u8, _>::new(link.reader));
        there.write_all(&[1, 0, 0, 0, 7]).unwrap();
        measured(|| {
            values.send(7_u8).unwrap();
            values.flush().unwrap();
            assert_eq!(answers.recv().unwrap(), Some(7));
        });
    }

    without_spinning_a_receive_that_waits_is_one_call => ["recvfrom"] {
        let (link, there) = link(Duration::ZERO);
        let values = Receiver::<u8, _>::new(link.reader);
        let later = Later::new(there, |there| there.write_all(&[1, 0, 0, 0, 7]).unwrap());
        assert_eq!(measured(|| values.recv()).unwrap(), Some(7));
        later.done();
    }

    a_receiver_that_looked_in_vain_sleeps_at_once => ["recvfrom"] {
        let (link, there) = link(Duration::from_micros(20));
        let (values, answers) = (Receiver::<u8, _>::new(link.reader), Sender::new(link.writer));
        let later = Later::new(there, |there| {
            there.read_exact(&mut [0; 32]).unwrap(); // the hello
            let receiver = std::os::unix::process::parent_id();
            for number in 0..8 {
                if number > 0 {
                    there.read_exact(&mut [0; 5]).unwrap(); // it has the last one
                    asleep_in(receiver, &[libc::SYS_recvfrom]);
                }
                there.write_all(&[1, 0, 0, 0, number]).unwrap();
            }
        });
        for number in 0..7 {
            assert_eq!(values.recv().unwrap(), Some(number));
            answers.send(number).unwrap();
            answers.flush().unwrap();
        }
        assert_eq!(measured(|| values.recv()).unwrap(), Some(7));
        later.done();
    }
}
