//! Writes the Rust of the messages: for each struct its fields, `Default`, and `Element`.
//!
//! A struct is named after its message and the path of fields to it, so a name can be told from
//! the table alone. Fields without a version in the table's range are left out.

use std::{collections::BTreeSet, fmt::Write};

use crate::parse::{Field, Message, Scalar, Type, Versions};

/// When a field is there, seen from the versions in which its struct is.
enum When {
    Always,
    If(String),
    Never,
}

/// The whole generated module.
pub fn module(messages: &[Message]) -> Result<String, String> {
    let mut emitter = Emitter { out: String::new(), names: BTreeSet::new() };
    for message in messages {
        emitter.message(message)?;
    }
    emitter.specs(messages);
    emitter.dispatcher(messages);
    Ok(emitter.out)
}

struct Emitter {
    out: String,
    names: BTreeSet<String>,
}

/// A struct to be written: the message it belongs to and where it occurs there.
struct Item<'a> {
    message: &'a Message,
    name: String,
    doc: String,
    fields: &'a [Field],
    present: Vec<i16>,
}

/// A field with everything decided: its Rust name and type, and when it is there or may be null.
struct Member<'a> {
    field: &'a Field,
    name: String,
    ty: String,
    when: When,
    null: When,
    default: String,
}

macro_rules! line {
    ($out:expr, $($arg:tt)*) => {
        writeln!($out, $($arg)*).expect("writing to a string cannot fail")
    };
}

impl Emitter {
    fn message(&mut self, message: &Message) -> Result<(), String> {
        let (first, last) = (message.versions.first, message.last_version());
        let root = Item {
            message,
            name: message.name.clone(),
            doc: format!("{}, versions {first} to {last}.", message.name),
            fields: &message.fields,
            present: (first..=last).collect(),
        };
        self.item(&root)?;
        let name = &message.name;
        let key = name.strip_suffix("Request").or(name.strip_suffix("Response"));
        let key = key.expect("a message's name ends in Request or Response");
        line!(self.out, "impl Message for {name} {{");
        line!(self.out, "    const KEY: ApiKey = ApiKey::{key};");
        line!(self.out, "    const VERSIONS: std::ops::RangeInclusive<i16> = {first}..={last};");
        let flexible = message.first_flexible;
        line!(self.out, "    const FIRST_FLEXIBLE: Option<i16> = {flexible:?};");
        line!(self.out, "}}");
        line!(self.out, "impl {name} {{");
        line!(self.out, "    /// Reads a body of `version`; what follows it is left unread.");
        line!(self.out, "    ///\n    /// # Errors\n    /// Another version, or malformed bytes.");
        line!(self.out, "    pub fn decode(r: &mut Reader, version: i16)");
        line!(self.out, "        -> Result<Self, DecodeError> {{");
        line!(self.out, "        <Self as Message>::decode_body(r, version)\n    }}");
        line!(self.out, "    /// Writes a body of `version`, dropping what it has no field for.");
        line!(self.out, "    pub fn encode(&self, version: i16, w: &mut Writer) {{");
        line!(self.out, "        <Self as Message>::encode_body(self, version, w);\n    }}\n}}");
        Ok(())
    }

    fn item(&mut self, item: &Item<'_>) -> Result<(), String> {
        if !self.names.insert(item.name.clone()) {
            return Err(format!("two structs are named {}", item.name));
        }
        let members = item.members();
        for member in &members {
            self.nested(item, member.field)?;
        }
        self.definition(item, &members);
        self.default(item, &members);
        line!(self.out, "impl Element for {} {{", item.name);
        line!(self.out, "    const MIN_BYTES: usize = {};", item.min_bytes()?);
        self.read(item, &members);
        self.write(item, &members);
        line!(self.out, "}}");
        line!(self.out, "impl Nullable for {} {{", item.name);
        line!(self.out, "    nullable_struct!();\n}}");
        Ok(())
    }

    fn nested(&mut self, item: &Item<'_>, field: &Field) -> Result<(), String> {
        let inner = match &field.ty {
            Type::Array(element) => element,
            other => other,
        };
        let Type::Struct(fields) = inner else { return Ok(()) };
        let present = item.present.iter().copied();
        self.item(&Item {
            message: item.message,
            name: struct_name(&item.name, field),
            doc: format!("`{}` of [`{}`].", field.name, item.name),
            fields,
            present: present.filter(|version| field.versions.contains(*version)).collect(),
        })
    }

    fn definition(&mut self, item: &Item<'_>, members: &[Member<'_>]) {
        line!(self.out, "/// {}", item.doc);
        line!(self.out, "#[derive(Clone, Debug, PartialEq)]");
        line!(self.out, "pub struct {} {{", item.name);
        for Member { field, name, ty, .. } in members {
            let tag = field.tag.map(|tag| format!(", tag {tag}")).unwrap_or_default();
            let null = field.nullable.map(|null| format!(", null {}", text(null)));
            let null = null.unwrap_or_default();
            let versions = text(field.versions);
            line!(self.out, "    /// `{}`: versions {versions}{null}{tag}.", field.name);
            line!(self.out, "    pub {name}: {ty},");
        }
        line!(self.out, "}}");
    }

    fn default(&mut self, item: &Item<'_>, members: &[Member<'_>]) {
        line!(self.out, "impl Default for {} {{", item.name);
        line!(self.out, "    fn default() -> Self {{\n        Self {{");
        for Member { name, default, .. } in members {
            line!(self.out, "            {name}: {default},");
        }
        line!(self.out, "        }}\n    }}\n}}");
    }

    fn read(&mut self, item: &Item<'_>, members: &[Member<'_>]) {
        line!(self.out, "    fn read(r: &mut Reader, version: i16, flexible: bool)");
        line!(self.out, "        -> Result<Self, DecodeError> {{");
        line!(self.out, "        let mut out = Self::default();");
        for member in members.iter().filter(|member| member.field.tag.is_none()) {
            let assign = format!("out.{} = {};", member.name, member.reading());
            match &member.when {
                When::If(condition) => line!(self.out, "        if {condition} {{ {assign} }}"),
                _ => line!(self.out, "        {assign}"),
            }
        }
        if item.message.first_flexible.is_some() {
            self.read_tags(members);
        }
        line!(self.out, "        Ok(out)\n    }}");
    }

    fn read_tags(&mut self, members: &[Member<'_>]) {
        if members.iter().all(|member| member.field.tag.is_none()) {
            line!(self.out, "        if flexible {{ r.skip_tags()?; }}");
            return;
        }
        line!(self.out, "        if flexible {{");
        line!(self.out, "            let mut tags = r.tags()?;");
        line!(self.out, "            while let Some(tag) = tags.next(r)? {{\n match tag {{");
        for member in members {
            let Some(tag) = member.field.tag else { continue };
            let guard = match &member.when {
                When::If(condition) => format!(" if {condition}"),
                _ => String::new(),
            };
            let (name, reading) = (&member.name, member.reading());
            line!(self.out, "                {tag}{guard} => out.{name} = {reading},");
        }
        line!(self.out, "                _ => tags.skip(r)?,\n }}\n }}\n }}");
    }

    fn write(&mut self, item: &Item<'_>, members: &[Member<'_>]) {
        line!(self.out, "    fn write(&self, w: &mut Writer, version: i16, flexible: bool) {{");
        for member in members.iter().filter(|member| member.field.tag.is_none()) {
            let writing = member.writing();
            match &member.when {
                When::If(condition) => line!(self.out, "        if {condition} {{ {writing}; }}"),
                _ => line!(self.out, "        {writing};"),
            }
        }
        if item.message.first_flexible.is_some() {
            self.write_tags(members);
        }
        line!(self.out, "    }}");
    }

    fn write_tags(&mut self, members: &[Member<'_>]) {
        if members.iter().all(|member| member.field.tag.is_none()) {
            line!(self.out, "        if flexible {{ w.put_uvarint(0); }}");
            return;
        }
        line!(self.out, "        if flexible {{");
        line!(self.out, "            let mut tags = TagWriter::default();");
        for member in members {
            let Some(tag) = member.field.tag else { continue };
            let set = match &member.when {
                When::If(condition) => format!("{condition} && {}", member.is_set()),
                _ => member.is_set(),
            };
            let writing = member.writing();
            line!(self.out, "            if {set} {{ tags.put({tag}, |w| {writing}); }}");
        }
        line!(self.out, "            tags.finish(w);\n        }}");
    }

    fn specs(&mut self, messages: &[Message]) {
        line!(self.out, "/// Every message of the table.");
        line!(self.out, "pub const MESSAGES: &[MessageSpec] = &[");
        for Message { key, is_request, name, versions, first_flexible, .. } in messages {
            let last = versions.last.expect("a message's versions are closed");
            line!(self.out, "    MessageSpec {{ key: {key}, is_request: {is_request},");
            line!(self.out, "        name: {name:?}, versions: ({}, {last}),", versions.first);
            line!(self.out, "        first_flexible: {first_flexible:?} }},");
        }
        line!(self.out, "];");
    }

    fn dispatcher(&mut self, messages: &[Message]) {
        line!(
            self.out,
            "/// Decodes a body of any message and encodes it again, if there is a writer."
        );
        line!(self.out, "///\n/// # Errors\n/// An unknown message or version, malformed bytes.");
        line!(self.out, "pub fn recode(of: MessageId, r: &mut Reader, w: Option<&mut Writer>)");
        line!(self.out, "    -> Result<(), DecodeError> {{");
        line!(self.out, "    match (of.key, of.is_request) {{");
        for Message { key, is_request, name, .. } in messages {
            line!(self.out, "        ({key}, {is_request}) =>");
            line!(self.out, "            recode_as::<{name}>(of.version, r, w),");
        }
        line!(self.out, "        _ => Err(DecodeError::UnsupportedVersion),\n    }}\n}}");
    }
}

impl<'a> Item<'a> {
    fn members(&self) -> Vec<Member<'a>> {
        let members = self.fields.iter().map(|field| self.member(field));
        members.filter(|member| !matches!(member.when, When::Never)).collect()
    }

    fn member(&self, field: &'a Field) -> Member<'a> {
        let present: Vec<i16> = self.versions_of(field).collect();
        let null = field.nullable.map_or(When::Never, |null| when(null, &present));
        let plain = self.ty(field, &field.ty);
        let literal = field.default.as_deref();
        let default = match (&null, literal) {
            (When::Never, _) => default(&field.ty, literal),
            (_, Some("null")) => "None".to_owned(),
            _ => format!("Some({})", default(&field.ty, literal)),
        };
        let ty = match null {
            When::Never => plain,
            _ => format!("Option<{plain}>"),
        };
        let when = when(field.versions, &self.present);
        Member { field, name: snake(&field.name), ty, when, null, default }
    }

    fn versions_of(&self, field: &Field) -> impl Iterator<Item = i16> {
        let versions = field.versions;
        self.present.clone().into_iter().filter(move |version| versions.contains(*version))
    }

    fn ty(&self, field: &Field, ty: &Type) -> String {
        match ty {
            Type::Array(element) => format!("Vec<{}>", self.ty(field, element)),
            Type::Struct(_) => struct_name(&self.name, field),
            Type::Scalar(scalar) => scalar_type(*scalar).to_owned(),
        }
    }

    /// The fewest bytes one takes in any version, which bounds how many a frame can hold.
    fn min_bytes(&self) -> Result<usize, String> {
        let sizes = self.present.iter().map(|version| {
            let there = |field: &&Field| field.tag.is_none() && field.versions.contains(*version);
            let fields: usize =
                self.fields.iter().filter(there).map(|f| min_bytes(f, *version)).sum();
            fields + usize::from(self.message.is_flexible(*version))
        });
        match sizes.min() {
            // Some requests have an empty body; an array of empty structs would be a bomb.
            Some(0) if self.name == self.message.name => Ok(1),
            None | Some(0) => Err(format!("{} may be empty on the wire", self.name)),
            Some(bytes) => Ok(bytes),
        }
    }
}

impl Member<'_> {
    fn reading(&self) -> String {
        match &self.null {
            When::Never => "Element::read(r, version, flexible)?".to_owned(),
            When::Always => "Nullable::read_nullable(r, version, flexible)?".to_owned(),
            When::If(allowed) => format!("read_null_if({allowed}, r, version, flexible)?"),
        }
    }

    fn writing(&self) -> String {
        let allowed = match &self.null {
            When::Never => return format!("self.{}.write(w, version, flexible)", self.name),
            When::Always => "true",
            When::If(allowed) => allowed,
        };
        format!("write_null_if({allowed}, &self.{}, w, version, flexible)", self.name)
    }

    /// Whether a tagged field differs from its default, else it is not sent.
    fn is_set(&self) -> String {
        match (&self.null, &self.field.ty, self.default.as_str()) {
            (When::Never, Type::Array(_), _) => format!("!self.{}.is_empty()", self.name),
            (_, _, "None") => format!("self.{}.is_some()", self.name),
            (_, _, "false") => format!("self.{}", self.name),
            (_, _, default) => format!("self.{} != {default}", self.name),
        }
    }
}

fn when(versions: Versions, present: &[i16]) -> When {
    let there = present.iter().filter(|version| versions.contains(**version)).count();
    let (Some(first), Some(last)) = (present.first(), present.last()) else { return When::Never };
    if there == 0 {
        return When::Never;
    }
    if there == present.len() {
        return When::Always;
    }
    let from = versions.first;
    When::If(match versions.last.filter(|to| to < last) {
        None => format!("version >= {from}"),
        Some(to) if from <= *first => format!("version <= {to}"),
        Some(to) => format!("({from}..={to}).contains(&version)"),
    })
}

fn min_bytes(field: &Field, version: i16) -> usize {
    match &field.ty {
        Type::Scalar(Scalar::Bool | Scalar::I8) => 1,
        Type::Scalar(Scalar::I16 | Scalar::U16) => 2,
        Type::Scalar(Scalar::I32) => 4,
        Type::Scalar(Scalar::I64 | Scalar::F64) => 8,
        Type::Scalar(Scalar::Uuid) => 16,
        // Lengths and presence bytes: one byte where flexible, and not less elsewhere.
        Type::Scalar(Scalar::Str | Scalar::Bytes | Scalar::Records) | Type::Array(_) => 1,
        Type::Struct(_) if field.nullable.is_some() => 1,
        Type::Struct(fields) => {
            let there = |f: &&Field| f.tag.is_none() && f.versions.contains(version);
            fields.iter().filter(there).map(|f| min_bytes(f, version)).sum()
        }
    }
}

fn scalar_type(scalar: Scalar) -> &'static str {
    match scalar {
        Scalar::Bool => "bool",
        Scalar::I8 => "i8",
        Scalar::I16 => "i16",
        Scalar::U16 => "u16",
        Scalar::I32 => "i32",
        Scalar::I64 => "i64",
        Scalar::F64 => "f64",
        Scalar::Uuid => "Uuid",
        Scalar::Str => "Str",
        Scalar::Bytes => "Bytes",
        Scalar::Records => "Records",
    }
}

fn default(ty: &Type, literal: Option<&str>) -> String {
    match (ty, literal) {
        (Type::Scalar(Scalar::Bool), literal) => literal.unwrap_or("false").to_owned(),
        (Type::Scalar(Scalar::F64), literal) => format!("{}_f64", literal.unwrap_or("0")),
        (Type::Scalar(Scalar::Uuid), None) => "Uuid::ZERO".to_owned(),
        (Type::Scalar(Scalar::Str), None) => "Str::EMPTY".to_owned(),
        (Type::Scalar(Scalar::Bytes), None) => "Bytes::new()".to_owned(),
        (Type::Scalar(Scalar::Records), None) => "Records::EMPTY".to_owned(),
        (Type::Scalar(_), literal) => literal.unwrap_or("0").to_owned(),
        (Type::Array(_), _) => "Vec::new()".to_owned(),
        (Type::Struct(_), _) => "Default::default()".to_owned(),
    }
}

fn struct_name(parent: &str, field: &Field) -> String {
    let (head, tail) = field.name.split_at(1);
    format!("{parent}{}{tail}", head.to_ascii_uppercase())
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    if out == "match" { format!("r#{out}") } else { out }
}

fn text(versions: Versions) -> String {
    match versions.last {
        None => format!("{}+", versions.first),
        Some(last) if last == versions.first => format!("{last}"),
        Some(last) => format!("{}-{last}", versions.first),
    }
}
