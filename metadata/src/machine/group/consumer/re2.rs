//! RE2's syntax, which Kafka's expressions have, as the `regex` crate's. Both match in linear time.
//!
//! What is an expression and what is not is decided here, in RE2's words. What only RE2 knows
//! (octal escapes) is refused. Translating is linear too: every replica does it.

use std::str::Chars;

use regex::{Regex, RegexBuilder};

/// Bytes of a compiled expression. What costs more is refused: it is compiled by every replica.
const SIZE_MAX: usize = 256 << 10;

/// Repetitions of one element.
const REPEAT_MAX: u32 = 1_000;

/// Groups and classes within each other.
const NESTING_MAX: u32 = 100;

const NO_BRACKET: &str = "missing closing ]";
const NO_PAREN: &str = "missing closing )";
const NO_ARGUMENT: &str = "missing argument to repetition operator";
const NESTED_REPEAT: &str = "invalid nested repetition operator";
const REPEAT_SIZE: &str = "invalid repeat count";
const BAD_ESCAPE: &str = "invalid escape sequence";
const BAD_PERL: &str = "invalid or unsupported Perl syntax";
const BAD_CAPTURE: &str = "invalid named capture";
const BAD_RANGE: &str = "invalid character class range";
const NO_GROUP: &str = "regexp/syntax: internal error";
const TRAILING_BACKSLASH: &str = "trailing backslash at end of expression";

/// An expression that matches whole names.
///
/// # Errors
/// RE2's description of what is wrong.
pub(crate) fn compile(expression: &str) -> Result<Regex, &'static str> {
    let translated = Translator::new(expression).run()?;
    let anchored = format!(r"\A(?:{translated})\z");
    let mut builder = RegexBuilder::new(&anchored);
    let built = builder.size_limit(SIZE_MAX).nest_limit(NESTING_MAX).build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "expression too large",
        _ => BAD_RANGE,
    })
}

/// Classes by their names in POSIX.
const POSIX_CLASSES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
    "space", "upper", "word", "xdigit",
];

/// What was read last, for what may follow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// Nothing that can be repeated.
    Nothing,
    /// One element.
    Element,
    /// A repetition.
    Repeat,
    /// A repetition that was said to be lazy.
    Lazy,
}

/// What is still to be read.
struct Rest<'a>(Chars<'a>);

impl<'a> Rest<'a> {
    fn next(&mut self) -> Option<char> {
        self.0.next()
    }

    fn peek(&self) -> Option<char> {
        self.0.clone().next()
    }

    fn next_if_eq(&mut self, wanted: char) -> bool {
        let is_next = self.peek() == Some(wanted);
        if is_next {
            self.next();
        }
        is_next
    }

    fn text(&self) -> &'a str {
        self.0.as_str()
    }

    fn skip(&mut self, bytes: usize) {
        self.0 = self.text()[bytes..].chars();
    }
}

struct Translator<'a> {
    rest: Rest<'a>,
    /// No class ends behind here: what was looked for once is not there.
    has_no_posix: bool,
    out: String,
    depth: u32,
    last: Last,
}

impl<'a> Translator<'a> {
    fn new(expression: &'a str) -> Self {
        let rest = Rest(expression.chars());
        Self { rest, has_no_posix: false, out: String::new(), depth: 0, last: Last::Nothing }
    }

    fn run(mut self) -> Result<String, &'static str> {
        while let Some(next) = self.rest.next() {
            match next {
                '\\' => self.escape()?,
                '[' => self.class()?,
                '(' => self.open()?,
                ')' => {
                    self.depth = self.depth.checked_sub(1).ok_or(NO_GROUP)?;
                    self.push(')', Last::Element);
                }
                '|' => self.push('|', Last::Nothing),
                '*' | '+' | '?' => self.repeat(next)?,
                '{' => self.counted()?,
                ']' | '}' => {
                    self.out.push('\\');
                    self.push(next, Last::Element);
                }
                _ => self.push(next, Last::Element),
            }
        }
        if self.depth == 0 { Ok(self.out) } else { Err(NO_PAREN) }
    }

    fn push(&mut self, text: char, last: Last) {
        self.out.push(text);
        self.last = last;
    }

    /// Behind a backslash.
    fn escape(&mut self) -> Result<(), &'static str> {
        let next = self.rest.next().ok_or(TRAILING_BACKSLASH)?;
        if next == 'Q' {
            return self.quoted();
        }
        self.push_escaped(next)?;
        self.last = Last::Element;
        Ok(())
    }

    /// Everything up to `\E` as it is.
    fn quoted(&mut self) -> Result<(), &'static str> {
        while let Some(next) = self.rest.next() {
            if next == '\\' && self.rest.next_if_eq('E') {
                return Ok(());
            }
            self.out.push_str(&regex::escape(next.encode_utf8(&mut [0; 4])));
            self.last = Last::Element;
        }
        Ok(())
    }

    fn push_escaped(&mut self, next: char) -> Result<(), &'static str> {
        if let Some(class) = ascii_class(next) {
            self.out.push_str(class);
            return Ok(());
        }
        if !is_escape(next) {
            return Err(BAD_ESCAPE);
        }
        self.out.extend(['\\', next]);
        // A name or a number in braces belongs to it.
        if matches!(next, 'p' | 'P' | 'x') && self.rest.peek() == Some('{') {
            let wrong = if next == 'x' { BAD_ESCAPE } else { BAD_RANGE };
            loop {
                let inner = self.rest.next().ok_or(wrong)?;
                self.out.push(inner);
                if inner == '}' {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Behind `[`. RE2 has no classes within classes and no operations on them.
    fn class(&mut self) -> Result<(), &'static str> {
        self.out.push('[');
        if self.rest.next_if_eq('^') {
            self.out.push('^');
        }
        let mut is_first = true;
        loop {
            let next = self.rest.next().ok_or(NO_BRACKET)?;
            match next {
                ']' if !is_first => break,
                '\\' => {
                    let next = self.rest.next().ok_or(TRAILING_BACKSLASH)?;
                    self.push_escaped(next)?;
                }
                '[' if self.rest.peek() == Some(':') => self.posix()?,
                '[' | ']' | '&' | '~' => self.out.extend(['\\', next]),
                _ => self.out.push(next),
            }
            is_first = false;
        }
        self.push(']', Last::Element);
        Ok(())
    }

    /// `[:name:]` within a class, or a bracket like any other character.
    fn posix(&mut self) -> Result<(), &'static str> {
        let found = Some(&self.rest.text()[1..]).filter(|_| !self.has_no_posix);
        let Some((name, _)) = found.and_then(|rest| rest.split_once(":]")) else {
            self.has_no_posix = true;
            self.out.push_str("\\[");
            return Ok(());
        };
        if !POSIX_CLASSES.contains(&name.strip_prefix('^').unwrap_or(name)) {
            return Err(BAD_RANGE);
        }
        self.out.push_str(&format!("[:{name}:]"));
        self.rest.skip(name.len() + 3);
        Ok(())
    }

    /// Behind `(`.
    fn open(&mut self) -> Result<(), &'static str> {
        self.depth += 1;
        if NESTING_MAX < self.depth {
            return Err("expression too large");
        }
        self.push('(', Last::Nothing);
        if !self.rest.next_if_eq('?') {
            return Ok(());
        }
        self.out.push('?');
        let rest = self.rest.text();
        if let Some(named) = rest.strip_prefix("P<").or_else(|| rest.strip_prefix('<')) {
            if named.starts_with(['=', '!']) {
                return Err(BAD_PERL);
            }
            return if named.contains('>') { Ok(()) } else { Err(BAD_CAPTURE) };
        }
        loop {
            match self.rest.next().ok_or(BAD_PERL)? {
                // RE2's flags; `x` and `u` are not among them.
                flag @ ('i' | 'm' | 's' | 'U' | '-') => self.out.push(flag),
                ':' => {
                    self.out.push(':');
                    return Ok(());
                }
                ')' => {
                    self.depth -= 1;
                    self.out.push(')');
                    return Ok(());
                }
                _ => return Err(BAD_PERL),
            }
        }
    }

    fn repeat(&mut self, operator: char) -> Result<(), &'static str> {
        self.last = match (self.last, operator) {
            (Last::Nothing, _) => return Err(NO_ARGUMENT),
            (Last::Element, _) => Last::Repeat,
            (Last::Repeat, '?') => Last::Lazy,
            (Last::Repeat | Last::Lazy, _) => return Err(NESTED_REPEAT),
        };
        self.out.push(operator);
        Ok(())
    }

    /// Behind `{`: a count, or a brace like any other character.
    fn counted(&mut self) -> Result<(), &'static str> {
        let rest = self.rest.text();
        let Some((least, most, length)) = count(rest) else {
            self.out.push('\\');
            self.push('{', Last::Element);
            return Ok(());
        };
        match self.last {
            Last::Nothing => return Err(NO_ARGUMENT),
            Last::Repeat | Last::Lazy => return Err(NESTED_REPEAT),
            Last::Element => {}
        }
        if REPEAT_MAX < least || most.is_some_and(|most| REPEAT_MAX < most || most < least) {
            return Err(REPEAT_SIZE);
        }
        self.out.push('{');
        self.out.push_str(&rest[..length]);
        self.rest.skip(length);
        self.last = Last::Repeat;
        Ok(())
    }
}

/// `n}`, `n,}` or `n,m}`: both numbers, and the length. Numbers too large are as large as can be.
fn count(text: &str) -> Option<(u32, Option<u32>, usize)> {
    let end = text.find(|next: char| !next.is_ascii_digit() && next != ',')?;
    if !text[end..].starts_with('}') {
        return None;
    }
    let number = |digits: &str| {
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| digits.parse().unwrap_or(u32::MAX))
    };
    let (least, most) = match text[..end].split_once(',') {
        None => (number(&text[..end])?, Some(number(&text[..end])?)),
        Some((least, "")) => (number(least)?, None),
        Some((least, most)) => (number(least)?, Some(number(most)?)),
    };
    Some((least, most, end + 1))
}

/// What RE2 means by a class with a backslash: ASCII. It may stand in another class.
fn ascii_class(name: char) -> Option<&'static str> {
    Some(match name {
        'd' => "[0-9]",
        'D' => "[^0-9]",
        's' => r"[\t\n\f\r ]",
        'S' => r"[^\t\n\f\r ]",
        'w' => "[0-9A-Za-z_]",
        'W' => "[^0-9A-Za-z_]",
        _ => return None,
    })
}

/// Whether RE2 and the `regex` crate mean the same by a backslash and this.
fn is_escape(next: char) -> bool {
    next.is_ascii_punctuation() || "AzbBpPxafnrtv".contains(next)
}

#[cfg(test)]
mod tests;
