//! What stands in the ring for a loan.

/// Which part of the sender's memory is a message, and by which ticket it goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::channel) struct Slip {
    pub(in crate::channel) ticket: u32,
    pub(in crate::channel) offset: usize,
    pub(in crate::channel) bytes: usize,
}

impl Slip {
    /// Longer than an [`Offer`](crate::channel::desk::Offer), by which the receiver tells them apart.
    const BYTES: usize = 24;

    pub(super) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let words = [u64::from(self.ticket), self.offset as u64, self.bytes as u64];
        bytes.as_chunks_mut().0.iter_mut().zip(words).for_each(|(chunk, word)| *chunk = word.to_le_bytes());
        bytes
    }

    /// `None` is no slip.
    pub(in crate::channel) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (words, []) = bytes.as_chunks() else { return None };
        let [ticket, offset, bytes] = words else { return None };
        let number = |word: &[u8; 8]| u64::from_le_bytes(*word);
        Some(Self {
            ticket: u32::try_from(number(ticket)).ok()?,
            offset: usize::try_from(number(offset)).ok()?,
            bytes: usize::try_from(number(bytes)).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::desk::Offer;

    #[test]
    fn slips_survive_the_way_and_are_no_offers() {
        let slip = Slip { ticket: 63, offset: 1 << 40, bytes: 7 };
        assert_eq!(Slip::from_bytes(&slip.to_bytes()), Some(slip));
        assert_eq!(Offer::from_bytes(&slip.to_bytes()), None);
        assert_eq!(Slip::from_bytes(&Offer { number: 1, bytes: 2 }.to_bytes()), None);
        for len in [0, 8, 23, 25, 32] {
            assert_eq!(Slip::from_bytes(&vec![0; len]), None);
        }
        assert_eq!(Slip::from_bytes(&[0xff; 24]), None);
    }
}
