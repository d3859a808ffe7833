//! A message that lies in several parts: where its bytes are, for calls that take a few ranges at a time.

use std::io::IoSlice;
use std::ops::Range;

use nix::errno::Errno;
use nix::sys::uio::RemoteIoVec;

/// The most parts of a message that is copied once: the receiver makes a list of them. One of more parts goes through the ring.
pub(super) const MOST_PARTS: usize = 1024;
/// How many ranges one system call is given.
pub(super) const RANGES: usize = 16;
/// How long one entry of the sender's own list is: `struct iovec`, an address and a length of 8 bytes each.
pub(super) const ENTRY_BYTES: usize = 16;

const _: () = assert!(size_of::<IoSlice<'_>>() == ENTRY_BYTES);

/// The length of a message; `None` when there is no such number.
pub(super) fn total(parts: &[IoSlice<'_>]) -> Option<usize> {
    parts.iter().try_fold(0, |sum: usize, part| sum.checked_add(part.len()))
}

/// The parts that lie at `wanted` of a message, and which of the bytes of each do.
fn at<T>(parts: impl Iterator<Item = (T, usize)>, wanted: Range<usize>) -> impl Iterator<Item = (T, Range<usize>)> {
    let mut begin = 0;
    let placed = parts.map(move |(part, len)| {
        let from = begin;
        begin += len;
        (part, from, begin)
    });
    let (start, end) = (wanted.start, wanted.end);
    placed
        .skip_while(move |(_, _, to)| *to <= start)
        .take_while(move |(_, from, _)| *from < end)
        .map(move |(part, from, to)| (part, start.max(from) - from..end.min(to) - from))
        .filter(|(_, range)| !range.is_empty())
}

/// Fills `ranges` with what lies at `wanted`, as far as there is room, and returns how many that took.
pub(super) fn own<'a>(parts: &'a [IoSlice<'_>], wanted: Range<usize>, ranges: &mut [IoSlice<'a>]) -> usize {
    let found = at(parts.iter().map(|part| (part, part.len())), wanted).zip(ranges);
    found.map(|((part, range), target)| *target = IoSlice::new(&part[range])).count()
}

/// Where a message lies in its sender's memory, checked for nothing but its length.
#[derive(Debug)]
pub(super) enum Place {
    /// At this address.
    Whole(u64),
    /// In these ranges, one after the other, which are as long together as the message.
    Parts(Vec<RemoteIoVec>),
}

impl Place {
    /// The ranges of a list of the sender's, if they are `bytes` long together.
    pub(super) fn of_list(list: &[u8], bytes: usize) -> Result<Self, Errno> {
        let word = |bytes: &[u8; 8]| u64::from_ne_bytes(*bytes) as usize;
        let parts: Vec<_> = list
            .as_chunks::<8>()
            .0
            .chunks_exact(2)
            .map(|entry| RemoteIoVec { base: word(&entry[0]), len: word(&entry[1]) })
            .collect();
        match parts.iter().try_fold(0, |sum: usize, part| sum.checked_add(part.len)) {
            Some(sum) if sum == bytes => Ok(Self::Parts(parts)),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Fills `ranges` with where `wanted` lies, as far as there is room; returns how many ranges that took, and how long they are.
    pub(super) fn remote(&self, wanted: Range<usize>, ranges: &mut [RemoteIoVec]) -> (usize, usize) {
        let parts = match self {
            Self::Whole(address) => {
                ranges[0] = RemoteIoVec { base: (*address as usize).wrapping_add(wanted.start), len: wanted.len() };
                return (1, wanted.len());
            }
            Self::Parts(parts) => parts,
        };
        let found = at(parts.iter().map(|part| (part, part.len)), wanted).zip(ranges);
        found.fold((0, 0), |(count, bytes), ((part, range), target)| {
            *target = RemoteIoVec { base: part.base.wrapping_add(range.start), len: range.len() };
            (count + 1, bytes + range.len())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_of_a_message_is_found_in_its_parts() {
        let all: Vec<u8> = (0..60).collect();
        let parts = [&all[..10], &[], &all[10..11], &all[11..40], &[], &all[40..]].map(IoSlice::new);
        assert_eq!(total(&parts), Some(60));
        for start in 0..60 {
            for end in start..60 {
                let mut ranges = [IoSlice::new(&[]); 6];
                let count = own(&parts, start..end, &mut ranges);
                let found: Vec<u8> = ranges[..count].iter().flat_map(|range| range.to_vec()).collect();
                assert_eq!(found, all[start..end]);
                let list: Vec<u8> = parts
                    .iter()
                    .flat_map(|part| [part.as_ptr() as usize, part.len()])
                    .flat_map(usize::to_ne_bytes)
                    .collect();
                let place = Place::of_list(&list, 60).unwrap();
                let mut remote = [RemoteIoVec { base: 0, len: 0 }; 6];
                let (count, bytes) = place.remote(start..end, &mut remote);
                assert_eq!(bytes, end - start);
                let same = |(own, remote): (&IoSlice<'_>, &RemoteIoVec)| {
                    own.as_ptr() as usize == remote.base && own.len() == remote.len
                };
                assert!(ranges[..count].iter().zip(&remote).all(same));
            }
        }
        let mut two = [IoSlice::new(&[]); 2];
        assert_eq!(own(&parts, 0..60, &mut two), 2, "as many as there is room for");
    }

    #[test]
    fn a_list_that_cannot_be_is_refused() {
        let entry = |len: u64| [8_u64.to_ne_bytes(), len.to_ne_bytes()].as_flattened().to_vec();
        let lists = [entry(10), [entry(10), entry(1)].concat(), [entry(u64::MAX), entry(11)].concat(), vec![]];
        assert!(lists.iter().all(|list| Place::of_list(list, 9).is_err()));
        assert!(Place::of_list(&[entry(4), entry(0), entry(5)].concat(), 9).is_ok());
    }
}
