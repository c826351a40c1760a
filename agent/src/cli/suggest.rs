//! "Did you mean": the name that may have been meant. Pure.

/// Below this likeness two names have nothing to do with each other.
const LIKENESS_MIN: f64 = 0.8;

/// `; did you mean NAME?` for the name among `known` that is most like `wanted`, else nothing.
pub fn hint<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> String {
    nearest(wanted, known).map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

/// The name among `known` that is most like `wanted`, if any is like it at all.
pub fn nearest<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let lower = wanted.to_lowercase();
    let likeness = |name: &str| strsim::jaro_winkler(&lower, &name.to_lowercase());
    let scored = known.map(|name| (likeness(name), name));
    let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (LIKENESS_MIN <= best.0).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_its_name_and_another_word_finds_none() {
        let known = ["orders", "payments", "__consumer_offsets"];
        let nearest = |wanted| nearest(wanted, known.into_iter());
        assert_eq!(nearest("ordrs"), Some("orders"));
        assert_eq!(nearest("Oders"), Some("orders"));
        assert_eq!(nearest("paymnet"), Some("payments"));
        assert_eq!(nearest("clicks"), None);
        assert_eq!(hint("order", known.into_iter()), "; did you mean orders?");
        assert_eq!(hint("order", std::iter::empty()), "");
    }
}
