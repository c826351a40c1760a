//! X18, X19, X24: metadata disks that fill up, bits that flip, nodes that need a snapshot.

use super::*;

/// Half a segment of the log: behind it the next one is made.
const HALF_A_SEGMENT_MIB: usize = 9;
/// After so much a node takes a snapshot.
const SNAPSHOT_MIB: usize = 70;

/// Whether the disks of nodes can be memory of a given size.
fn with_disks(mib: u32) -> anyhow::Result<Option<Lab>> {
    match Lab::start(Shape { disk_mib: Some(mib), ..Shape::default() }) {
        Err(error) if error.to_string().contains("\"mount\"") => {
            println!("SKIPPED: it needs small disks: {error}");
            Ok(None)
        }
        lab => lab.map(Some),
    }
}

#[test]
fn x18_a_metadata_disk_is_full() -> anyhow::Result<()> {
    let Some(mut lab) = with_disks(100)? else { return Ok(()) };
    let mut load = Load::start(&mut lab, &shape())?;
    let pump = Pump::new(&mut lab)?;
    let leader = lab.leader()?;
    let filling = lab.fill_disk(leader)?;
    // What is refused meanwhile was refused by the node that hands over.
    pump.bytes(HALF_A_SEGMENT_MIB).ok();
    lab.says(Server::Node(leader), "the metadata disk is full")?;
    lab.until("another node leads", |lab| {
        lab.status(leader, false)
            .is_some_and(|status| status.leader.is_some_and(|now| now != leader))
    })?;
    println!("one full disk of three: works within {:?}", load.progress()?);
    let others = FOUNDERS.into_iter().filter(|place| *place != leader);
    let mut fillings = vec![filling];
    for place in others {
        fillings.push(lab.fill_disk(place)?);
    }
    // Two of three are enough: the third then gets nothing any more that could fill it.
    let is_full = |lab: &Lab, node| lab.log(node).contains("the metadata disk is full");
    lab.until("a majority's disks are full", |lab| {
        let refused = pump.bytes(HALF_A_SEGMENT_MIB).is_err();
        refused && 2 <= NODES.into_iter().filter(|node| is_full(lab, *node)).count()
    })?;
    sleep(millis(500)); // What was committed is told.
    let from = load.now();
    sleep(if full() { Duration::from_secs(60) } else { millis(1000) });
    ensure!(load.acks_since(from) == 0, "acknowledged without room for it");
    lab.all_running()?;
    serves_what_it_knows(&lab, 0)?;
    for filling in fillings {
        fs::remove_file(filling)?;
    }
    println!("room again: works within {:?}", load.progress()?);
    for node in NODES.into_iter().filter(|node| is_full(&lab, *node)).collect::<Vec<_>>() {
        lab.says(node, "has space again")?;
    }
    println!("{:?}", load.finish(&mut lab, &FOUNDERS)?);
    Ok(())
}

#[test]
fn x19_a_bit_flips_in_the_log_of_a_minority() -> anyhow::Result<()> {
    let mut lab = Lab::start(Shape::default())?;
    let mut load = Load::start(&mut lab, &shape())?;
    settled();
    let (leader, [damaged, sound]) = (lab.leader()?, lab.followers()?);
    lab.kill(Server::Node(damaged))?;
    disk::flip_a_bit_of_the_log(&lab.data(damaged))?;
    lab.launch(Server::Node(damaged))?;
    lab.until("the damaged node stays out", |lab| !lab.is_running(Server::Node(damaged)))?;
    let said = lab.log(Server::Node(damaged));
    let last = said.lines().last().unwrap_or_default();
    ensure!(last.contains("damaged") && last.contains("replace the node"), "it says {last:?}");
    println!("it says {last:?}");
    println!("the others work within {:?}", load.progress()?);
    lab.until("the other one leads", |lab| {
        lab.operate(&["transfer-leader", &sound.to_string()]).ok();
        lab.status(sound, false).is_some_and(|status| status.leader == Some(sound))
    })?;
    println!("under another leader, too, within {:?}", load.progress()?);
    // What it says is what helps: a new node in its place.
    lab.kill(Server::Node(damaged))?;
    members::replace(&mut lab, damaged, 4)?;
    println!("{:?}", load.finish(&mut lab, &[leader, sound, 4])?);
    Ok(())
}

#[test]
fn x24_a_node_that_was_away_too_long_installs_a_snapshot_under_load() -> anyhow::Result<()> {
    let Some(mut lab) = with_disks(300)? else { return Ok(()) };
    let mut load = Load::start(&mut lab, &shape())?;
    let pump = Pump::new(&mut lab)?;
    let [late, other] = lab.followers()?;
    lab.kill(Server::Node(late))?;
    // The entries kept behind a snapshot must not reach back to where the node left.
    pump.entries(1500)?;
    pump.bytes(SNAPSHOT_MIB)?;
    lab.until("the others took snapshots", |lab| disk::snapshot(&lab.data(other)).is_some())?;
    lab.until("the leader forgot what the node misses", |lab| {
        let Ok(leader) = lab.leader() else { return false };
        lab.status(leader, false).is_some_and(|status| status.purged_index.is_some())
    })?;
    let from = load.now();
    lab.launch(Server::Node(late))?;
    lab.until("the node installed a snapshot", |lab| disk::snapshot(&lab.data(late)).is_some())?;
    lab.agree_roughly(&FOUNDERS)?;
    tell("a snapshot was installed", vec![load.longest_pause(from)]);
    println!("works within {:?}", load.progress()?);
    // The same file, damaged: the node stays out, and says so.
    lab.kill(Server::Node(late))?;
    disk::flip_a_bit_of_the_snapshot(&lab.data(late))?;
    lab.launch(Server::Node(late))?;
    lab.until("the damaged node stays out", |lab| !lab.is_running(Server::Node(late)))?;
    let said = lab.log(Server::Node(late));
    let last = said.lines().last().unwrap_or_default();
    ensure!(last.contains("snapshot") && last.contains("damaged"), "it says {last:?}");
    println!("it says {last:?}");
    println!("the others work within {:?}", load.progress()?);
    lab.kill(Server::Node(late))?;
    let sound: Vec<u64> = FOUNDERS.into_iter().filter(|place| *place != late).collect();
    println!("{:?}", load.finish(&mut lab, &sound)?);
    Ok(())
}
