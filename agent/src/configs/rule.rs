//! The type of a config and what its value may be, in Kafka's words where it refuses one.

/// Kafka's type of a config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Each variant is Kafka's own name.
pub enum ConfigType {
    Boolean,
    String,
    Int,
    Short,
    Long,
    Double,
    List,
    Class,
    Password,
}

impl ConfigType {
    /// Its code in DescribeConfigs v3+.
    pub const fn code(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::String => 2,
            Self::Int => 3,
            Self::Short => 4,
            Self::Long => 5,
            Self::Double => 6,
            Self::List => 7,
            Self::Class => 8,
            Self::Password => 9,
        }
    }

    /// The type of this name, in capitals.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "BOOLEAN" => Self::Boolean,
            "STRING" => Self::String,
            "INT" => Self::Int,
            "SHORT" => Self::Short,
            "LONG" => Self::Long,
            "DOUBLE" => Self::Double,
            "LIST" => Self::List,
            "CLASS" => Self::Class,
            "PASSWORD" => Self::Password,
            _ => return None,
        })
    }
}

/// What a value may be, beside being of its type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Anything.
    Any,
    /// A number within these bounds, if there are such; kept as Kafka writes them.
    Within(Option<&'static str>, Option<&'static str>),
    /// -1 or 1 to 9.
    GzipLevel,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// One of these words, in capitals or not.
    AnyCaseOf(&'static [&'static str]),
    /// Not empty.
    NonEmpty,
    /// Comma-separated `partition:broker` pairs, or `*`.
    Throttle,
    /// `earliest`, `latest` or `by_duration:` with an ISO 8601 duration.
    OffsetReset,
}

/// What is wrong with a value, in Kafka's words.
pub type Words = String;

/// The value as Kafka would print it, parsed as its type, if `rule` allows it.
///
/// # Errors
/// Why not.
pub fn check(
    name: &str,
    value: &str,
    config_type: ConfigType,
    rule: Rule,
) -> Result<String, Words> {
    let refused = |value: &str, why: &str| {
        Err(format!("Invalid value {value} for configuration {name}: {why}"))
    };
    let text = value.trim();
    let parsed = match config_type {
        ConfigType::Boolean => {
            let word = text.to_ascii_lowercase();
            if !matches!(word.as_str(), "true" | "false") {
                return refused(value, "Expected value to be either true or false");
            }
            word
        }
        ConfigType::Int | ConfigType::Short | ConfigType::Long | ConfigType::Double => {
            match number(text, config_type) {
                Some(number) => number,
                None => {
                    return refused(value, &format!("Not a number of type {}", caps(config_type)));
                }
            }
        }
        ConfigType::List => return check_list(name, text, rule),
        ConfigType::String | ConfigType::Class => text.to_owned(),
        ConfigType::Password => value.to_owned(),
    };
    match broken(&parsed, rule) {
        Some(why) => refused(&parsed, &why),
        None if matches!(rule, Rule::OffsetReset) && !is_offset_reset(&parsed) => {
            let words = format!(
                "Invalid value `{parsed}` for configuration {name}. The value must be either \
                 'earliest', 'latest' or of the format 'by_duration:<PnDTnHnMn.nS>'."
            );
            refused(&parsed, &words)
        }
        None => Ok(parsed),
    }
}

const fn caps(config_type: ConfigType) -> &'static str {
    match config_type {
        ConfigType::Short => "SHORT",
        ConfigType::Int => "INT",
        ConfigType::Long => "LONG",
        _ => "DOUBLE",
    }
}

/// The number as its type prints it.
fn number(text: &str, config_type: ConfigType) -> Option<String> {
    match config_type {
        ConfigType::Short => text.parse::<i16>().ok().map(|number| number.to_string()),
        ConfigType::Int => text.parse::<i32>().ok().map(|number| number.to_string()),
        ConfigType::Long => text.parse::<i64>().ok().map(|number| number.to_string()),
        // With a fraction always, as Kafka prints it.
        _ => text.parse::<f64>().ok().map(|number| format!("{number:?}")),
    }
}

/// What a single value breaks.
fn broken(value: &str, rule: Rule) -> Option<Words> {
    let one_of = |words: &[&str]| format!("String must be one of: {}", words.join(", "));
    match rule {
        Rule::Within(least, most) => {
            // Exact for whole numbers, which a double is not above 2^53.
            let below = |a: &str, b: &str| match (a.parse::<i64>(), b.parse::<i64>()) {
                (Ok(a), Ok(b)) => a < b,
                _ => matches!((a.parse::<f64>(), b.parse::<f64>()), (Ok(a), Ok(b)) if a < b),
            };
            if let Some(least) = least.filter(|least| below(value, least)) {
                return Some(format!("Value must be at least {least}"));
            }
            let most = most.filter(|most| below(most, value));
            most.map(|most| format!("Value must be no more than {most}"))
        }
        Rule::GzipLevel => {
            let fits = matches!(value.parse::<i32>(), Ok(-1 | 1..=9));
            (!fits).then(|| "Value must be between 1 and 9 or equal to -1".to_owned())
        }
        Rule::OneOf(words) => (!words.contains(&value)).then(|| one_of(words)),
        Rule::AnyCaseOf(words) => {
            let known = words.iter().any(|word| word.eq_ignore_ascii_case(value));
            let words =
                || format!("String must be one of (case insensitive): {}", words.join(", "));
            (!known).then(words)
        }
        Rule::NonEmpty => value.is_empty().then(|| "String must be non-empty".to_owned()),
        Rule::Any | Rule::Throttle | Rule::OffsetReset => None,
    }
}

fn check_list(name: &str, text: &str, rule: Rule) -> Result<String, Words> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let items: Vec<&str> = text.split(',').map(str::trim).collect();
    if items.contains(&"") {
        return Err(format!("Configuration '{name}' values must not be empty."));
    }
    if let Rule::OneOf(words) = rule
        && let Some(item) = items.iter().find(|item| !words.contains(item))
    {
        let words = words.join(", ");
        return Err(format!(
            "Invalid value {item} for configuration {name}: String must be one of: {words}"
        ));
    }
    if rule == Rule::Throttle && items != ["*"] && !items.iter().all(|item| is_pair(item)) {
        let shown = items.join(", ");
        return Err(format!(
            "Invalid value [{shown}] for configuration {name}: {name} must be the literal '*' or \
             a list of replicas in the following format: \
             [partitionId]:[brokerId],[partitionId]:[brokerId],..."
        ));
    }
    let mut once: Vec<&str> = Vec::with_capacity(items.len());
    for item in items {
        if !once.contains(&item) {
            once.push(item);
        }
    }
    Ok(once.join(","))
}

/// Whether `text` is `partition:broker`.
fn is_pair(text: &str) -> bool {
    text.split_once(':').is_some_and(|(partition, broker)| {
        partition.parse::<u32>().is_ok() && broker.parse::<u32>().is_ok()
    })
}

fn is_offset_reset(text: &str) -> bool {
    match text.split_once(':') {
        None => matches!(text, "earliest" | "latest"),
        Some((kind, duration)) => kind == "by_duration" && is_duration(duration),
    }
}

/// Whether `text` is a duration that is not negative, `PnDTnHnMn.nS` with at least one part.
fn is_duration(text: &str) -> bool {
    let Some(rest) = text.to_ascii_uppercase().strip_prefix('P').map(str::to_owned) else {
        return false;
    };
    let (days, time) = rest.split_once('T').unwrap_or((&rest, ""));
    let has_time = rest.contains('T');
    let is_number = |text: &str, fraction: bool| {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        !whole.is_empty() && digits(whole) && digits(part) && (fraction || !text.contains('.'))
    };
    let days_fit = match days.strip_suffix('D') {
        Some(number) => is_number(number, false),
        None => days.is_empty() && has_time,
    };
    let mut left = time;
    for (unit, fraction) in [('H', false), ('M', false), ('S', true)] {
        if let Some((number, rest)) = left.split_once(unit) {
            if !is_number(number, fraction) {
                return false;
            }
            left = rest;
        }
    }
    days_fit && left.is_empty() && (!has_time || !time.is_empty())
}
