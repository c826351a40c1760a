//! Which requests fail, and how [pure].

use std::{fmt, str::FromStr};

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};

use super::request::{Kind, Target};

/// More rules than this are a mistake: each request reads them all.
const RULES_MAX: usize = 1000;

/// What happens to a request instead of what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Action {
    /// Not applied; answered with this status, after the usual latency.
    Status(u16),
    /// Not applied and never answered: the connection stays until the client leaves or the rules
    /// are replaced.
    Hang,
    /// Applied, this many times slower.
    Slow(f64),
    /// Applied, then the connection closes without an answer.
    DropAnswer,
    /// Not applied: the connection closes once half of the body was read.
    Reset,
}

/// No action.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "action {text:?} is none of status:400 to status:599, hang, slow:1 to slow:1000000, \
     drop-answer, reset"
)]
pub struct ActionRefused {
    text: String,
}

impl FromStr for Action {
    type Err = ActionRefused;

    fn from_str(text: &str) -> Result<Self, ActionRefused> {
        let refused = || ActionRefused { text: text.chars().take(100).collect() };
        match (text, text.split_once(':')) {
            ("hang", _) => Ok(Self::Hang),
            ("drop-answer", _) => Ok(Self::DropAnswer),
            ("reset", _) => Ok(Self::Reset),
            (_, Some(("status", status))) => {
                let status = status.parse().ok().filter(|status| (400..600).contains(status));
                status.map(Self::Status).ok_or_else(refused)
            }
            (_, Some(("slow", factor))) => {
                let factor = factor.parse().ok().filter(|factor| (1.0..=1e6).contains(factor));
                factor.map(Self::Slow).ok_or_else(refused)
            }
            _ => Err(refused()),
        }
    }
}

impl TryFrom<String> for Action {
    type Error = ActionRefused;

    fn try_from(text: String) -> Result<Self, ActionRefused> {
        text.parse()
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status:{status}"),
            Self::Hang => f.write_str("hang"),
            Self::Slow(factor) => write!(f, "slow:{factor}"),
            Self::DropAnswer => f.write_str("drop-answer"),
            Self::Reset => f.write_str("reset"),
        }
    }
}

impl From<Action> for String {
    fn from(action: Action) -> Self {
        action.to_string()
    }
}

/// The kinds of requests that a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Method {
    #[serde(rename = "PUT")]
    Put,
    #[serde(rename = "GET")]
    Get,
    #[serde(rename = "HEAD")]
    Head,
    #[serde(rename = "LIST")]
    List,
    #[serde(rename = "DELETE")]
    Delete,
    #[serde(rename = "POST")]
    Post,
    #[serde(rename = "*")]
    Any,
}

impl Method {
    fn includes(self, kind: Kind) -> bool {
        match self {
            Self::Any => true,
            Self::Put => kind == Kind::Put,
            Self::Get => kind == Kind::Get,
            Self::Head => kind == Kind::Head,
            Self::List => kind == Kind::List,
            Self::Delete => kind == Kind::Delete,
            Self::Post => kind == Kind::Post,
        }
    }
}

/// A share of requests, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
struct Fraction(f64);

impl Fraction {
    const ALL: Self = Self(1.0);

    fn all() -> Self {
        Self::ALL
    }
}

impl TryFrom<f64> for Fraction {
    type Error = String;

    fn try_from(fraction: f64) -> Result<Self, String> {
        let fits = (0.0..=1.0).contains(&fraction);
        if fits { Ok(Self(fraction)) } else { Err(format!("fraction {fraction} is not 0 to 1")) }
    }
}

impl From<Fraction> for f64 {
    fn from(fraction: Fraction) -> Self {
        fraction.0
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    method: Method,
    action: Action,
    /// Requests it still applies to; `None` is no end of them.
    #[serde(default)]
    count: Option<u64>,
    /// Of the requests it is about.
    #[serde(default = "Fraction::all")]
    fraction: Fraction,
    /// Only keys that have this in them, prefixes for LIST; never a bulk delete, whose keys are in
    /// its body.
    #[serde(default)]
    key_contains: Option<String>,
}

impl Rule {
    fn is_about(&self, target: &Target) -> bool {
        let key_fits = match &self.key_contains {
            None => true,
            Some(part) => target.kind != Kind::Post && target.key.contains(part.as_str()),
        };
        self.count != Some(0) && self.method.includes(target.kind) && key_fits
    }
}

/// The rules in force, the first of which that applies wins. One that passes a request over, being
/// for a fraction only, leaves it to the rules behind it.
#[derive(Debug, Serialize)]
pub struct FaultRules {
    rules: Vec<Rule>,
    #[serde(skip)]
    generator: StdRng,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    rules: Vec<Rule>,
}

/// Rules that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RulesRefused {
    /// Not the JSON that is expected; the source says what and where.
    #[error("fault rules: {0}")]
    Json(#[from] serde_json::Error),
    /// Too many.
    #[error("{count} fault rules are more than {RULES_MAX}")]
    TooMany {
        /// How many there are.
        count: usize,
    },
}

impl FaultRules {
    /// No faults.
    pub fn none() -> Self {
        Self { rules: Vec::new(), generator: StdRng::seed_from_u64(0) }
    }

    /// Reads `{"rules":[...]}`; the fractions are drawn from `seed`.
    ///
    /// # Errors
    /// See [`RulesRefused`].
    pub fn parse(json: &[u8], seed: u64) -> Result<Self, RulesRefused> {
        let Document { rules } = serde_json::from_slice(json)?;
        if rules.len() > RULES_MAX {
            return Err(RulesRefused::TooMany { count: rules.len() });
        }
        Ok(Self { rules, generator: StdRng::seed_from_u64(seed) })
    }

    /// What happens to the next request; `None` is what it asks for.
    pub fn next_action(&mut self, target: &Target) -> Option<Action> {
        for rule in &mut self.rules {
            if !rule.is_about(target) {
                continue;
            }
            let applies =
                rule.fraction == Fraction::ALL || self.generator.random::<f64>() < rule.fraction.0;
            if applies {
                rule.count = rule.count.map(|count| count - 1);
                return Some(rule.action);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
