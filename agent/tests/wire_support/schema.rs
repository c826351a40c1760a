//! Random valid bodies, written from the table of messages without the code under test.

#[path = "../../build/parse.rs"]
#[allow(dead_code, missing_docs)]
pub mod parse;

use parse::{Field, Message, Scalar, Type};

/// A small reproducible generator (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// The messages of the table.
pub fn messages() -> Vec<Message> {
    parse::table(include_str!("../../src/wire/messages.txt")).unwrap()
}

/// The one body with every byte as Kafka would write it.
pub fn body(message: &Message, version: i16, random: &mut Random) -> Vec<u8> {
    let flexible = message.is_flexible(version);
    let mut body = Body { version, flexible, random, out: Vec::new() };
    body.fields(&message.fields);
    body.out
}

struct Body<'a> {
    version: i16,
    flexible: bool,
    random: &'a mut Random,
    out: Vec<u8>,
}

impl Body<'_> {
    fn fields(&mut self, fields: &[Field]) {
        let there = |f: &&Field| f.versions.contains(self.version);
        let (plain, tagged): (Vec<_>, Vec<_>) =
            fields.iter().filter(there).partition(|field| field.tag.is_none());
        for field in plain {
            self.field(field, false);
        }
        if !self.flexible {
            return;
        }
        let chosen: Vec<_> = tagged.into_iter().filter(|_| self.random.chance(50)).collect();
        self.uvarint(chosen.len());
        for field in chosen {
            self.uvarint(field.tag.expect("partitioned by having a tag") as usize);
            let outer = std::mem::take(&mut self.out);
            self.field(field, true);
            let value = std::mem::replace(&mut self.out, outer);
            self.uvarint(value.len());
            self.out.extend(value);
        }
    }

    /// A tagged field must not have its default, else it would not be there.
    fn field(&mut self, field: &Field, not_default: bool) {
        let nullable = field.nullable.is_some_and(|null| null.contains(self.version));
        let null = nullable && !not_default && self.random.chance(30);
        match &field.ty {
            Type::Struct(fields) if nullable => {
                self.out.push(if null { 0xff } else { 1 });
                if !null {
                    self.fields(fields);
                }
            }
            Type::Struct(fields) => self.fields(fields),
            Type::Array(element) => {
                let count = self.random.below(3) + usize::from(not_default);
                self.length((!null).then_some(count));
                for _ in 0..if null { 0 } else { count } {
                    self.element(element);
                }
            }
            Type::Scalar(scalar) => self.scalar(*scalar, null, not_default),
        }
    }

    fn element(&mut self, element: &Type) {
        match element {
            Type::Struct(fields) => self.fields(fields),
            Type::Scalar(scalar) => self.scalar(*scalar, false, false),
            Type::Array(_) => unreachable!("no array of arrays in the table"),
        }
    }

    fn scalar(&mut self, scalar: Scalar, null: bool, not_default: bool) {
        let bits = self.random.next().to_be_bytes();
        match scalar {
            Scalar::Bool => self.out.push(u8::from(not_default) | bits[0] & 1),
            Scalar::I8 => self.out.push(bits[0]),
            Scalar::I16 | Scalar::U16 => self.out.extend([bits[0] & 0x7f, bits[1] | 2]),
            Scalar::I32 => self.out.extend([bits[0], bits[1], bits[2], bits[3] & 0xfc | 2]),
            Scalar::I64 => self.out.extend(bits),
            Scalar::F64 => self.out.extend(f64::from(bits[0]).to_be_bytes()),
            Scalar::Uuid => self.out.extend(bits.repeat(2)),
            Scalar::Str => self.text(null, not_default),
            Scalar::Bytes | Scalar::Records => {
                let bytes = vec![bits[0]; self.random.below(40) * self.random.below(40)];
                self.length((!null).then_some(bytes.len()));
                self.out.extend(if null { &[][..] } else { &bytes });
            }
        }
    }

    fn text(&mut self, null: bool, not_default: bool) {
        const TEXTS: &[&str] = &["a", "topic-1", "größer", "", "日本", "__consumer_offsets"];
        let choices = if not_default { 3 } else { TEXTS.len() };
        let text = TEXTS[self.random.below(choices)];
        match (self.flexible, null) {
            (true, _) => self.length((!null).then_some(text.len())),
            (false, true) => self.out.extend([0xff, 0xff]),
            (false, false) => self.out.extend((text.len() as u16).to_be_bytes()),
        }
        self.out.extend(if null { "" } else { text }.bytes());
    }

    fn length(&mut self, length: Option<usize>) {
        match (self.flexible, length) {
            (true, _) => self.uvarint(length.map_or(0, |length| length + 1)),
            (false, None) => self.out.extend([0xff; 4]),
            (false, Some(length)) => self.out.extend((length as u32).to_be_bytes()),
        }
    }

    fn uvarint(&mut self, mut value: usize) {
        while value > 0x7f {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }
}

/// Changes a few bytes as an attacker or a broken client would.
pub fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    const NASTY: &[u8] = &[0, 1, 2, 0x7f, 0x80, 0xfe, 0xff];
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len() + 1);
        let nasty = NASTY[random.below(NASTY.len())];
        match random.below(6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, nasty),
            2 => bytes.splice(at..at, [0xff, 0xff, 0xff, 0xff, 0x0f]).for_each(drop),
            3 => bytes.splice(at..at, [0x7f, 0xff, 0xff, 0xff]).for_each(drop),
            _ if at < bytes.len() && random.chance(50) => bytes[at] = nasty,
            _ if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            _ => bytes.push(nasty),
        }
    }
}
