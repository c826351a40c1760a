//! Laws of settings.

use aquifer_metadata::{machine::group::GroupSettings, node::expiry::OffsetExpiry};
use clap::Parser;

use super::*;

fn flags(arguments: &[&str]) -> Flags {
    let cli = Cli::parse_from(std::iter::once(&"aquifer").chain(arguments));
    match cli.role {
        None => cli.flags,
        Some(Role::Up(flags) | Role::Metadata(flags) | Role::Agent(flags)) => flags,
        Some(_) => panic!("a tool has no settings"),
    }
}

#[test]
fn plain_start_is_up_on_loopback_with_a_local_folder() {
    let settings = load(&flags(&[])).expect("defaults load");
    assert_eq!(settings.kafka.to_string(), "127.0.0.1:9092");
    assert_eq!(settings.http.to_string(), "127.0.0.1:9644");
    assert_eq!(settings.store_url(), "file:./aquifer-data/bucket");
}

#[test]
fn a_flag_beats_the_file_and_the_file_beats_the_default() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("aquifer.toml");
    std::fs::write(&path, "num_partitions = 7\nzone = 'a'\n[server]\n'flush.interval.ms' = 20\n")
        .expect("file is written");
    let path = path.to_str().expect("utf-8 path");
    let settings = load(&flags(&["--config", path, "--zone", "b"])).expect("loads");
    assert_eq!(settings.num_partitions, 7);
    assert_eq!(settings.zone.as_deref(), Some("b"));
    assert_eq!(settings.options.flush_interval_ms, 20);
}

#[test]
fn an_error_names_the_setting_and_its_source() {
    let error = load(&flags(&["--kafka", "nowhere"])).expect_err("not an address").to_string();
    assert!(error.contains("kafka"), "{error}");
    let error = load(&flags(&["-o", "flush.interval.ms=0"])).expect_err("below 1").to_string();
    assert!(error.contains("flush.interval.ms") && error.contains("-o"), "{error}");
    let error = load(&flags(&["-o", "log.dirs=/x"])).expect_err("not honoured").to_string();
    assert!(error.contains("log.dirs"), "{error}");
}

#[test]
fn listening_on_every_address_needs_an_advertised_one() {
    assert!(load(&flags(&["--kafka", "0.0.0.0:9092"])).is_err());
    let flags = flags(&["--kafka", "0.0.0.0:9092", "--advertise", "broker.example:9092"]);
    assert_eq!(load(&flags).expect("loads").advertised().host, "broker.example");
}

#[test]
fn sizes_take_units() {
    assert_eq!("512MiB".parse(), Ok(ByteSize(512 << 20)));
    assert_eq!("7".parse(), Ok(ByteSize(7)));
    assert!("7 parsecs".parse::<ByteSize>().is_err());
    assert!("99999999999GiB".parse::<ByteSize>().is_err());
}

#[test]
fn periods_take_units_and_a_range() {
    let keep = |text: &str| {
        load(&flags(&["-o", &format!("backup.keep={text}")]))
            .map(|settings| settings.options.backup_keep)
            .map_err(|error| error.to_string())
    };
    assert_eq!(keep("90m"), Ok(Duration::from_secs(5400)));
    assert_eq!(keep("7d"), Ok(Duration::from_secs(7 * 86_400)));
    assert_eq!(load(&flags(&[])).expect("loads").options.backup_keep, Duration::from_secs(3600));
    for wrong in ["", "90", "m", "1 h", "-1h", "1.5h", "99999999999999999999h", "500ms", "400d"] {
        let error = keep(wrong).expect_err(wrong);
        assert!(error.contains("backup.keep"), "{error}");
    }
}

#[test]
fn the_lag_of_groups_is_asked_for_now_and_then_or_never() {
    let interval = |text: &str| {
        load(&flags(&["-o", &format!("group.lag.interval={text}")]))
            .map(|settings| settings.options.group_lag_interval)
            .map_err(|error| error.to_string())
    };
    assert_eq!(interval("0s"), Ok(Duration::ZERO));
    assert_eq!(interval("100ms"), Ok(Duration::from_millis(100)));
    for wrong in ["0", "1ms", "2h"] {
        assert!(interval(wrong).expect_err(wrong).contains("group.lag.interval"), "{wrong}");
    }
}

#[test]
fn voters_are_named_once_each_with_an_id_and_an_address() {
    let voters = parse_voters("1=a:1, 2=b:1,3=c:1").expect("three voters");
    assert_eq!(voters[&2], "b:1");
    for wrong in ["", "1", "0=a:1", "100=a:1", "x=a:1", "1=a", "1=a:1,1=b:1", "1=a:1,2=a:1"] {
        assert!(parse_voters(wrong).is_err(), "{wrong:?}");
    }
    let many: Vec<String> = (1..=8).map(|id| format!("{id}=a:{id}")).collect();
    assert!(parse_voters(&many.join(",")).is_err());
}

#[test]
fn settings_of_groups_have_kafkas_names_and_are_shown_as_given() {
    let of = |given: &[&str]| {
        let options: Vec<&str> = given.iter().flat_map(|one| ["-o", one]).collect();
        load(&flags(&options)).map(|settings| settings.options)
    };
    let none = of(&[]).expect("loads");
    assert_eq!((none.group_limits, none.offset_expiry), (None, OffsetExpiry::default()));
    let limits = of(&["group.max.size=3"]).expect("loads").group_limits;
    assert_eq!(limits, Some(GroupSettings { max_size: 3, ..GroupSettings::default() }));
    let given = ["group.initial.rebalance.delay.ms=0", "offsets.retention.minutes=2"];
    let options = of(&given).expect("loads");
    assert_eq!(options.group_limits.map(|limits| limits.initial_rebalance_delay_ms), Some(0));
    let limits = of(&["group.min.session.timeout.ms=50", "group.max.session.timeout.ms=60000"]);
    let limits = limits.expect("loads").group_limits.expect("given");
    assert_eq!((limits.session_timeout_min_ms, limits.session_timeout_max_ms), (50, 60_000));
    assert_eq!(options.offset_expiry.retention, Duration::from_secs(120));
    assert_eq!(options.given.get("offsets.retention.minutes").map(String::as_str), Some("2"));
    let interval = of(&["offsets.retention.check.interval.ms=5"]).expect("loads").offset_expiry;
    assert_eq!(interval.check_interval, Duration::from_millis(5));
    let bad_interval = "group.consumer.heartbeat.interval.ms=0";
    for bad in [
        "group.max.size=0",
        "offsets.retention.minutes=0",
        "group.max.size=2147483648",
        bad_interval,
    ] {
        assert!(of(&[bad]).is_err(), "{bad}");
    }
}

#[test]
fn defaults_of_consumer_groups_are_kept_as_given_and_judged_together() {
    let of = |given: &[&str]| {
        let options: Vec<&str> = given.iter().flat_map(|one| ["-o", one]).collect();
        load(&flags(&options)).map(|settings| settings.options.given)
    };
    let given = of(&["group.consumer.session.timeout.ms= 8000"]).expect("loads");
    let timeout = given.get("group.consumer.session.timeout.ms").map(String::as_str);
    assert_eq!(timeout, Some("8000"), "as Kafka prints it");
    let refused = |given: &[&str]| of(given).expect_err("is refused").to_string();
    let short = ["group.consumer.session.timeout.ms=8000", "group.consumer.heartbeat.interval.ms"];
    let equal = format!("{}=8000", short[1]);
    let told = refused(&[short[0], equal.as_str()]);
    assert!(told.contains("group.consumer.heartbeat.interval.ms must be less than"), "{told}");
    assert!(of(&[short[0], &format!("{}=7999", short[1])]).is_ok());
    assert!(of(&[&format!("{}=45000", short[1])]).is_err(), "as long as the session is by itself");
    let told = refused(&[short[0], "group.consumer.min.session.timeout.ms=9000"]);
    assert!(told.contains("must be at least group.consumer.min.session.timeout.ms"), "{told}");
    let told = refused(&[short[0], "group.consumer.max.session.timeout.ms=7000"]);
    assert!(told.contains("must be at most group.consumer.max.session.timeout.ms"), "{told}");
    for bad in [
        "group.consumer.assignors=",
        "group.consumer.assignors=mine",
        "group.consumer.migration.policy=perhaps",
        "group.consumer.max.size=0",
        "group.share.session.timeout.ms=9000",
    ] {
        assert!(of(&[bad]).is_err(), "{bad}");
    }
}
