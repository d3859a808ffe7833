//! The bounds of regions, whatever is behind them: any range inside moves exactly its bytes, and any other moves none.

use onecopy::SysvName;
use onecopy::memory::Region;
use onecopy::memory::anonymous::AnonymousMapping;
use onecopy::memory::file_mapping::FileMapping;
use onecopy::memory::sysv_shm::SysvShm;
use proptest::prelude::*;

use crate::contents;
use crate::support::{Scratch, pattern};
use crate::sysv_shm::unused_name;

/// A region of `len` bytes of each kind: sealed, attached, checked by the kernel, and a file that is trusted.
fn regions(len: usize) -> Vec<Region> {
    let scratch = Scratch::new();
    let file = scratch.path("file");
    let name: SysvName = unused_name();
    let segment = SysvShm::create(&name, len, 0o600).unwrap();
    segment.remove().unwrap();
    let checked = FileMapping::create(&file, len, 0o600).unwrap();
    let trusted = FileMapping::create(&scratch.path("trusted"), len, 0o600).unwrap();
    let sealed = AnonymousMapping::create("bounds", len).unwrap();
    vec![
        sealed.into_region(),
        segment.into_region(),
        checked.into_region(),
        trusted.into_region().trusting_its_length(),
    ]
}

fn write_and_compare(region: &Region, offset: usize, count: usize) -> Result<(), TestCaseError> {
    let len = region.len();
    let inside = offset.checked_add(count).is_some_and(|end| end <= len);
    let mut expected = pattern(len, 5);
    region.write_at(0, &expected).unwrap();
    let bytes = pattern(count, 6);
    match region.write_at(offset, &bytes) {
        Ok(()) => {
            prop_assert!(inside, "{}", region.object());
            expected[offset..offset + count].copy_from_slice(&bytes);
        }
        Err(error) => {
            prop_assert!(!inside, "{error}");
            let numbers = format!("write of {count} bytes at offset {offset} reaches beyond its {len} bytes");
            prop_assert_eq!(error.to_string(), format!("{}: {numbers}", region.object()));
        }
    }
    prop_assert_eq!(contents(region), expected.clone());
    let mut part = vec![0xee; count];
    match region.read_at(offset, &mut part) {
        Ok(()) => prop_assert_eq!(&part[..], &expected[offset..offset + count]),
        Err(_) => prop_assert!(!inside && part.iter().all(|&byte| byte == 0xee)),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn no_range_reaches_outside(
        len in 1_usize..=9000,
        offset in prop_oneof![0_usize..=9100, Just(usize::MAX), any::<usize>()],
        count in 0_usize..=9100,
    ) {
        for region in regions(len) {
            write_and_compare(&region, offset, count)?;
        }
    }
}
