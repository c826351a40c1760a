//! The laws of a group whose members come and go, judged over what they wrote to a journal.
//!
//! A line is what one process knew at that moment, in order for each group. Who dies writes nothing
//! any more; its process may die as well, and its successor begins with `born`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail, ensure};

/// A member of a group, as its process numbers them.
type Member = u64;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    /// The process began: of an earlier one nobody is left.
    Born,
    Joins(Member),
    Assigned(Member, Vec<i32>),
    /// Given up while the member was in good standing.
    Revoked(Member, Vec<i32>),
    /// Given up because the member was told that it is out.
    Lost(Member, Vec<i32>),
    Dies(Member),
    Left(Member),
    /// The member was handed the records from the first offset up to the next.
    Read(Member, i32, i64, i64),
    /// The coordinator took a commit.
    Committed(i32, i64),
    /// Somebody asks what is committed.
    Asked,
    /// And is told.
    Seen(BTreeMap<i32, i64>),
    /// Nobody comes or goes from now on: so many members are left.
    Calm(usize),
    /// Said for whoever looks into a failure.
    Remark,
}

/// What came of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// The offset behind what was read of each partition, all of it from the beginning.
    pub read: BTreeMap<i32, i64>,
    /// Members that joined.
    pub joins: usize,
    /// Times that a partition changed hands.
    pub moves: usize,
    /// Members that were left at the end, once it came.
    pub calm: Option<usize>,
    /// Partitions that went on to another before their member was told that it is out.
    pub expired: usize,
    committed: BTreeMap<i32, i64>,
    floor: BTreeMap<i32, i64>,
    owners: BTreeMap<i32, BTreeSet<Member>>,
    overlaps: BTreeSet<(i32, Member)>,
}

impl Course {
    /// Takes the next event in, or says which law it breaks.
    fn take(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Born => {
                self.owners.clear();
                self.overlaps.clear();
            }
            Event::Joins(_) => self.joins += 1,
            Event::Assigned(member, partitions) => self.assigned(member, &partitions),
            Event::Revoked(member, partitions) => {
                for partition in partitions {
                    let overlapped = self.overlaps.contains(&(partition, member));
                    ensure!(!overlapped, "{member} holds {partition} while another does");
                    self.gone(member, partition);
                }
            }
            Event::Lost(member, partitions) => {
                for partition in partitions {
                    self.expired += usize::from(self.overlaps.contains(&(partition, member)));
                    self.gone(member, partition);
                }
            }
            Event::Dies(member) | Event::Left(member) => {
                let held: Vec<i32> = self.owners.keys().copied().collect();
                held.into_iter().for_each(|partition| self.gone(member, partition));
            }
            Event::Read(member, partition, first, next) => {
                let read = self.read.entry(partition).or_default();
                ensure!(first <= *read, "{member} reads {partition} at {first}, not at {read}");
                *read = next.max(*read);
            }
            Event::Committed(partition, next) => self.committed(partition, next)?,
            Event::Asked => self.floor.clone_from(&self.committed),
            Event::Seen(offsets) => self.seen(&offsets)?,
            Event::Calm(members) => self.calm = Some(members),
            Event::Remark => {}
        }
        Ok(())
    }

    fn assigned(&mut self, member: Member, partitions: &[i32]) {
        for partition in partitions {
            let owners = self.owners.entry(*partition).or_default();
            // They may have been told too late: a session ends before its member knows.
            self.overlaps.extend(owners.iter().map(|owner| (*partition, *owner)));
            owners.insert(member);
            self.moves += 1;
        }
    }

    fn gone(&mut self, member: Member, partition: i32) {
        self.overlaps.remove(&(partition, member));
        if let Some(owners) = self.owners.get_mut(&partition) {
            owners.remove(&member);
        }
    }

    fn committed(&mut self, partition: i32, next: i64) -> anyhow::Result<()> {
        let read = self.read.get(&partition).copied().unwrap_or_default();
        ensure!(next <= read, "{next} is committed of {partition}, {read} was read");
        let before = self.committed.insert(partition, next).unwrap_or_default();
        ensure!(before <= next, "{next} is committed of {partition} after {before}");
        Ok(())
    }

    fn seen(&mut self, offsets: &BTreeMap<i32, i64>) -> anyhow::Result<()> {
        for (partition, floor) in &self.floor {
            let now = offsets.get(partition).copied().unwrap_or(-1);
            ensure!(*floor <= now, "{now} is told of {partition}, {floor} had been committed");
        }
        for (partition, now) in offsets {
            let read = self.read.get(partition).copied().unwrap_or_default();
            ensure!(*now <= read, "{now} is told of {partition}, {read} was read");
        }
        Ok(())
    }

    /// The last word on a group that had all the time it needed: who was out knows it by now.
    ///
    /// # Errors
    /// A partition still has two owners.
    pub fn over(&self) -> anyhow::Result<()> {
        for (partition, owners) in &self.owners {
            ensure!(owners.len() < 2, "{owners:?} hold {partition} at the end");
        }
        Ok(())
    }
}

/// Judges the journal of a process, group by group.
///
/// # Errors
/// A law is broken, or a line is not one.
pub fn judge(journal: &str) -> anyhow::Result<BTreeMap<String, Course>> {
    let mut courses: BTreeMap<String, Course> = BTreeMap::new();
    // The last line may be half of one: its process was killed.
    let whole = journal.rfind('\n').map_or("", |end| &journal[..end]);
    for (place, line) in whole.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = || format!("line {}: {line}", place + 1);
        let [_, group, kind, about @ ..] = &words[..] else { bail!(at()) };
        let event = event(kind, about).with_context(at)?;
        courses.entry((*group).to_owned()).or_default().take(event).with_context(at)?;
    }
    Ok(courses)
}

fn event(kind: &str, about: &[&str]) -> anyhow::Result<Event> {
    let member = || about.first().context("a member")?.parse::<Member>().context("a member");
    let number = |place: usize| -> anyhow::Result<i64> {
        Ok(about.get(place).context("a number")?.parse()?)
    };
    let partition = |place| anyhow::Ok(i32::try_from(number(place)?)?);
    let partitions = || -> anyhow::Result<Vec<i32>> {
        let list = about.get(1).context("partitions")?.split(',');
        list.map(|one| one.parse().context("a partition")).collect()
    };
    Ok(match kind {
        "born" => Event::Born,
        "joins" => Event::Joins(member()?),
        "assigned" => Event::Assigned(member()?, partitions()?),
        "revoked" => Event::Revoked(member()?, partitions()?),
        "lost" => Event::Lost(member()?, partitions()?),
        "dies" => Event::Dies(member()?),
        "left" => Event::Left(member()?),
        "read" => Event::Read(member()?, partition(1)?, number(2)?, number(3)?),
        "committed" => Event::Committed(partition(1)?, number(2)?),
        "asked" => Event::Asked,
        "seen" => Event::Seen(seen(about.first().copied().unwrap_or_default())?),
        "calm" => Event::Calm(usize::try_from(number(0)?)?),
        "leaves" | "unsure" | "refused" => Event::Remark,
        _ => bail!("no event {kind}"),
    })
}

fn seen(list: &str) -> anyhow::Result<BTreeMap<i32, i64>> {
    let pairs = list.split(',').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (partition, offset) = pair.split_once(':').context("partition and offset")?;
            Ok((partition.parse()?, offset.parse()?))
        })
        .collect()
}

/// A journal of one group, judged.
fn told(lines: &str) -> anyhow::Result<Course> {
    let journal: String =
        lines.split(';').map(|line| format!("7 group {}\n", line.trim())).collect();
    Ok(judge(&journal)?.remove("group").expect("its lines name it"))
}

fn broken(lines: &str) -> String {
    format!("{:#}", told(lines).expect_err("a law is broken"))
}

#[test]
fn a_group_that_hands_its_partitions_on_breaks_no_law() -> anyhow::Result<()> {
    let course = told(
        "born; joins 1; assigned 1 0,1; read 1 0 0 5; committed 1 0 5; asked; seen 0:5; joins 2;
         revoked 1 1; assigned 2 1; read 2 1 0 3; read 2 1 3 4; dies 2; assigned 1 1; read 1 1 0 4;
         committed 1 1 4; asked; committed 1 0 5; seen 0:5,1:4; leaves 1; revoked 1 0,1; left 1; calm 0",
    )?;
    assert_eq!(course.read, BTreeMap::from([(0, 5), (1, 4)]));
    assert_eq!((course.joins, course.moves, course.calm), (2, 4, Some(0)));
    Ok(())
}

#[test]
fn who_was_told_too_late_that_it_is_out_is_no_second_owner() -> anyhow::Result<()> {
    let course = told("assigned 1 0; assigned 2 0; lost 1 0; revoked 2 0")?;
    assert_eq!(course.expired, 1);
    told("assigned 1 0; assigned 2 0; dies 1; revoked 2 0")?;
    told("assigned 1 0; born; assigned 1 0; revoked 1 0")?;
    Ok(())
}

#[test]
fn two_owners_a_gap_and_offsets_that_go_back_or_ahead_are_found() {
    let two = "holds 0 while another does";
    assert!(broken("assigned 1 0; assigned 2 0; revoked 1 0").contains(two));
    let last = told("assigned 1 0; assigned 2 0").expect("one of them may be told yet");
    assert!(last.over().expect_err("nobody was").to_string().contains("at the end"));
    assert!(broken("read 1 0 0 5; read 1 0 6 7").contains("at 6, not at 5"));
    assert!(broken("read 1 0 1 5").contains("at 1, not at 0"));
    let read = "read 1 0 0 9";
    assert!(broken(&format!("{read}; committed 1 0 10")).contains("9 was read"));
    assert!(
        broken(&format!("{read}; committed 1 0 5; committed 2 0 4")).contains("4 is committed")
    );
    let committed = format!("{read}; committed 1 0 5");
    assert!(broken(&format!("{committed}; asked; seen 0:4")).contains("5 had been committed"));
    assert!(broken(&format!("{committed}; asked; seen ")).contains("-1 is told"));
    assert!(broken(&format!("{committed}; asked; seen 0:10")).contains("9 was read"));
}
