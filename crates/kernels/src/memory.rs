//! Memory for results.
//!
//! `unsafe` stands here for advice to the system about memory that is ours.

#![allow(unsafe_code)]

/// Bytes from which on it is worth asking for large pages: a few of them.
const LARGE: usize = 4 << 20;

/// `count` zeros for a result. Where they are many the system is asked for large pages: a fault for every 4 KiB costs more
/// than what many operations do with them.
pub(crate) fn zeros<T: Clone + Default>(count: usize) -> Vec<T> {
    let values = vec![T::default(); count];
    advise(&values);
    values
}

/// Asks for large pages, before `values` are first written.
#[cfg(target_os = "linux")]
fn advise<T>(values: &[T]) {
    const PAGE: usize = 4096;
    let bytes = size_of_val(values);
    if bytes < LARGE {
        return;
    }
    let start = values.as_ptr() as usize;
    let (first, end) = (start.next_multiple_of(PAGE), (start + bytes) / PAGE * PAGE);
    // SAFETY: the pages lie inside `values`, and the advice changes no value. A system that refuses it loses nothing.
    unsafe {
        libc::madvise(first as *mut libc::c_void, end - first, libc::MADV_HUGEPAGE);
    }
}

#[cfg(not(target_os = "linux"))]
fn advise<T>(_: &[T]) {
    let _ = LARGE;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_zero_whatever_their_size() {
        for count in [0, 1, 1000, LARGE / 4 + 3, LARGE] {
            let mut values: Vec<f32> = zeros(count);
            assert!(values.len() == count && values.iter().all(|v| *v == 0.0));
            values.fill(1.0);
        }
    }
}
