//! X25 and bad input: who belongs to the group while links are cut, and who does not.

use super::*;

/// Lets a new node at `place` join, makes it a voter, and removes the one at `old`, whose id is its
/// place. Returns the new node's id.
pub fn replace(lab: &mut Lab, old: u64, place: u64) -> anyhow::Result<u64> {
    let id = join(lab, place)?;
    remove(lab, old)?;
    let status = lab.operate(&["status"])?;
    let voters = status.lines().filter(|line| line.contains(" voter ")).count();
    ensure!(voters == 3, "three voters are left:\n{status}");
    Ok(id)
}

/// Removes a voter. An outcome that is not known, as when the leader changed meanwhile, is looked up.
fn remove(lab: &mut Lab, id: u64) -> anyhow::Result<()> {
    let name = id.to_string();
    // Its own status would not say so: a node that is out is told nothing any more.
    lab.until("the node is no voter any more", |lab| {
        let removed = lab.operate(&["remove-voter", &name]);
        removed.is_err_and(|error| error.to_string().contains("is not in the group"))
    })
}

/// Lets a new node at `place` join and makes it a voter.
fn join(lab: &mut Lab, place: u64) -> anyhow::Result<u64> {
    let at = lab.leader()?;
    lab.add_node(place)?;
    lab.join(place, at)?;
    let mut id = None;
    lab.until("the node was admitted", |lab| {
        let log = lab.log(Server::Node(place));
        let rest = log.split_once("joined cluster ").and_then(|(_, rest)| rest.split_once("node "));
        id = rest.and_then(|(_, id)| id.split(':').next()?.parse::<u64>().ok());
        id.is_some()
    })?;
    let id = id.context("it was just found")?;
    // Until it caught up, it is refused as a voter.
    lab.until("the node is a voter", |lab| lab.operate(&["add-voter", &id.to_string()]).is_ok())?;
    Ok(id)
}

#[test]
fn x25_voters_change_while_a_link_is_cut() -> anyhow::Result<()> {
    let Some(mut lab) = with_links(Shape::default())? else { return Ok(()) };
    let mut load = Load::start(&mut lab, &shape())?;
    let [lost, stays] = lab.followers()?;
    let leader = lab.leader()?;
    let others = [Server::Node(leader), Server::Node(stays)];
    lab.isolate(Server::Node(lost), &others, Cut::Drop)?;
    let id = replace(&mut lab, lost, 4)?;
    println!("node {id} for node {lost}: works within {:?}", load.progress()?);
    // The one that is out hears of it late, and must not disturb.
    let (before, from) = (lab.status(stays, false).context("it answers")?.term, load.now());
    lab.network.heal()?;
    sleep(millis(1500));
    tell("the removed node is back", vec![load.longest_pause(from)]);
    println!("works within {:?}", load.progress()?);
    let after = lab.status(stays, false).context("it answers")?.term;
    ensure!(before == after, "a node that was removed made the group elect: {before} to {after}");
    lab.kill(Server::Node(lost))?;
    // Two are left, and both are needed: the link between them is whole.
    let from = load.now();
    remove(&mut lab, leader)?;
    println!("the leader is out: works within {:?}", load.progress()?);
    tell("the leader removed itself", vec![load.longest_pause(from)]);
    lab.kill(Server::Node(leader)).ok(); // It may have ended by itself.
    println!("{:?}", load.finish(&mut lab, &[stays, 4])?);
    Ok(())
}

#[test]
fn strangers_stay_out_and_are_told_why() -> anyhow::Result<()> {
    let mut lab = Lab::start(Shape::default())?;
    let mut load = Load::start(&mut lab, &shape())?;
    let from = load.now();
    for place in 4..=6 {
        lab.add_node(place)?;
    }
    let address = |lab: &Lab, place| lab.address(Server::Node(place)).to_string();
    let founders = |lab: &Lab, first: u64, third: u64| {
        let (one, two) = (address(lab, first), address(lab, 2));
        format!("1={one},2={two},3={}", address(lab, third))
    };
    // Of another cluster: it found an empty bucket, and our nodes as its peers.
    let bucket = format!("file:{}", lab.path("other").display());
    let mut command = lab.command_over(Server::Node(4), &bucket)?;
    command.args(["--id", "1", "--voters", &founders(&lab, 4, 3)]);
    lab.launch_as(Server::Node(4), command)?;
    lab.says(Server::Node(4), "is of cluster")?;
    // Under an id that is taken, on a folder of its own.
    let mut command = lab.command(Server::Node(5))?;
    command.args(["--id", "2", "--voters", &founders(&lab, 1, 3)]);
    lab.launch_as(Server::Node(5), command)?;
    lab.says(Server::Node(5), "was started on another --data folder")?;
    // At an address where no metadata node listens.
    let mut command = lab.command(Server::Node(6))?;
    command.args(["--join", &lab.address(Server::Agent(0)).to_string()]);
    lab.launch_as(Server::Node(6), command)?;
    lab.says(Server::Node(6), "cannot join yet")?;
    // On a folder that is in use.
    let mut command = lab.command(Server::Node(6))?;
    command.arg("--join").arg(address(&lab, 1));
    let said = command.output()?;
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    ensure!(said.contains("is in use by process"), "it says {said:?}");
    for place in 4..=6 {
        lab.kill(Server::Node(place))?;
    }
    tell("strangers came", vec![load.longest_pause(from)]);
    let status = lab.operate(&["status"])?;
    let members = status.lines().filter(|line| line.contains(" voter ")).count();
    ensure!(members == 3 && !status.contains("learner"), "the group is as it was:\n{status}");
    println!("{:?}", load.finish(&mut lab, &FOUNDERS)?);
    Ok(())
}
