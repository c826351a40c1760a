//! Feature levels, as clients read them in ApiVersions and operators change them. [pure]
//!
//! A feature is listed once the thing behind it works. `metadata.version` stands for Kafka's own
//! metadata records, of which there are none here: its level is that of the Kafka release whose
//! behaviour is followed, and does not change.

use std::ops::RangeInclusive;

/// A feature, with levels as brokers of Kafka 4.3 have them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name.
    pub name: &'static str,
    /// The levels that are supported.
    pub supported: RangeInclusive<i16>,
    /// The level in force. The same on every agent, and never lower.
    pub finalized: i16,
}

/// All there are, by name.
pub const FEATURES: [Feature; 2] = [
    // The new protocol of consumer groups: nothing turns it off.
    Feature { name: "group.version", supported: 0..=1, finalized: 1 },
    Feature { name: METADATA_VERSION, supported: 7..=30, finalized: 30 },
];

const METADATA_VERSION: &str = "metadata.version";

/// Counts changes of the levels, of which there were none.
pub const EPOCH: i64 = 0;

/// Which way a level may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Up only.
    Up,
    /// Also down, where nothing is lost.
    SafeDown,
    /// Also down, whatever is lost.
    UnsafeDown,
    /// A number that means nothing.
    Unknown,
}

impl Direction {
    /// As a request of v1 and newer says it.
    pub fn from_wire(number: i8) -> Self {
        match number {
            1 => Self::Up,
            2 => Self::SafeDown,
            3 => Self::UnsafeDown,
            _ => Self::Unknown,
        }
    }
}

/// Why a level cannot be set; `controller` is the id that the words name.
///
/// # Errors
/// The words of the refusal.
pub fn check(
    feature: &str,
    level: i16,
    direction: Direction,
    controller: i32,
) -> Result<(), String> {
    let invalid =
        |why: String| Err(format!("Invalid update version {level} for feature {feature}. {why}"));
    if direction == Direction::Unknown {
        return invalid("The controller does not support the given upgrade type.".to_owned());
    }
    if level < 0 {
        return invalid("A feature version cannot be less than 0.".to_owned());
    }
    let Some(known) = FEATURES.iter().find(|one| one.name == feature) else {
        return invalid(match level {
            0 => format!("Feature {feature} not found."),
            _ => format!("Local controller {controller} does not support this feature."),
        });
    };
    if !known.supported.contains(&level) {
        let (min, max) = (known.supported.start(), known.supported.end());
        return invalid(format!(
            "Local controller {controller} only supports versions {min}-{max}"
        ));
    }
    let finalized = known.finalized;
    let from_to = format!("Unsupported {feature} downgrade from {finalized} to {level}.");
    match direction {
        _ if finalized <= level => Ok(()),
        Direction::Up | Direction::Unknown => invalid(
            "Can't downgrade the version of this feature without setting the upgrade type to \
             either safe or unsafe downgrade."
                .to_owned(),
        ),
        Direction::SafeDown | Direction::UnsafeDown if feature != METADATA_VERSION => {
            Err(format!("{from_to} Nothing here can turn it off."))
        }
        Direction::SafeDown => Err(format!(
            "{from_to} Refusing to perform the requested downgrade because it might delete \
             metadata information."
        )),
        Direction::UnsafeDown => {
            Err(format!("{from_to} Unsafe metadata downgrade is not supported in this version."))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_in_force_is_the_only_one_that_can_be_set() {
        assert_eq!(check(METADATA_VERSION, 30, Direction::Up, 1), Ok(()));
        let refused = |level, direction| check(METADATA_VERSION, level, direction, 4).unwrap_err();
        let range = "Invalid update version 31 for feature metadata.version. Local controller 4 \
                     only supports versions 7-30";
        assert_eq!(refused(31, Direction::Up), range);
        assert!(refused(29, Direction::Up).contains("Can't downgrade"));
        assert!(refused(29, Direction::SafeDown).contains("it might delete metadata"));
        assert!(refused(29, Direction::UnsafeDown).contains("not supported in this version"));
        assert!(refused(-1, Direction::UnsafeDown).contains("cannot be less than 0"));
        assert!(refused(30, Direction::from_wire(0)).contains("the given upgrade type"));
    }

    #[test]
    fn the_new_group_protocol_is_on_for_good() {
        let check = |level, direction| check("group.version", level, direction, 1);
        assert_eq!(check(1, Direction::Up), Ok(()));
        assert!(check(2, Direction::Up).unwrap_err().ends_with("only supports versions 0-1"));
        assert!(check(0, Direction::Up).unwrap_err().contains("Can't downgrade"));
        let down = check(0, Direction::SafeDown).unwrap_err();
        assert!(down.starts_with("Unsupported group.version downgrade from 1 to 0."), "{down}");
    }

    #[test]
    fn what_does_not_work_yet_is_no_feature() {
        let refused = |level| check("transaction.version", level, Direction::Up, 1);
        assert!(refused(2).unwrap_err().ends_with("does not support this feature."));
        assert!(refused(0).unwrap_err().ends_with("Feature transaction.version not found."));
    }
}
