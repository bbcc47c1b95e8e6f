//! The trait of the values that can be given to another process.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use crate::end::End;
use crate::error::{Error, Result};
use crate::sys::ledger;

/// The values that can be given to another process: ends, and values that are made of ends.
///
/// [`fork`](crate::fork()) moves one of these into the child, and visits its descriptors. They stay open there, and every other
/// end of this crate is severed.
///
/// Every end of this crate implements it. So do `()`, for no end, and tuples of up to twelve, arrays, `Vec`, `Option`, `Box` and
/// `Arc` of ends. So do other owners of a descriptor: [`OwnedFd`](std::os::fd::OwnedFd), [`std::fs::File`], and the standard
/// library's pipes and sockets. A reference, or a [`BorrowedFd`], lends: the descriptor is open in the child and stays open here.
///
/// A type with a buffer in front of a descriptor does not: give the bare end, and add the buffer in the child. Data need
/// not be given: a child has a copy of everything that its closure captures.
///
/// # Examples
///
/// Lending, to one child after the other:
///
/// ```
/// let (reader, writer) = ipc::pipe()?;
/// for number in [1, 2] {
///     let child = ipc::fork(&writer, |writer| writer.write_atomic(&[number]))?;
///     assert!(child.wait()?.success());
/// }
/// drop(writer); // or EOF would not come
/// assert_eq!(std::io::Read::bytes(reader).collect::<Result<Vec<_>, _>>()?, [1, 2]);
/// # Ok::<(), ipc::Error>(())
/// ```
///
/// For a structure of your own, visit its parts:
///
/// ```
/// use std::os::fd::BorrowedFd;
///
/// struct Worker {
///     jobs: ipc::DatagramSocket,
///     results: ipc::PipeWriter,
/// }
///
/// impl ipc::Ends for Worker {
///     fn each<'a>(&'a self, visit: &mut dyn FnMut(BorrowedFd<'a>)) {
///         self.jobs.each(visit);
///         self.results.each(visit);
///     }
/// }
/// ```
///
/// A descriptor that is visited outlives the visit, so that its number is still the same file's when it is used. A temporary
/// does not compile:
///
/// ```compile_fail,E0597
/// struct Liar(std::fs::File);
///
/// impl ipc::Ends for Liar {
///     fn each<'a>(&'a self, visit: &mut dyn FnMut(std::os::fd::BorrowedFd<'a>)) {
///         let copy = self.0.try_clone().unwrap();
///         visit(std::os::fd::AsFd::as_fd(&copy)); // `copy` does not live long enough
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be given to another process",
    label = "not `Ends`",
    note = "a closure comes second, after the ends: `fork(end, |end| …)`, and `fork((), |()| …)` where there is none",
    note = "strings, numbers and other data are not given: a `move` closure takes them along",
    note = "what has a buffer, a ring too, is made in the child: give it the bare pipe or socket",
    note = "of a pair, give one side; to lend, give `&end`, which can be read and written like the end itself",
    note = "for a structure of your own, implement `ipc::Ends` and visit each part"
)]
pub trait Ends {
    /// Calls `visit` with each descriptor, as in the [example](Self#examples).
    fn each<'a>(&'a self, visit: &mut dyn FnMut(BorrowedFd<'a>));
}

/// Owners and borrowers of exactly one descriptor. The crate's own ends say so where they are defined.
macro_rules! has_one_descriptor {
    ($($owner:ty),* $(,)?) => {$(
        impl Ends for $owner {
            fn each<'a>(&'a self, visit: &mut dyn FnMut(BorrowedFd<'a>)) {
                visit(self.as_fd());
            }
        }
    )*};
}

impl Ends for End {
    fn each<'a>(&'a self, visit: &mut dyn FnMut(BorrowedFd<'a>)) {
        visit(self.as_fd());
    }
}

has_one_descriptor!(BorrowedFd<'_>);
super::std_owners!(has_one_descriptor);

impl Ends for () {
    fn each<'a>(&'a self, _: &mut dyn FnMut(BorrowedFd<'a>)) {}
}

/// Lends.
impl<T: Ends + ?Sized> Ends for &T {
    fn each<'a>(&'a self, visit: &mut dyn FnMut(BorrowedFd<'a>)) {
        (**self).each(visit);
    }
}

impl<T: Ends + ?Sized> Ends for Box<T> {
    fn each<'a>(&'a self, visit: &mut dyn FnMut(BorrowedFd<'a>)) {
        (**self).each(visit);
    }
}

/// Shares: another holder of the `Arc` keeps the end open, also after it was given.
impl<T: Ends + ?Sized> Ends for Arc<T> {
    fn each<'a>(&'a self, visit: &mut dyn FnMut(BorrowedFd<'a>)) {
        (**self).each(visit);
    }
}

impl<T: Ends> Ends for Option<T> {
    fn each<'a>(&'a self, visit: &mut dyn FnMut(BorrowedFd<'a>)) {
        self.iter().for_each(|ends| ends.each(visit));
    }
}

impl<T: Ends> Ends for [T] {
    fn each<'a>(&'a self, visit: &mut dyn FnMut(BorrowedFd<'a>)) {
        self.iter().for_each(|ends| ends.each(visit));
    }
}

impl<T: Ends, const N: usize> Ends for [T; N] {
    fn each<'a>(&'a self, visit: &mut dyn FnMut(BorrowedFd<'a>)) {
        self.as_slice().each(visit);
    }
}

impl<T: Ends> Ends for Vec<T> {
    fn each<'a>(&'a self, visit: &mut dyn FnMut(BorrowedFd<'a>)) {
        self.as_slice().each(visit);
    }
}

macro_rules! tuples {
    () => {};
    ($first:ident $($rest:ident)*) => {
        impl<$first: Ends, $($rest: Ends),*> Ends for ($first, $($rest,)*) {
            fn each<'a>(&'a self, visit: &mut dyn FnMut(BorrowedFd<'a>)) {
                #[allow(non_snake_case)]
                let ($first, $($rest,)*) = self;
                $first.each(visit);
                $($rest.each(visit);)*
            }
        }
        tuples!($($rest)*);
    };
}
tuples!(A B C D E F G H I J K L);

/// The descriptors of what is given. Fails if one of them is an end that this process was not given itself, or a copy.
pub(crate) fn descriptors<E: Ends + ?Sized>(ends: &E) -> Result<Vec<BorrowedFd<'_>>> {
    let mut descriptors = Vec::new();
    ends.each(&mut |fd| descriptors.push(fd));
    match descriptors.iter().any(|fd| ledger::is_severed_or_copy(fd.as_raw_fd())) {
        true => Err(Error::NotGiven),
        false => Ok(descriptors),
    }
}

/// The first of the descriptors, and how many there are. Does not allocate.
pub(crate) fn first_descriptors<const N: usize>(
    ends: &(impl Ends + ?Sized),
) -> Result<([Option<BorrowedFd<'_>>; N], usize)> {
    let (mut first, mut count, mut are_given) = ([None; N], 0, true);
    ends.each(&mut |fd| {
        if let Some(place) = first.get_mut(count) {
            *place = Some(fd);
        }
        count += 1;
        are_given &= !ledger::is_severed_or_copy(fd.as_raw_fd());
    });
    if are_given { Ok((first, count)) } else { Err(Error::NotGiven) }
}

/// The one descriptor of something that is given as one.
pub(crate) fn one_descriptor<E: Ends + ?Sized>(end: &E) -> Result<BorrowedFd<'_>> {
    match first_descriptors(end)? {
        ([Some(fd)], 1) => Ok(fd),
        ([None], _) => Err(Error::InvalidInput { what: "something without a descriptor is given as an end" }),
        _ => Err(Error::InvalidInput { what: "several descriptors are given as one end" }),
    }
}
