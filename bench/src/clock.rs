//! CPU time of this thread.

#![expect(unsafe_code, reason = "the standard library does not offer the thread's CPU clock")]

/// What the kernel has charged this thread with, in nanoseconds, brought up to date at each reading. Interrupt work
/// done while the thread is on the CPU, such as loopback delivery, is part of it.
pub fn thread_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(status, 0, "CPU clocks are always there");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// What reading the clock before and after a piece of work adds to it: short pieces would show it.
pub fn overhead_ns() -> u64 {
    let mut readings: Vec<u64> = (0..1_001)
        .map(|_| {
            let before = thread_cpu_ns();
            thread_cpu_ns() - before
        })
        .collect();
    readings.sort_unstable();
    readings[readings.len() / 2]
}
