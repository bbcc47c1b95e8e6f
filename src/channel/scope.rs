//! The place of a value's ends while it is encoded or decoded. Serde passes no state to an end that is a field, so the end looks
//! it up. Each thread has a scope for the value that is under way, made when the value has an end. A `Serialize` may itself send
//! on a channel, and then the outer scope is put aside meanwhile.

use std::cell::{Cell, RefCell};
use std::ops::Deref;

use crate::end::{self, End, Ends};
use crate::error::Error;
use crate::sys::ancillary::MOST;

thread_local! {
    /// The state of this thread. It has nothing to drop, so that a value without ends costs no more than to set it and to set it back.
    static NOW: Cell<Now> = const { Cell::new(Now::Nothing) };
    /// The ends of the values that are under way and have some, the innermost value last.
    static SCOPES: RefCell<Vec<Scope>> = const { RefCell::new(Vec::new()) };
    /// An empty list for the ends of the next value, so that sending allocates nothing.
    static LIST: Cell<Vec<End>> = const { Cell::new(Vec::new()) };
}

/// The value that is under way, and whether the last of [`SCOPES`] is its own.
#[derive(Clone, Copy)]
enum Now {
    Nothing,
    Sending { has_scope: bool },
    Receiving { has_scope: bool },
}

enum Scope {
    Sending(Attached),
    /// The ends that arrived and were not taken yet.
    Receiving(Vec<Option<End>>),
}

/// The ends of a value that was encoded.
#[derive(Default)]
pub(super) struct Attached {
    /// A duplicate of each, as the value may be a temporary, and its number another file's when the message goes.
    pub(super) ends: Duplicates,
    /// How many there are: more than the duplicates if they are too many for a message.
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

/// Encodes in a scope of its own, and returns the ends that were attached.
#[inline]
pub(super) fn sending<T>(encode: impl FnOnce() -> T) -> (T, Attached) {
    let _guard = Guard::enter(Now::Sending { has_scope: false });
    let encoded = encode();
    match NOW.get() {
        Now::Sending { has_scope: true } => (encoded, attached()),
        _ => (encoded, Attached::default()),
    }
}

/// Takes the ends that were attached.
#[cold]
fn attached() -> Attached {
    NOW.set(Now::Sending { has_scope: false });
    match pop() {
        Some(Scope::Sending(attached)) => attached,
        _ => Attached::default(),
    }
}

/// Decodes in a scope of its own. Ends that are not taken are closed.
#[inline]
pub(super) fn receiving<T>(ends: Vec<Option<End>>, decode: impl FnOnce() -> T) -> T {
    let has_scope = !ends.is_empty() && push(Scope::Receiving(ends));
    let _guard = Guard::enter(Now::Receiving { has_scope });
    decode()
}

/// The state around this value, which is restored when this is dropped, also while a panic unwinds.
struct Guard(Now);

impl Guard {
    #[inline]
    fn enter(now: Now) -> Self {
        Self(NOW.replace(now))
    }
}

impl Drop for Guard {
    #[inline]
    fn drop(&mut self) {
        if let Now::Sending { has_scope: true } | Now::Receiving { has_scope: true } = NOW.replace(self.0) {
            drop(pop());
        }
    }
}

/// `false`: the thread is ending, and has no scopes any more. Then values go without ends.
#[cold]
fn push(scope: Scope) -> bool {
    SCOPES.try_with(|scopes| scopes.borrow_mut().push(scope)).is_ok()
}

#[cold]
fn pop() -> Option<Scope> {
    SCOPES.try_with(|scopes| scopes.borrow_mut().pop()).ok().flatten()
}

/// The innermost scope, which is that of the value under way.
fn with_last<T>(use_it: impl FnOnce(Option<&mut Scope>) -> T) -> Option<T> {
    SCOPES.try_with(|scopes| use_it(scopes.borrow_mut().last_mut())).ok()
}

/// Attaches an end to the value that is being encoded, and returns its index.
pub(super) fn attach<E: Ends + ?Sized>(end: &E) -> Result<u32, &'static str> {
    match NOW.get() {
        Now::Sending { has_scope: true } => {}
        Now::Sending { has_scope: false } if push(Scope::Sending(Attached::default())) => {
            NOW.set(Now::Sending { has_scope: true });
        }
        _ => return Err(ONLY_ON_CHANNELS),
    }
    with_last(|scope| {
        let Some(Scope::Sending(attached)) = scope else { return Err(ONLY_ON_CHANNELS) };
        let index = attached.count;
        // Too many are refused when all are counted.
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
    })
    .unwrap_or(Err(ONLY_ON_CHANNELS))
}

/// Takes the end with that index out of the message that is being decoded.
pub(super) fn take(index: u32) -> Result<End, String> {
    let missing = |count| Err(format!("end {index} of the message is missing: {count} came with it"));
    match NOW.get() {
        Now::Receiving { has_scope: true } => {}
        Now::Receiving { has_scope: false } => return missing(0),
        _ => return Err(ONLY_ON_CHANNELS.to_owned()),
    }
    with_last(|scope| {
        let Some(Scope::Receiving(ends)) = scope else { return Err(ONLY_ON_CHANNELS.to_owned()) };
        let count = ends.len();
        match ends.get_mut(index as usize).map(Option::take) {
            Some(Some(end)) => Ok(end),
            Some(None) => Err(format!("end {index} of the message is there twice")),
            None => missing(count),
        }
    })
    .unwrap_or_else(|| Err(ONLY_ON_CHANNELS.to_owned()))
}
