//! Choices that one number decides: what is generated can be made again.

/// A source of choices.
pub(crate) struct Choices(pub(crate) u64);

impl Choices {
    /// A number below another.
    pub(crate) fn next(&mut self, below: usize) -> usize {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % below as u64).unwrap()
    }

    /// One of several things.
    pub(crate) fn one_of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.next(choices.len())].clone()
    }

    /// Yes, once in so many times.
    pub(crate) fn one_in(&mut self, chance: usize) -> bool {
        self.next(chance) == 0
    }
}
