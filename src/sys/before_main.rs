//! Code that runs before `main`, and functions that a program names to forks of itself.

use std::arch::asm;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::OnceLock;

/// Something to do before `main`, on the only thread. It must not panic.
pub(crate) trait BeforeMain {
    /// May be called several times.
    fn run();
}

/// The code of the object that was seen to [`run`](BeforeMain::run) first. Forks of the process have it at the same place.
static CODE: OnceLock<Option<Range<usize>>> = OnceLock::new();

/// Has `B` run before `main`, in every program that has a call of this function in it, whether that is reached or not.
///
/// Inlined, so that it is compiled with its caller: a program without a caller has nothing of it.
#[inline]
pub(crate) fn before_main<B: BeforeMain>() {
    extern "C" fn run<B: BeforeMain>() {
        super::inherited::note();
        CODE.get_or_init(|| mapped_code(run::<B> as *const () as usize));
        B::run();
    }
    // SAFETY: no instruction, but one more pointer in the array of functions that the C library calls when it has loaded the
    // program. The function ignores the arguments that some C libraries pass.
    #[cfg(target_pointer_width = "64")]
    unsafe {
        asm!(
            ".pushsection .init_array,\"aw\",%init_array", ".balign 8", ".8byte {}", ".popsection",
            sym run::<B>,
            options(nomem, nostack, preserves_flags)
        );
    }
    // SAFETY: as above.
    #[cfg(target_pointer_width = "32")]
    unsafe {
        asm!(
            ".pushsection .init_array,\"aw\",%init_array", ".balign 4", ".4byte {}", ".popsection",
            sym run::<B>,
            options(nomem, nostack, preserves_flags)
        );
    }
}

/// The mapping that has the code at that address.
fn mapped_code(address: usize) -> Option<Range<usize>> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let mut ranges = maps.lines().filter_map(|line| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
    });
    ranges.find(|range| range.contains(&address))
}

/// A call of a function, to be made in a process that was forked before `main`, with a `C` that is sent there.
pub(crate) struct Task<C> {
    call: usize,
    function: usize,
    context: PhantomData<fn(C)>,
}

const WORD: usize = size_of::<usize>();

impl<C> Task<C> {
    pub(crate) const LEN: usize = 2 * WORD;

    /// `call` will get the function. `None`: one of them is not a part of what was there before `main`, but of a library.
    pub(crate) fn new<A, R>(call: fn(fn(A) -> R, C) -> u8, function: fn(A) -> R) -> Option<Self> {
        let code = CODE.get()?.as_ref()?;
        let (call, function) = (call as usize, function as usize);
        let is_known = code.contains(&call) && code.contains(&function);
        is_known.then_some(Self { call, function, context: PhantomData })
    }

    pub(crate) fn to_bytes(&self) -> [u8; 2 * WORD] {
        let mut bytes = [0; 2 * WORD];
        bytes[..WORD].copy_from_slice(&self.call.to_ne_bytes());
        bytes[WORD..].copy_from_slice(&self.function.to_ne_bytes());
        bytes
    }

    /// Makes the call, and returns what `call` returned. Only for bytes of [`to_bytes`](Self::to_bytes) of a task with the same
    /// context, in the program that this process was forked from before `main`.
    pub(crate) fn call(bytes: &[u8; 2 * WORD], context: C) -> u8 {
        let word = |at: usize| {
            let mut word = [0; WORD];
            word.copy_from_slice(&bytes[at..at + WORD]);
            usize::from_ne_bytes(word)
        };
        let (call, function) = (word(0), word(WORD));
        // SAFETY: two functions of that program. `new` has seen that they are in its code, and this process has them at the same
        // addresses, as its memory is a copy. The types differ from the functions' own in the type of a function pointer
        // alone, and all of these are passed in the same way.
        let (call, function) = unsafe {
            (std::mem::transmute::<usize, fn(fn(), C) -> u8>(call), std::mem::transmute::<usize, fn()>(function))
        };
        call(function, context)
    }
}
