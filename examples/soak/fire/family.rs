//! Rounds with grandchildren and with other programs.

use ipc::{Command, Error, Fork, PipeReader, PipeWriter, claim};

use super::bytes::{pass_on, read_stream, some_pipe, write_stream};
use super::random::Random;
use super::{Fate, Round, assert_cut_by_a_kill, board::Board};

/// The most that goes through a pipe in a round.
const MOST: u64 = 1 << 18;

/// A process forks another, gives it the writer, and is killed. The other one goes on to the end, or goes along, as was
/// said when it was forked.
pub fn killed_parent(round: &mut Round) {
    let (reader, writer) = some_pipe(&mut round.random);
    let (key, length) = (round.random.next(), 1 + round.random.amount(MOST));
    let goes_along = round.random.once_in(2);
    let parent = round.fork(writer, |round, writer| {
        let how = if goes_along { Fork::new().die_with_parent() } else { Fork::new() };
        let child = round.fork_with(how, writer, |round, writer| write_stream(round, writer, key, length));
        round.fate(&child)
    });
    let killer = round.killer(&[&parent], length);
    let (fate, got) = read_stream(round, reader, key, length);
    let [parent] = round.fates(&killer, [&parent]);
    assert_cut_by_a_kill(&[fate, parent]);
    // Killed before it forked, it has the writer itself.
    assert!(goes_along || fate == Fate::Done || got == 0, "an orphan goes on to the end: {got} of {length}");
}

/// The argument that makes a program a link of a chain.
const LINK: &str = "be-a-link";

/// Is a link of a chain, if this program was started to be one, and returns its status.
pub fn was_a_link() -> Option<std::process::ExitCode> {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() != Some(LINK) {
        return None;
    }
    let seed = args.next().and_then(|seed| seed.parse().ok()).expect("a seed");
    let mut round = Round { random: Random::new(seed), board: Board::shared() };
    let (reader, writer) = claimed();
    Some(pass_on(&mut round, reader, writer).code().into())
}

fn claimed() -> (PipeReader, PipeWriter) {
    assert!(matches!(claim::<PipeReader>("out"), Err(Error::WrongKind { .. })));
    (claim("in").expect("it was given"), claim("out").expect("it was given"))
}

pub fn killed_program(round: &mut Round) {
    let (first_reader, first_writer) = some_pipe(&mut round.random);
    let (second_reader, second_writer) = some_pipe(&mut round.random);
    let (key, length) = (round.random.next(), round.random.amount(MOST));
    let first = round.fork(first_writer, |round, writer| write_stream(round, writer, key, length));
    let seed = round.random.next().to_string();
    // A path that is this program also after its file was replaced.
    let link = Command::new("/proc/self/exe").args([LINK, &seed]).give("in", first_reader).give("out", second_writer);
    let link = link.spawn().expect("this program can be started");
    round.board.programs.add(1);
    let killer = round.killer(&[&first, &link], length);
    let (fate, _) = read_stream(round, second_reader, key, length);
    let [first, link] = round.fates(&killer, [&first, &link]);
    assert_cut_by_a_kill(&[fate, first, link]);
}
