//! Reads a policy file's JSON and remembers where each value stands, so that every complaint names line, column, field.

use jsonc_parser::ast::{Array, Object, Value};
use jsonc_parser::common::{Range, Ranged};
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};
use wire::control::Raw;

/// What is wrong with a policy file, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {field}: {reason}")]
pub struct PolicyError {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Path of the field, such as `acls[2].dst[0]`.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

/// HuJSON: JSON, comments and trailing commas; nothing else of what the parser could read.
const HUJSON: ParseOptions = ParseOptions {
    allow_comments: true,
    allow_trailing_commas: true,
    allow_loose_object_property_names: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

/// A string, and where it stands.
pub(super) struct Text<'a> {
    pub(super) value: &'a str,
    pub(super) range: Range,
    pub(super) field: String,
}

/// The file's text, for turning offsets into lines.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    text: &'a str,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text }
    }

    /// The file as a tree.
    pub(super) fn parse(self) -> Result<Value<'a>, PolicyError> {
        let parsed = parse_to_ast(self.text, &CollectOptions::default(), &HUJSON).map_err(|error| {
            self.error(error.range(), "policy", format!("not valid HuJSON: {}", error.kind()))
        })?;
        let start = Range::new(0, 0);
        parsed
            .value
            .ok_or_else(|| self.error(start, "policy", "the file is empty; write {} to allow nothing"))
    }

    /// A complaint about what stands at `range`.
    pub(super) fn error(self, range: Range, field: &str, reason: impl Into<String>) -> PolicyError {
        let before = self.text.get(..range.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        PolicyError {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            field: field.to_owned(),
            reason: reason.into(),
        }
    }

    /// A complaint about `text`.
    pub(super) fn wrong(self, text: &Text<'_>, reason: impl Into<String>) -> PolicyError {
        self.error(text.range, &text.field, reason)
    }

    /// The entries of an object, each with its path; a name may stand there once.
    pub(super) fn entries<'v>(
        self,
        value: &'v Value<'a>,
        field: &str,
    ) -> Result<Vec<Entry<'v, 'a>>, PolicyError> {
        let Value::Object(Object { properties, .. }) = value else {
            return Err(self.error(value.range(), field, "expected an object { ... }"));
        };
        let mut entries: Vec<Entry<'v, 'a>> = Vec::with_capacity(properties.len());
        for property in properties {
            let name = property.name.as_str();
            let path = if field.is_empty() { name.to_owned() } else { format!("{field}.{name}") };
            if entries.iter().any(|entry| entry.name.value == name) {
                return Err(self.error(property.range, &path, "stands here twice"));
            }
            let name = Text { value: name, range: property.name.range(), field: path };
            entries.push(Entry { name, value: &property.value });
        }
        Ok(entries)
    }

    /// The elements of a list, each with its path.
    pub(super) fn elements<'v>(
        self,
        value: &'v Value<'a>,
        field: &str,
    ) -> Result<Vec<(&'v Value<'a>, String)>, PolicyError> {
        let Value::Array(Array { elements, .. }) = value else {
            return Err(self.error(value.range(), field, "expected a list [ ... ]"));
        };
        Ok(elements.iter().enumerate().map(|(index, value)| (value, format!("{field}[{index}]"))).collect())
    }

    /// A string.
    pub(super) fn text<'v>(self, value: &'v Value<'a>, field: &str) -> Result<Text<'v>, PolicyError> {
        match value {
            Value::StringLit(literal) => {
                Ok(Text { value: literal.value.as_ref(), range: literal.range, field: field.to_owned() })
            }
            other => Err(self.error(other.range(), field, "expected a string")),
        }
    }

    /// A list of objects, as JSON without comments; numbers as they stand there.
    pub(super) fn objects(self, value: &Value<'a>, field: &str) -> Result<Vec<Raw>, PolicyError> {
        let object = |(value, field): (&Value<'a>, String)| match value {
            Value::Object(_) => {
                let mut text = String::new();
                write_json(value, &mut text);
                let raw = serde_json::from_str(&text);
                raw.map_err(|error| self.error(value.range(), &field, format!("not valid JSON: {error}")))
            }
            other => Err(self.error(other.range(), &field, "expected an object { ... }")),
        };
        self.elements(value, field)?.into_iter().map(object).collect()
    }

    /// A list of strings.
    pub(super) fn texts<'v>(self, value: &'v Value<'a>, field: &str) -> Result<Vec<Text<'v>>, PolicyError> {
        self.elements(value, field)?.into_iter().map(|(value, field)| self.text(value, &field)).collect()
    }
}

/// Appends a value's plain JSON.
fn write_json(value: &Value<'_>, out: &mut String) {
    let string = |text: &str| serde_json::Value::from(text).to_string();
    match value {
        Value::NullKeyword(_) => out.push_str("null"),
        Value::BooleanLit(literal) => out.push_str(if literal.value { "true" } else { "false" }),
        Value::NumberLit(literal) => out.push_str(literal.value),
        Value::StringLit(literal) => out.push_str(&string(&literal.value)),
        Value::Array(array) => {
            out.push('[');
            for (index, element) in array.elements.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { "," });
                write_json(element, out);
            }
            out.push(']');
        }
        Value::Object(object) => {
            out.push('{');
            for (index, property) in object.properties.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { "," });
                out.push_str(&string(property.name.as_str()));
                out.push(':');
                write_json(&property.value, out);
            }
            out.push('}');
        }
    }
}

/// One name of an object and its value.
pub(super) struct Entry<'v, 'a> {
    pub(super) name: Text<'v>,
    pub(super) value: &'v Value<'a>,
}
