//! What `$name` stands for in a step.

use std::collections::BTreeMap;

use anyhow::Context;
use serde_json::{Map, Value};

/// Names and what they stand for.
#[derive(Clone, Debug, Default)]
pub struct Variables(BTreeMap<String, Value>);

impl Variables {
    /// From now on `name` stands for `value`.
    pub fn set(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }

    /// What `name` stands for.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// `value` with every variable in it replaced.
    ///
    /// # Errors
    /// A name stands for nothing.
    pub fn filled(&self, value: &Value) -> anyhow::Result<Value> {
        Ok(match value {
            Value::String(text) => self.text(text)?,
            Value::Array(values) => {
                values.iter().map(|value| self.filled(value)).collect::<Result<_, _>>()?
            }
            Value::Object(fields) => {
                let field = |(name, value): (&String, _)| Ok((name.clone(), self.filled(value)?));
                Value::Object(fields.iter().map(field).collect::<anyhow::Result<Map<_, _>>>()?)
            }
            other => other.clone(),
        })
    }

    fn named(&self, name: &str) -> anyhow::Result<&Value> {
        self.get(name).with_context(|| format!("${name} stands for nothing"))
    }

    fn text(&self, text: &str) -> anyhow::Result<Value> {
        if let Some(name) = text.strip_prefix('$').filter(|name| !name.starts_with('{')) {
            let name = &*self.spliced(name)?;
            let sign = name.find(['+', '-']).filter(|at| 0 < *at);
            let Some(at) = sign else { return self.named(name).cloned() };
            let number = self.named(&name[..at])?.as_i64().context("not a number")?;
            return Ok((number + name[at..].parse::<i64>()?).into());
        }
        Ok(self.spliced(text)?.into())
    }

    /// `text` with what each `${name}` in it stands for.
    ///
    /// # Errors
    /// A name stands for nothing.
    pub fn spliced(&self, text: &str) -> anyhow::Result<String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some((head, tail)) = rest.split_once("${") {
            let (name, behind) = tail.split_once('}').context("${ without }")?;
            let value = self.named(name)?;
            out.push_str(head);
            out.push_str(&value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            rest = behind;
        }
        Ok(out + rest)
    }
}
