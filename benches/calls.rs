//! What calls cost within one process: making and closing, a write and a read, a send and a receive, a fork.
//!
//! `cargo bench --bench calls` prints medians over several rounds; `-- --test` looks whether it runs.

mod common;

use common::*;

fn main() {
    making();
    calls();
    forking();
}

fn making() {
    let mut pipes: [Contender<'_>; 3] = [
        ("bare", repeated(|| drop(bare_pipe()))),
        ("std", repeated(|| drop(std_pipe()))),
        ("ipc", repeated(|| drop(ipc_pipe()))),
    ];
    compare("make and close a pipe", &mut pipes, 20_000);
    let mut pairs: [Contender<'_>; 2] =
        [("bare", repeated(|| drop(bare_pair()))), ("ipc", repeated(|| drop(ipc::datagram_pair().expect("a pair"))))];
    compare("make and close a pair", &mut pairs, 10_000);
}

fn calls() {
    for size in [16, 4096] {
        let mut pipes: [Contender<'_>; 3] = [
            ("bare", Box::new(write_and_read(bare_pipe(), size))),
            ("std", Box::new(write_and_read(std_pipe(), size))),
            ("ipc", Box::new(write_and_read(ipc_pipe(), size))),
        ];
        compare(&format!("write and read {size} bytes"), &mut pipes, 100_000);
        let mut pairs: [Contender<'_>; 2] =
            [("bare", Box::new(bare_send_and_recv(size))), ("ipc", Box::new(send_and_recv(size)))];
        compare(&format!("send and receive {size} bytes"), &mut pairs, 50_000);
    }
}

fn bare_fork() {
    // SAFETY: one thread, and the child leaves at once.
    unsafe {
        match libc::fork() {
            0 => libc::_exit(0),
            pid => assert_eq!(libc::waitpid(pid, std::ptr::null_mut(), 0), pid),
        }
    }
}

fn fork() {
    ipc::fork((), |()| ()).expect("one thread").wait().expect("a child");
}

fn forking() {
    for ends in [0, 10, 100] {
        let _held: Vec<_> = (0..ends / 2).map(|_| ipc_pipe()).collect();
        let mut forks: [Contender<'_>; 2] = [("bare", repeated(bare_fork)), ("ipc", repeated(fork))];
        compare(&format!("fork and wait, {ends} ends to sever"), &mut forks, 200);
    }
}
