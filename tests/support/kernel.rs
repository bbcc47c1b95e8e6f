//! An older kernel, played by the one that is there.

/// Not wait, for one read or write.
pub const RWF_NOWAIT: u32 = 0x8;
/// No `SIGPIPE`, for one write. Linux 6.18.
pub const RWF_NOSIGNAL: u32 = 0x100;

/// From now on, `preadv2` and `pwritev2` with one of these flags are refused with `EOPNOTSUPP` in this process and its
/// children, as by a kernel that does not know them.
pub fn refuse_flags(flags: u32) {
    // Where seccomp_data(seccomp.2) has the lower half of the call's sixth argument.
    const SIXTH: u32 = 16 + 5 * 8 + if cfg!(target_endian = "big") { 4 } else { 0 };
    install(&mut [
        load(NUMBER),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, 0, libc::SYS_preadv2 as u32),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 3, libc::SYS_pwritev2 as u32),
        load(SIXTH),
        step(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, flags),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EOPNOTSUPP as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]);
    // It is refused, and calls without such a flag are not.
    let call = |flags: u32| {
        // SAFETY: no buffers at all, and a descriptor that is not open.
        let result =
            unsafe { libc::syscall(libc::SYS_preadv2, -1, std::ptr::null::<libc::iovec>(), 0, -1_i64, -1_i64, flags) };
        assert_eq!(result, -1);
        std::io::Error::last_os_error().raw_os_error()
    };
    assert_eq!((call(flags), call(0)), (Some(libc::EOPNOTSUPP), Some(libc::EBADF)));
}

/// From now on, these system calls are refused with that errno in this process and its children, as in a sandbox. With 0,
/// they do nothing and return 0.
pub fn refuse_calls(calls: &[libc::c_long], errno: i32) {
    let count = calls.len() as u8;
    let mut steps = vec![load(NUMBER)];
    steps.extend(
        calls
            .iter()
            .zip(0..)
            .map(|(call, index)| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, count - index, 0, *call as u32)),
    );
    steps.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
    steps.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32));
    install(&mut steps);
}

/// Where seccomp_data(seccomp.2) has the number of the call.
const NUMBER: u32 = 0;

fn step(code: u32, jump_true: u8, jump_false: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: jump_true, jf: jump_false, k }
}

fn load(offset: u32) -> libc::sock_filter {
    step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

fn install(steps: &mut [libc::sock_filter]) {
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: integers, and a program that lives as long as the call.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0, "{}", std::io::Error::last_os_error());
        let result = libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program);
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }
}
