//! Where the ends of a value are while it is encoded or decoded. Serde passes no state to an end that is a field, so the end
//! looks it up: each thread has a scope for the value that is under way. A `Serialize` may itself send on a channel, and then the
//! outer scope is put aside meanwhile.

use std::cell::{Cell, RefCell};
use std::ops::Deref;

use crate::end::{self, End, Ends};
use crate::error::Error;
use crate::sys::ancillary::MOST;

thread_local! {
    static SCOPE: RefCell<Scope> = const { RefCell::new(Scope::None) };
    /// An empty list for the ends of the next value, so that sending allocates nothing.
    static LIST: Cell<Vec<End>> = const { Cell::new(Vec::new()) };
}

#[derive(Default)]
enum Scope {
    #[default]
    None,
    Sending(Attached),
    /// The ends that arrived and were not taken yet.
    Receiving(Vec<Option<End>>),
}

/// The ends of a value that was encoded.
#[derive(Default)]
pub(super) struct Attached {
    /// A duplicate of each, as what is encoded may be a temporary: its number could be somebody else's when the message goes.
    pub(super) ends: Duplicates,
    /// How many there are: more than the duplicates where there are too many for a message.
    pub(super) count: usize,
    /// Why an end could not be attached.
    pub(super) refused: Option<Box<Error>>,
}

/// A list of ends, which its thread keeps when the ends are closed.
#[derive(Default)]
pub(super) struct Duplicates(Vec<End>);

impl Duplicates {
    fn push(&mut self, end: End) {
        if self.0.capacity() == 0 {
            self.0 = LIST.try_with(Cell::take).unwrap_or_default();
        }
        self.0.push(end);
    }

    pub(super) fn into_list(mut self) -> Vec<End> {
        std::mem::take(&mut self.0)
    }
}

impl Deref for Duplicates {
    type Target = [End];

    fn deref(&self) -> &[End] {
        &self.0
    }
}

impl Drop for Duplicates {
    #[inline]
    fn drop(&mut self) {
        if self.0.capacity() > 0 {
            self.0.clear();
            // The list is gone when the thread is ending.
            let _ = LIST.try_with(|list| list.set(std::mem::take(&mut self.0)));
        }
    }
}

/// The error of an end that is encoded or decoded outside of a channel.
pub(super) const ONLY_ON_CHANNELS: &str =
    "an end (a descriptor) travels in the values of ipc's channels, and in no other format";

/// Encodes in a scope of its own, and returns what was attached in it.
#[inline]
pub(super) fn sending<T>(encode: impl FnOnce() -> T) -> (T, Attached) {
    let guard = Guard::enter(Scope::Sending(Attached::default()));
    let encoded = encode();
    match guard.leave() {
        Scope::Sending(attached) => (encoded, attached),
        _ => (encoded, Attached::default()),
    }
}

/// Decodes in a scope of its own. What is not taken is closed.
#[inline]
pub(super) fn receiving<T>(ends: Vec<Option<End>>, decode: impl FnOnce() -> T) -> T {
    let _guard = Guard::enter(Scope::Receiving(ends));
    decode()
}

/// The scope around this one, which is put back when this is dropped, also while a panic unwinds. `None`: the thread is ending and has
/// no scopes any more. Then values go without ends.
struct Guard(Option<Scope>);

impl Guard {
    #[inline]
    fn enter(scope: Scope) -> Self {
        Self(SCOPE.try_with(|current| current.replace(scope)).ok())
    }

    #[inline]
    fn leave(mut self) -> Scope {
        let put_back = |outer| SCOPE.try_with(|current| current.replace(outer)).ok();
        self.0.take().and_then(put_back).unwrap_or_default()
    }
}

impl Drop for Guard {
    #[inline]
    fn drop(&mut self) {
        if let Some(outer) = self.0.take() {
            let _ = SCOPE.try_with(|current| current.replace(outer));
        }
    }
}

/// Attaches an end to the value that is being encoded, and returns its index.
pub(super) fn attach<E: Ends + ?Sized>(end: &E) -> Result<u32, &'static str> {
    let attach = |scope: &RefCell<Scope>| {
        let Scope::Sending(attached) = &mut *scope.borrow_mut() else { return Err(ONLY_ON_CHANNELS) };
        let index = attached.count;
        // That there are too many is said when all are counted.
        if index < MOST {
            match end::one_descriptor(end).and_then(End::duplicate) {
                Ok(duplicate) => attached.ends.push(duplicate),
                Err(error) => {
                    attached.refused = Some(Box::new(error));
                    return Err("an end cannot be sent");
                }
            }
        }
        attached.count += 1;
        Ok(u32::try_from(index).unwrap_or(u32::MAX))
    };
    SCOPE.try_with(attach).unwrap_or(Err(ONLY_ON_CHANNELS))
}

/// Takes the end with that index out of the message that is being decoded.
pub(super) fn take(index: u32) -> Result<End, String> {
    let take = |scope: &RefCell<Scope>| {
        let Scope::Receiving(ends) = &mut *scope.borrow_mut() else { return Err(ONLY_ON_CHANNELS.to_owned()) };
        let count = ends.len();
        match ends.get_mut(index as usize).map(Option::take) {
            Some(Some(end)) => Ok(end),
            Some(None) => Err(format!("end {index} of the message is there twice")),
            None => Err(format!("end {index} of the message is missing: {count} came with it")),
        }
    };
    SCOPE.try_with(take).unwrap_or_else(|_| Err(ONLY_ON_CHANNELS.to_owned()))
}
