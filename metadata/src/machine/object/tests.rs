//! Laws of objects.

use super::*;

const FIRST: Lineage = Lineage { number: 0, nonce: 7 };

fn name(session: u64, seq: u64) -> ObjectName {
    let (session, seq) = (SessionId::new(session), ObjectSeq::new(seq));
    ObjectName { lineage: FIRST, session, seq, merged: false }
}

fn row(name: ObjectName, condemned: Option<u64>) -> ObjectRow {
    ObjectRow { name, bytes: 1 << 40, live_runs: 0, condemned: condemned.map(LogIndex::new) }
}

/// Objects of two sessions in turn, one row each.
fn filled(count: u64) -> Objects {
    let mut objects = Objects::default();
    for seq in 0..count {
        let id = objects.intern(name(1 + seq % 2, seq), seq);
        objects.add_runs(id, 1);
    }
    objects
}

#[test]
fn new_objects_have_the_next_ids_across_pages_and_open_ones_are_found_again() {
    let mut objects = filled(1000);
    assert!(objects.iter().map(|(id, _)| id).eq((0..1000).map(ObjectId)));
    for seq in 0..1000_u32 {
        let name = name(1 + u64::from(seq) % 2, seq.into());
        assert_eq!(objects.intern(name, 0), ObjectId(seq));
        let known = objects.get(ObjectId(seq)).unwrap();
        assert_eq!((known.name, known.bytes, known.live_runs), (name, seq.into(), 1));
    }
    assert_eq!(objects.intern(name(3, 0), 0), ObjectId(1000));
}

#[test]
fn a_clone_sees_none_of_what_comes_later() {
    let mut objects = filled(300);
    let before: Vec<_> = objects.iter().collect();
    let snapshot = objects.clone();
    objects.add_runs(ObjectId(7), 5);
    objects.intern(name(1, 300), 0);
    objects.close(SessionId::new(2), (ObjectSeq::new(0), None), LogIndex::new(9));
    assert_eq!(snapshot.iter().collect::<Vec<_>>(), before);
    assert_eq!((snapshot.open().count(), objects.open().count()), (300, 151));
}

#[test]
fn closed_objects_are_condemned_once_no_row_names_them() {
    let mut objects = filled(4);
    assert_eq!(objects.remove_run(ObjectId(0)), Some(name(1, 0)));
    objects.close(SessionId::new(1), (ObjectSeq::new(0), Some(ObjectSeq::new(2))), at(5));
    objects.close(SessionId::new(2), (ObjectSeq::new(0), Some(ObjectSeq::new(3))), at(6));
    assert_eq!(objects.condemned().collect::<Vec<_>>(), [(at(5), ObjectId(0))]);
    assert!(objects.open().eq([ObjectId(2), ObjectId(3)]));
    assert_eq!(objects.remove_run(ObjectId(1)), Some(name(2, 1)));
    objects.condemn(ObjectId(1), at(8));
    objects.condemn(ObjectId(1), at(9));
    objects.condemn(ObjectId(2), at(9)); // A row names it.
    let garbage = [(at(5), ObjectId(0)), (at(8), ObjectId(1))];
    assert_eq!(objects.condemned().collect::<Vec<_>>(), garbage);
    let told = objects.get(ObjectId(1)).unwrap();
    assert_eq!((told.live_runs, told.condemned), (0, Some(at(8))));
}

fn at(index: u64) -> LogIndex {
    LogIndex::new(index)
}

#[test]
fn scattered_ids_and_lineages_of_a_snapshot_come_back_as_they_were() {
    let other = Lineage { number: 1, nonce: 8 };
    let renamed = ObjectName { lineage: other, ..name(1, 0) };
    let merged = ObjectName { merged: true, ..name(1, 1) };
    let rows = [
        (ObjectId(0), row(name(1, 0), None)),
        (ObjectId(255), row(renamed, Some(u64::MAX))),
        (ObjectId(256), row(merged, None)),
        (ObjectId(u32::MAX), row(name(2, u64::MAX), Some(0))),
    ];
    let mut objects = Objects::default();
    rows.iter().rev().for_each(|(id, row)| objects.restore(*id, row));
    objects.restore_open(|name| name.lineage == FIRST && !name.merged);
    assert!(objects.iter().eq(rows));
    assert!(objects.open().eq([ObjectId(0), ObjectId(u32::MAX)]));
    assert_eq!(objects.get(ObjectId(1)), None);
    objects.restore_next_id(ObjectId(u32::MAX));
    assert_eq!(objects.intern(name(3, 0), 0), ObjectId(1), "the next free one, around the end");
    assert_eq!(objects.intern(name(1, 0), 0), ObjectId(0), "the lineage is part of the name");
}
