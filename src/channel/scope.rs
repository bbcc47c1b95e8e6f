//! Where the ends of a value are while it is encoded or decoded. Serde passes no state to an end that is a field, so it is
//! looked up: each thread has a stack of scopes, one for each value that is under way, since a `Serialize` may send on a
//! channel itself.

use std::cell::RefCell;

use crate::end::{self, End, Ends};
use crate::error::Error;
use crate::sys::ancillary::MOST;

thread_local! {
    static SCOPES: RefCell<Vec<Scope>> = const { RefCell::new(Vec::new()) };
}

enum Scope {
    Sending(Attached),
    /// The ends that arrived and were not taken yet.
    Receiving(Vec<Option<End>>),
}

/// The ends of a value that was encoded.
#[derive(Default)]
pub(super) struct Attached {
    /// A duplicate of each, as what is encoded may be a temporary: its number could be somebody else's when the message goes.
    pub(super) ends: Vec<End>,
    /// How many there are: more than the duplicates where there are too many for a message.
    pub(super) count: usize,
    /// Why an end could not be attached.
    pub(super) refused: Option<Box<Error>>,
}

/// What an end says that is encoded or decoded where no channel is.
pub(super) const ONLY_ON_CHANNELS: &str =
    "an end (a descriptor) travels in the values of ipc's channels, and in no other format";

/// Encodes in a scope of its own, and returns what was attached in it.
pub(super) fn sending<T>(encode: impl FnOnce() -> T) -> (T, Attached) {
    let guard = Guard::new(Scope::Sending(Attached::default()));
    let encoded = encode();
    match guard.pop() {
        Some(Scope::Sending(attached)) => (encoded, attached),
        _ => (encoded, Attached::default()),
    }
}

/// Decodes in a scope of its own. What is not taken is closed.
pub(super) fn receiving<T>(ends: Vec<Option<End>>, decode: impl FnOnce() -> T) -> T {
    let _guard = Guard::new(Scope::Receiving(ends));
    decode()
}

/// Takes the scope off the stack, and all above it, also when a panic unwinds.
struct Guard(Option<usize>);

impl Guard {
    /// Where the thread is ending there is no stack any more, and values go without ends.
    fn new(scope: Scope) -> Self {
        let push = |scopes: &RefCell<Vec<Scope>>| {
            let mut scopes = scopes.borrow_mut();
            scopes.push(scope);
            scopes.len() - 1
        };
        Self(SCOPES.try_with(push).ok())
    }

    fn pop(self) -> Option<Scope> {
        let place = self.0?;
        SCOPES.with_borrow_mut(|scopes| {
            scopes.truncate(place + 1);
            scopes.pop()
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(place) = self.0 else { return };
        let _ = SCOPES.try_with(|scopes| scopes.borrow_mut().truncate(place));
    }
}

/// Attaches an end to the value that is being encoded, and returns its index.
pub(super) fn attach<E: Ends + ?Sized>(end: &E) -> Result<u32, &'static str> {
    let attach = |scopes: &RefCell<Vec<Scope>>| {
        let mut scopes = scopes.borrow_mut();
        let Some(Scope::Sending(attached)) = scopes.last_mut() else { return Err(ONLY_ON_CHANNELS) };
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
    SCOPES.try_with(attach).unwrap_or(Err(ONLY_ON_CHANNELS))
}

/// Takes the end with that index out of the message that is being decoded.
pub(super) fn take(index: u32) -> Result<End, String> {
    let take = |scopes: &RefCell<Vec<Scope>>| {
        let mut scopes = scopes.borrow_mut();
        let Some(Scope::Receiving(ends)) = scopes.last_mut() else { return Err(ONLY_ON_CHANNELS.to_owned()) };
        let count = ends.len();
        match ends.get_mut(index as usize).map(Option::take) {
            Some(Some(end)) => Ok(end),
            Some(None) => Err(format!("end {index} of the message is there twice")),
            None => Err(format!("end {index} of the message is missing: {count} came with it")),
        }
    };
    SCOPES.try_with(take).unwrap_or_else(|_| Err(ONLY_ON_CHANNELS.to_owned()))
}
