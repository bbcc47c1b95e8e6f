//! The ratios that this crate is to keep, measured with the contenders taking turns in one run.
//!
//! `cargo bench --bench marks` prints medians over several rounds; `-- --cuts` prints what different cuts of long writes do,
//! with two cores and with one; `-- --spin` what looking again before sleeping does, with two cores, with one, and beside a
//! process that is busy all the time. The machine is probed before each round: how long a cache line takes to the other core and
//! back says which pairs of rounds can be compared at all.

mod common;

use std::time::Duration;

use common::*;

const ROUNDS: usize = 11;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let quick = args.iter().any(|arg| arg == "--test");
    let rounds = if quick { 1 } else { ROUNDS };
    pin(0);
    match args.iter().map(String::as_str).find(|arg| ["--cuts", "--spin"].contains(arg)) {
        Some("--cuts") => cuts(rounds),
        Some(_) => spin(rounds, quick),
        None => marks(rounds, quick),
    }
}

fn marks(rounds: usize, quick: bool) {
    let before = probe();
    println!("a cache line to the other core and back: {before:.0} ns; medians of {rounds} rounds, in turns\n");
    println!("{:<44} {:>12} {:>12} {:>8} {:>6}", "", "beside", "ipc", "ratio", "mark");
    let scale = if quick { 100 } else { 1 };

    for size in [16, 4096] {
        let mut contenders: Vec<Contender<'_>> = vec![
            ("bare", Box::new(write_and_read(bare_pipe(), size))),
            ("ipc", Box::new(write_and_read(ipc_pipe(), size))),
        ];
        let times = take_turns(&mut contenders, 100_000 / scale, rounds * 3);
        report(&format!("write and read {size} bytes, bare (ns)"), times[0], times[1], times[0] / times[1], "0.95");
    }
    for size in [16, 4096] {
        let mut contenders: Vec<Contender<'_>> =
            vec![("bare", Box::new(bare_send_and_recv(size))), ("ipc", Box::new(send_and_recv(size)))];
        let times = take_turns(&mut contenders, 50_000 / scale, rounds * 3);
        let name = format!("send and receive {size} bytes, bare (ns)");
        report(&name, times[0], times[1], times[0] / times[1], "0.95");
    }
    for size in [4 << 10, 64 << 10, 1 << 20] {
        let (mut std_stream, mut ipc_stream) = (Stream::new(std_pipe(), size, 1), Stream::new(ipc_pipe(), size, 1));
        let mut contenders: Vec<Contender<'_>> =
            vec![("std", Box::new(|count| std_stream.pass(count))), ("ipc", Box::new(|count| ipc_stream.pass(count)))];
        let count = ((256 << 20) / size as u64 / scale).max(2);
        let times = take_turns(&mut contenders, count, rounds);
        let rate = |ns: f64| size as f64 / ns * 1e9 / (1_u64 << 30) as f64;
        let mark = if size > 4096 { "7" } else { "" };
        let name = format!("stream, writes of {size} bytes, std (GiB/s)");
        report(&name, rate(times[0]), rate(times[1]), times[0] / times[1], mark);
    }
    let (mut bare, mut spinning) = (RoundTrip::new(bare_pipe, 1), RoundTrip::new(spinning_pipe, 1));
    let mut contenders: Vec<Contender<'_>> =
        vec![("bare", Box::new(|count| bare.pass(count))), ("spin", Box::new(|count| spinning.pass(count)))];
    let times = take_turns(&mut contenders, 2_000 / scale, rounds);
    report("round trip, looking for 50 µs, bare (ns)", times[0], times[1], times[0] / times[1], "");

    let after = probe();
    println!("\na cache line to the other core and back: {after:.0} ns");
    if before.max(after) > 2.0 * before.min(after) {
        println!("the machine moved its cores meanwhile: run it again");
    }
}

/// GiB/s for each cut, in turns.
fn cuts(rounds: usize) {
    const CUTS: [usize; 8] = [4 << 10, 6 << 10, 8 << 10, 12 << 10, 16 << 10, 24 << 10, 32 << 10, usize::MAX];
    let total = if rounds == 1 { 1 << 22 } else { 256 << 20 };
    print!("{:<34}", "GiB/s; writes are cut to (KiB)");
    CUTS.iter().for_each(|cut| if *cut == usize::MAX { print!("{:>7}", "never") } else { print!("{:>7}", cut >> 10) });
    println!();
    for (there, cores) in [(1, "two cores"), (0, "one core")] {
        for size in [64 << 10, 1 << 20] {
            let mut streams: Vec<_> = CUTS
                .iter()
                .map(|cut| {
                    let (reader, mut writer) = ipc_pipe();
                    writer.set_max_write(*cut);
                    Stream::new((reader, writer), size, there)
                })
                .collect();
            let mut contenders: Vec<Contender<'_>> = streams
                .iter_mut()
                .map(|stream| ("", Box::new(|count| stream.pass(count)) as Box<dyn FnMut(u64) -> Duration>))
                .collect();
            let times = take_turns(&mut contenders, (total / size) as u64, rounds);
            print!("{:<34}", format!("{cores}, writes of {} KiB", size >> 10));
            times.iter().for_each(|ns| print!("{:>7.2}", size as f64 / ns * 1e9 / (1_u64 << 30) as f64));
            println!();
        }
    }
}

/// Round trips of 16 bytes, blocking and looking again for 50 µs, in turns.
fn spin(rounds: usize, quick: bool) {
    println!("a cache line to the other core and back: {:.0} ns; medians of {rounds} rounds, in turns\n", probe());
    println!("{:<44} {:>12} {:>12} {:>8} {:>6}", "round trip of 16 bytes (ns)", "blocking", "looking", "ratio", "mark");
    let count = if quick { 20 } else { 4_000 };
    for (place, core, busy, mark) in [
        ("two cores", 1, None, ""),
        ("two cores, the other one has a neighbour", 1, Some(1), ""),
        ("two cores, this one has a neighbour", 1, Some(0), ""),
        ("one core", 0, None, "0.83"),
        ("one core, and a neighbour", 0, Some(0), ""),
    ] {
        let _busy = busy.map(Busy::on);
        let (mut bare, mut looking) = (RoundTrip::new(bare_pipe, core), RoundTrip::new(spinning_pipe, core));
        let mut contenders: Vec<Contender<'_>> =
            vec![("bare", Box::new(|count| bare.pass(count))), ("looking", Box::new(|count| looking.pass(count)))];
        let times = take_turns(&mut contenders, count, rounds);
        report(place, times[0], times[1], times[0] / times[1], mark);
    }
    println!("\na cache line to the other core and back: {:.0} ns", probe());
}
