//! X11, X12, X13: a store that refuses, loses answers, hangs.

use super::*;

/// Each row's faults, and what it is called.
const ROWS: &[(&str, &str)] = &[
    ("x11: a tenth is refused", r#"[{"method":"*","action":"status:503","fraction":0.1}]"#),
    ("x11: all is refused", r#"[{"method":"*","action":"status:503"}]"#),
    (
        "x12: a third of the answers is lost",
        r#"[{"method":"PUT","action":"drop-answer","fraction":0.3}]"#,
    ),
    (
        "x13: some hang",
        r#"[{"method":"PUT","action":"hang","fraction":0.05},
            {"method":"GET","action":"hang","fraction":0.05}]"#,
    ),
    ("x13: all hang", r#"[{"method":"*","action":"hang"}]"#),
    ("x13: bodies are cut off", r#"[{"method":"*","action":"reset","fraction":0.2}]"#),
];

#[test]
fn x11_x12_x13_the_store_refuses_loses_answers_and_hangs() -> anyhow::Result<()> {
    let mut lab = Lab::start(Shape { bucket: true, ..Shape::default() })?;
    let mut load = Load::start(&mut lab, &LoadShape { steady: 2, ..shape() })?;
    for (row, faults) in ROWS {
        let from = load.now();
        lab.store().fail(faults)?;
        sleep(if full() { Duration::from_secs(20) } else { millis(900) });
        lab.store().fail("[]")?;
        let worked = load.progress()?;
        println!("{row}: works after {worked:?}, pause {:?}", load.longest_pause(from));
        lab.all_running()?;
    }
    let counted = lab.store().counters()?;
    ensure!(0 < counted["faults"].as_u64().unwrap_or(0), "no fault happened: {counted}");
    println!("{:?}", load.finish(&mut lab, &FOUNDERS)?);
    Ok(())
}
