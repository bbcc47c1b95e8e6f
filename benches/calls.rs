//! What calls cost within one process: making and closing, a write and a read, a send and a receive, a fork.

mod common;

use common::*;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};

fn custom(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, mut pass: impl FnMut(u64) -> std::time::Duration) {
    group.bench_function(name, |bencher| bencher.iter_custom(&mut pass));
}

fn making(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("make and close a pipe");
    group.bench_function("bare", |bencher| bencher.iter(bare_pipe));
    group.bench_function("std", |bencher| bencher.iter(std_pipe));
    group.bench_function("ipc", |bencher| bencher.iter(ipc_pipe));
    group.finish();

    let mut group = criterion.benchmark_group("make and close a pair");
    group.bench_function("bare", |bencher| bencher.iter(bare_pair));
    group.bench_function("ipc", |bencher| bencher.iter(|| ipc::datagram_pair().expect("a pair")));
    group.finish();
}

fn calls(criterion: &mut Criterion) {
    for size in [16, 4096] {
        let mut group = criterion.benchmark_group(format!("write and read {size} bytes"));
        custom(&mut group, "bare", write_and_read(bare_pipe(), size));
        custom(&mut group, "std", write_and_read(std_pipe(), size));
        custom(&mut group, "ipc", write_and_read(ipc_pipe(), size));
        group.finish();

        let mut group = criterion.benchmark_group(format!("send and receive {size} bytes"));
        custom(&mut group, "bare", bare_send_and_recv(size));
        custom(&mut group, "ipc", send_and_recv(size));
        group.finish();
    }
}

fn forking(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fork and wait");
    group.bench_function("bare", |bencher| {
        bencher.iter(|| {
            // SAFETY: one thread, and the child leaves at once.
            unsafe {
                match libc::fork() {
                    0 => libc::_exit(0),
                    pid => assert_eq!(libc::waitpid(pid, std::ptr::null_mut(), 0), pid),
                }
            }
        });
    });
    for ends in [0, 10, 100] {
        let held: Vec<_> = (0..ends / 2).map(|_| ipc_pipe()).collect();
        group.bench_function(format!("ipc, {ends} ends to sever"), |bencher| {
            bencher.iter(|| ipc::fork((), |()| ()).expect("one thread").wait().expect("a child"));
        });
        drop(held);
    }
    group.finish();
}

criterion_group!(benches, making, calls, forking);
criterion_main!(benches);
