//! Whether a file that stands where the schedules are kept is one of ours. Pure.

use super::REGIONS_MAX;
use super::head::is_begun;
use super::layout::REGION_BYTES;

/// More is never read of such a file, and never written.
pub(super) const BYTES_MAX: usize = REGIONS_MAX * REGION_BYTES;

/// Whether a file of this `length` that begins with `bytes` can be ours, however damaged: what is torn
/// has its regions' length or one of their beginnings left, and an empty file has nothing to lose.
pub(super) fn is_ours(bytes: &[u8], length: u64) -> bool {
    let has_our_length = length <= BYTES_MAX as u64 && length.is_multiple_of(REGION_BYTES as u64);
    has_our_length
        || bytes.chunks(REGION_BYTES).any(is_begun)
        || (length <= BYTES_MAX as u64 && bytes.iter().all(|byte| *byte == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8]) -> bool {
        is_ours(&bytes[..bytes.len().min(BYTES_MAX)], bytes.len() as u64)
    }

    #[test]
    fn a_file_of_ours_stays_ours_however_it_is_torn() {
        let mut whole = vec![7; 3 * REGION_BYTES];
        for at in [0, REGION_BYTES] {
            whole[at..at + 8].copy_from_slice(b"dp-sched");
        }
        for length in [0, 8, 9, REGION_BYTES - 1, REGION_BYTES, 2 * REGION_BYTES + 1] {
            assert!(check(&whole[..length]), "{length}");
        }
        // Killed while it began a region; and the second region's beginning is enough.
        whole[..8].fill(0);
        assert!(check(&whole) && check(&whole[..whole.len() - 1]));
        assert!(check(&[0; 1000]), "blocks that the system lost");
    }

    #[test]
    fn what_has_neither_our_length_nor_our_beginning_is_somebody_elses() {
        for other in [&b"x"[..], b"version: 1\n", b"dp-schem", &[0, 0, 1], &[9; REGION_BYTES + 1]] {
            assert!(!check(other), "{} bytes", other.len());
        }
        assert!(!check(&vec![9; BYTES_MAX + REGION_BYTES]), "ours is never so long");
        assert!(!check(&vec![0; BYTES_MAX + REGION_BYTES]), "nor is it a disk's image");
    }
}
