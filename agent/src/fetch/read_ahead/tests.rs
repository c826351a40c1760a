//! Laws of the window.

use aquifer_storage::model::{Lineage, ObjectName, ObjectSeq, OffsetRange, SessionId, Timestamp};
use proptest::prelude::*;

use super::*;

fn offset(value: i64) -> Offset {
    Offset::new(value).expect("not negative")
}

/// Rows of ten records, each in an object of its own, with these lengths.
fn rows(lengths: &[u32]) -> Vec<Run> {
    let lineage = Lineage { number: 0, nonce: 1 };
    let row = |(place, length): (usize, &u32)| Run {
        offsets: OffsetRange {
            base: offset(place as i64 * 10),
            next: offset(place as i64 * 10 + 10),
        },
        object: ObjectName {
            lineage,
            session: SessionId::new(1),
            seq: ObjectSeq::new(place as u64),
            merged: false,
        },
        object_bytes: 1 << 40,
        position: 5,
        length: *length,
        max_timestamp: Timestamp::NONE,
        offsets_final: false,
    };
    lengths.iter().enumerate().map(row).collect()
}

/// Of a reader that was given what lies below `next`.
fn begun(next: i64) -> Window {
    let mut window = Window::default();
    window.read(offset(0), offset(next), 1);
    window
}

#[test]
fn the_window_opens_when_a_reader_goes_on_and_doubles_up_to_its_limit() {
    let mut window = Window::default();
    window.read(offset(3), offset(0), 1);
    assert_eq!(window.bytes(), 0, "one answer is no scan");
    let mut widths = Vec::new();
    for n in 0..9 {
        window.read(offset(n), offset(n + 1), 1);
        widths.push(window.bytes() >> 10);
    }
    assert_eq!(widths, [512, 1024, 2048, 4096, 8192, 16384, 32768, 32768, 32768]);
}

#[test]
fn the_window_is_twice_the_answer_at_least() {
    let mut window = begun(0);
    window.read(offset(0), offset(1), 8 << 20);
    assert_eq!(window.bytes(), 16 << 20);
    window.read(offset(1), offset(2), u64::MAX);
    assert_eq!(window.bytes(), WINDOW_BYTES_MAX);
}

#[test]
fn a_seek_closes_the_window_before_its_answer_is_made() {
    let mut window = begun(0);
    window.read(offset(0), offset(10), 8 << 20);
    for elsewhere in [0, 9, 11, 1000] {
        assert_eq!(window.bytes_at(offset(elsewhere)), 0);
        let mut window = window;
        window.read(offset(elsewhere), offset(elsewhere + 1), 8 << 20);
        assert!(window.bytes() == 0 && window.goes_on_at(offset(elsewhere + 1)));
        window.read(offset(elsewhere + 1), offset(elsewhere + 2), 1);
        assert_eq!(window.bytes(), WINDOW_BYTES_MIN, "it goes on from there");
    }
    assert_eq!(window.bytes_at(offset(10)), 16 << 20);
}

#[test]
fn a_closed_window_names_nothing_but_what_the_answer_needs() {
    let rows = rows(&[100; 5]);
    assert_eq!(wanted_ranges(&rows, offset(10), offset(10), 0), []);
    // A reader within a row comes back to it.
    let wanted = wanted_ranges(&rows, offset(14), offset(14), 0);
    assert_eq!(wanted.len(), 1);
    assert_eq!((wanted[0].object, wanted[0].is_due), (rows[1].object, true));
}

proptest! {
    #[test]
    fn what_is_named_is_the_rows_in_order_and_the_window_at_most(
        lengths in prop::collection::vec(1_u32..5_000_000, 0..30),
        from in 0_i64..350, due in 0_i64..350, window_bytes in 0_u64..WINDOW_BYTES_MAX,
    ) {
        let rows = rows(&lengths);
        let wanted = wanted_ranges(&rows, offset(from), offset(due), window_bytes);
        let (first, due) = (from as usize / 10, due as usize);
        let mut ahead = 0;
        for (place, one) in wanted.iter().enumerate() {
            let run = &rows[first + place]; // No row is left out, and none is made up.
            prop_assert_eq!(one.object, run.object);
            prop_assert_eq!(one.range.start, u64::from(run.position));
            prop_assert_eq!(one.is_due, (first + place) * 10 < due);
            let bytes = one.range.end - one.range.start;
            prop_assert!(0 < bytes && bytes <= u64::from(run.length));
            prop_assert!(!one.is_due || bytes == u64::from(run.length));
            ahead += if one.is_due { 0 } else { bytes };
        }
        prop_assert!(ahead <= window_bytes);
        let all = rows.len().saturating_sub(first);
        let due_rows = due.div_ceil(10).min(rows.len()).saturating_sub(first);
        prop_assert!(due_rows <= wanted.len());
        prop_assert!(ahead == window_bytes || wanted.len() == all, "the window is used");
    }

    #[test]
    fn the_window_is_open_only_after_going_on_and_never_wider_than_its_limit(
        steps in prop::collection::vec((any::<bool>(), 1_i64..50, 0_u64..100_000_000), 0..40),
    ) {
        let (mut window, mut next) = (begun(1000), 1000);
        for (goes_on, step, bytes) in steps {
            let before = window;
            let from = next + if goes_on { 0 } else { step };
            next = from + step;
            window.read(offset(from), offset(next), bytes);
            prop_assert!(window.goes_on_at(offset(next)) && !window.goes_on_at(offset(from)));
            let widths = if goes_on { WINDOW_BYTES_MIN..=WINDOW_BYTES_MAX } else { 0..=0 };
            prop_assert!(widths.contains(&window.bytes()));
            prop_assert!(!goes_on || before.bytes() <= window.bytes());
        }
    }
}
