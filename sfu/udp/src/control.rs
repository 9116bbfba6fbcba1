//! One control message of one integer: the size of a segment, either way.

use std::mem;

/// Space for one control message with a `c_int`.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(crate) struct Control([u8; CONTROL_BYTES]);

// SAFETY: CMSG_SPACE only computes.
const CONTROL_BYTES: usize = unsafe { libc::CMSG_SPACE(mem::size_of::<libc::c_int>() as u32) as usize };

impl Control {
    pub const EMPTY: Self = Self([0; CONTROL_BYTES]);
    pub const BYTES: usize = CONTROL_BYTES;

    /// `UDP_SEGMENT`: the kernel cuts the message into datagrams of this size.
    pub fn segment(size: u16) -> (Self, usize) {
        let mut control = Self::EMPTY;
        // SAFETY: CMSG_LEN and CMSG_SPACE only compute.
        let (len, space) = unsafe { (libc::CMSG_LEN(2) as usize, libc::CMSG_SPACE(2) as usize) };
        let header =
            libc::cmsghdr { cmsg_len: len as _, cmsg_level: libc::SOL_UDP, cmsg_type: libc::UDP_SEGMENT };
        let data = mem::size_of::<libc::cmsghdr>();
        // SAFETY: the buffer is aligned to 8 and longer than a header.
        unsafe { control.0.as_mut_ptr().cast::<libc::cmsghdr>().write(header) };
        control.0[data..data + 2].copy_from_slice(&size.to_ne_bytes());
        (control, space)
    }

    /// What [`Self::segment`] wrote.
    pub fn segment_size(&self) -> Option<usize> {
        let data = mem::size_of::<libc::cmsghdr>();
        let size = u16::from_ne_bytes([self.0[data], self.0[data + 1]]);
        (size > 0).then_some(usize::from(size))
    }

    /// `UDP_GRO`: the message holds datagrams of this size, the last may be shorter. `None` when it is one datagram.
    pub fn received_segment(message: &libc::msghdr) -> Option<usize> {
        // SAFETY: the kernel has filled in the control part that the header points to; the macros stay within
        // msg_controllen.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(message);
            let header = header.as_ref()?;
            if header.cmsg_level != libc::SOL_UDP || header.cmsg_type != libc::UDP_GRO {
                return None;
            }
            let size = libc::CMSG_DATA(header).cast::<libc::c_int>().read_unaligned();
            usize::try_from(size).ok().filter(|size| *size > 0)
        }
    }
}
