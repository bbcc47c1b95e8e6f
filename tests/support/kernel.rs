//! An older kernel, played by the one that is there.

/// Not wait, for one read or write.
pub const RWF_NOWAIT: u32 = 0x8;
/// No `SIGPIPE`, for one write. Linux 6.18.
pub const RWF_NOSIGNAL: u32 = 0x100;

/// From now on, `preadv2` and `pwritev2` with one of these flags are refused with `EOPNOTSUPP` in this process and its
/// children, as by a kernel that does not know them.
pub fn refuse_flags(flags: u32) {
    // Where seccomp_data(seccomp.2) has the number of the call, and the lower half of its sixth argument.
    const NUMBER: u32 = 0;
    const SIXTH: u32 = 16 + 5 * 8 + if cfg!(target_endian = "big") { 4 } else { 0 };
    let step =
        |code: u32, jump_true, jump_false, k| libc::sock_filter { code: code as u16, jt: jump_true, jf: jump_false, k };
    let load = |offset| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let mut steps = [
        load(NUMBER),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, 0, libc::SYS_preadv2 as u32),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 3, libc::SYS_pwritev2 as u32),
        load(SIXTH),
        step(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, flags),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EOPNOTSUPP as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: integers, and a program that lives as long as the call.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0, "{}", std::io::Error::last_os_error());
        let result = libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program);
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }
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
