//! What is an expression to Kafka 4.3.1 (its RE2) and what is not, in its words.

use super::compile;

#[test]
fn what_re2_refuses_is_refused_in_its_words() {
    let refused = [
        ("(a", "missing closing )"),
        ("(?:a", "missing closing )"),
        ("a)", "regexp/syntax: internal error"),
        ("[a", "missing closing ]"),
        ("[", "missing closing ]"),
        ("[]", "missing closing ]"),
        ("[^]", "missing closing ]"),
        ("*a", "missing argument to repetition operator"),
        ("+", "missing argument to repetition operator"),
        ("a|*", "missing argument to repetition operator"),
        ("{2}", "missing argument to repetition operator"),
        ("a**", "invalid nested repetition operator"),
        ("a++", "invalid nested repetition operator"),
        ("a\\", "trailing backslash at end of expression"),
        ("(?=a)", "invalid or unsupported Perl syntax"),
        ("(?<!a)", "invalid or unsupported Perl syntax"),
        ("(?z)a", "invalid or unsupported Perl syntax"),
        ("(?x)a b", "invalid or unsupported Perl syntax"),
        ("(?", "invalid or unsupported Perl syntax"),
        (r"\1", "invalid escape sequence"),
        (r"\k", "invalid escape sequence"),
        (r"\C", "invalid escape sequence"),
        ("(?P<n", "invalid named capture"),
        ("a{2000}", "invalid repeat count"),
        ("a{2,1}", "invalid repeat count"),
        ("x{1001}", "invalid repeat count"),
        ("[b-a]", "invalid character class range"),
        ("[[:foo:]]", "invalid character class range"),
        (r"\pX", "invalid character class range"),
    ];
    for (expression, reason) in refused {
        assert_eq!(compile(expression).map(drop), Err(reason), "{expression}");
    }
}

#[test]
fn an_expression_matches_whole_names_as_re2_reads_it() {
    let cases = [
        ("orders", "orders", true),
        ("orders", "orders-1", false),
        ("ord", "orders", false),
        ("orders.*", "orders-1", true),
        ("a|b", "ab", false),
        ("a|bc", "bc", true),
        ("(?i)ORDERS", "orders", true),
        (r"\Qa.b\E", "a.b", true),
        (r"\Qa.b\E", "axb", false),
        ("[a&&b]", "b", true),
        ("[[a]]", "[]", true),
        ("[[:digit:]]+", "12", true),
        ("a{2}", "aa", true),
        ("a{,2}", "a{,2}", true),
        ("a{", "a{", true),
        (r"\w{1000}", &"x".repeat(1000), true),
        (r"[\d_]+", "1_2", true),
        ("(?<n>a)+?", "aa", true),
        ("^a.*$", "abc", true),
        ("a]}", "a]}", true),
    ];
    for (expression, name, matches) in cases {
        let compiled = compile(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
        assert_eq!(compiled.is_match(name), matches, "{expression} {name}");
    }
}

#[test]
fn an_expression_that_would_cost_too_much_is_refused() {
    assert_eq!(compile("((((a{100}){100}){100}){100})").map(drop), Err("expression too large"));
    assert_eq!(compile(&"(".repeat(100_000)).map(drop), Err("expression too large"));
}

/// A translator that looks at everything behind each of these again takes hours for them.
#[test]
fn what_never_ends_is_read_once() {
    for part in ["{", "a{1,", "a{,", "[[:a]", "[[:"] {
        let compiled = compile(&part.repeat(1 << 20)).map(drop);
        assert!(compiled.is_err(), "{part}");
    }
}
