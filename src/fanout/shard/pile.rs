//! Frames one after the other, ready for one system call.

/// How much memory an empty pile keeps.
const KEPT: usize = 256 * 1024;

/// Frames one after the other, ready to be sent.
#[derive(Debug, Default)]
pub(super) struct Pile {
    pub(super) bytes: Vec<u8>,
    /// Where each frame ends.
    ends: Vec<usize>,
}

impl Pile {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        // One large event must not cost its size for ever.
        self.bytes.shrink_to(KEPT);
        self.ends.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Where frame `n` begins.
    fn start(&self, n: usize) -> usize {
        n.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    /// The bytes of frames `from..to`.
    pub(super) fn frames(&self, from: usize, to: usize) -> &[u8] {
        &self.bytes[self.start(from)..self.start(to)]
    }

    /// Where `sent` bytes from frame `from` on end: after so many whole frames, and so many bytes of another.
    pub(super) fn split(&self, from: usize, sent: usize) -> (usize, usize) {
        let until = self.start(from) + sent;
        let whole = self.ends.partition_point(|&end| end <= until);
        (whole - from, until - self.start(whole))
    }
}
