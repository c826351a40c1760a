//! X4, X5, X6: links that are cut, in one direction or both.

use super::*;

#[test]
fn x4_the_leader_is_cut_from_its_peers_but_not_from_agents() -> anyhow::Result<()> {
    let Some(mut lab) = with_links(Shape::default())? else { return Ok(()) };
    let mut load = Load::start(&mut lab, &shape())?;
    // Whether the leader's own messages, and those to it, are lost.
    for (mute, deaf, how) in [
        (true, true, Cut::Drop),
        (true, false, Cut::Drop),
        (false, true, Cut::Drop),
        (true, true, Cut::Reject),
    ] {
        settled();
        let (leader, followers, from) = (lab.leader()?, lab.followers()?, load.now());
        for other in followers.map(Server::Node) {
            if mute {
                lab.cut(Server::Node(leader), other, how)?;
            }
            if deaf {
                lab.cut(other, Server::Node(leader), how)?;
            }
        }
        let next = lab.leader_but(Some(leader))?;
        lab.until("the one that was cut off knows that it leads no more", |lab| {
            let status = lab.status(leader, false);
            status.is_some_and(|status| status.leader != Some(leader))
        })?;
        let worked = load.progress()?;
        sleep(if full() { Duration::from_secs(30) } else { millis(300) });
        let pause = load.longest_pause(from);
        println!("mute {mute} deaf {deaf} {how:?}: node {next} leads, {worked:?}, pause {pause:?}");
        lab.network.heal()?;
        load.progress()?;
        lab.agree_roughly(&FOUNDERS)?;
    }
    println!("{:?}", load.finish(&mut lab, &FOUNDERS)?);
    Ok(())
}

#[test]
fn x4_two_nodes_lose_each_other_and_keep_the_third() -> anyhow::Result<()> {
    let Some(mut lab) = with_links(Shape::default())? else { return Ok(()) };
    let mut load = Load::start(&mut lab, &shape())?;
    settled();
    let (leader, [one, other]) = (lab.leader()?, lab.followers()?);
    let from = load.now();
    lab.isolate(Server::Node(leader), &[Server::Node(one)], Cut::Drop)?;
    sleep(if full() { Duration::from_secs(60) } else { millis(2500) });
    println!("works within {:?}", load.progress()?);
    tell("leader and a follower lost each other", vec![load.longest_pause(from)]);
    let terms: Vec<_> = FOUNDERS.map(|place| lab.status(place, false).map(|s| s.term)).into();
    println!("leader {leader}, cut {one}, other {other}: terms {terms:?}");
    println!("{:?}", load.finish(&mut lab, &FOUNDERS)?);
    Ok(())
}

/// Clients of an agent that is cut off stay there as long as it answers; those of the others, and
/// those that do not wait, go on.
fn others_work(load: &mut Load) -> anyhow::Result<()> {
    let from = load.now();
    let deadline = Instant::now() + Duration::from_secs(30);
    while load.acks_since(from) < 20 {
        ensure!(Instant::now() < deadline, "{} acks in 30 s", load.acks_since(from));
        sleep(millis(20));
    }
    Ok(())
}

#[test]
fn x5_an_agent_is_cut_from_metadata() -> anyhow::Result<()> {
    let Some(mut lab) = with_links(Shape::default())? else { return Ok(()) };
    let mut load = Load::start(&mut lab, &LoadShape { steady: 2, ..shape() })?;
    for how in [Cut::Drop, Cut::Reject] {
        settled();
        lab.isolate(Server::Agent(0), &NODES, how)?;
        let end = Instant::now() + if full() { Duration::from_secs(12) } else { millis(1200) };
        while Instant::now() < end {
            serves_what_it_knows(&lab, 0).context("what it knows, it serves")?;
            sleep(millis(50));
        }
        others_work(&mut load)?;
        if full() {
            sleep(Duration::from_secs(8)); // Past the end of its session.
        }
        lab.network.heal()?;
        println!("{how:?}: healed, works within {:?}", load.progress()?);
        lab.ready(0)?;
    }
    println!("{:?}", load.finish(&mut lab, &FOUNDERS)?);
    Ok(())
}

#[test]
fn x6_an_agent_is_cut_from_the_store() -> anyhow::Result<()> {
    let shape_of_lab = Shape { bucket: true, ..Shape::default() };
    let Some(mut lab) = with_links(shape_of_lab)? else { return Ok(()) };
    let mut load = Load::start(&mut lab, &LoadShape { steady: 2, ..shape() })?;
    for how in [Cut::Drop, Cut::Reject] {
        settled();
        lab.isolate(Server::Agent(0), &[Server::Store], how)?;
        sleep(if full() { Duration::from_secs(60) } else { millis(1500) });
        serves_what_it_knows(&lab, 0).context("what is in its cache, it serves")?;
        others_work(&mut load)?;
        lab.network.heal()?;
        println!("{how:?}: healed, works within {:?}", load.progress()?);
    }
    println!("{:?}", load.finish(&mut lab, &FOUNDERS)?);
    Ok(())
}
