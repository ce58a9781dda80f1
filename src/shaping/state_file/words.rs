//! Numbers as bytes, under a checksum. Pure.

use std::time::Duration;

/// With the checksum of all other words as the last one. A change of any one word changes it.
pub(super) fn sealed<const WORDS: usize>(mut words: [u64; WORDS], salt: u64) -> [u64; WORDS] {
    if let Some((last, others)) = words.split_last_mut() {
        *last = others.iter().fold(salt, |sum, word| mixed(sum, *word));
    }
    words
}

/// Another sum for another word.
pub(super) const fn mixed(sum: u64, word: u64) -> u64 {
    (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

/// Bytes beyond the words stay as they are.
pub(super) fn put_words(bytes: &mut [u8], words: &[u64]) {
    for (into, word) in bytes.chunks_exact_mut(8).zip(words) {
        into.copy_from_slice(&word.to_le_bytes());
    }
}

/// Missing bytes are zero.
pub(super) fn words_of<const WORDS: usize>(bytes: &[u8]) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = chunk.try_into().map_or(0, u64::from_le_bytes);
    }
    words
}

/// Nanoseconds, as far as they fit.
pub(super) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
