//! Members that stand still for longer than their session, and go on as if nothing had happened.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::world::{PATIENCE, World};

/// Stops `paused` with records that they read and did not commit, until `stays` has everything, and
/// lets them go on: what they commit then is refused, and they join again. Returns how long they
/// were waited for.
///
/// # Errors
/// A late commit is taken, a record is consumed twice or not, or someone does not come back.
pub fn late_commits_are_refused(
    world: &mut World,
    stays: usize,
    paused: &[usize],
) -> anyhow::Result<Duration> {
    paused.iter().try_for_each(|index| world.members[*index].hold())?;
    world.produce("held")?;
    paused.iter().try_for_each(|index| world.members[*index].says("holding "))?;
    paused.iter().try_for_each(|index| world.members[*index].signal("STOP"))?;
    let took = world.settled(&[stays])?;
    world.consumed_once()?;
    world.produce("alone")?;
    world.consumed_once()?;
    let committed = world.all_committed()?;

    for index in paused {
        world.members[*index].go_on()?;
        world.members[*index].signal("CONT")?;
    }
    paused.iter().try_for_each(|index| world.members[*index].says("refused "))?;
    for index in paused {
        eprintln!("{}", world.members[*index].told_of_refusal());
    }
    let everybody = [&[stays], paused].concat();
    let deadline = Instant::now() + PATIENCE;
    while !world.is_settled(&everybody) {
        let now = world.described()?.committed;
        ensure!(now == committed, "a late commit was taken: {now:?} instead of {committed:?}");
        ensure!(Instant::now() < deadline, "who stood still does not come back");
    }
    world.consumed_once()?;
    let now = world.described()?.committed;
    ensure!(now == committed, "a late commit was taken: {now:?} instead of {committed:?}");
    world.produce("again")?;
    world.consumed_once()?;
    world.all_committed()?;
    Ok(took)
}
