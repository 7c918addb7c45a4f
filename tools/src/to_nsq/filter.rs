//! Which messages go on, and what of them, by their JSON (http-and-ops.md section 10.5).

use bytes::Bytes;
use serde_json::{Map, Number, Value};

/// What the flags ask for.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    /// A field that has to be there.
    pub(super) field: Option<String>,
    /// What it has to be.
    pub(super) value: Option<String>,
    /// The fields that go on; none: the message as it is.
    pub(super) whitelist: Vec<String>,
}

/// What becomes of a message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// This goes on.
    Pass(Bytes),
    /// Nothing does: it does not have what is required.
    Drop,
    /// Nothing does: it can't be looked into.
    NoObject,
}

impl Filter {
    pub(super) fn judge(&self, body: &Bytes) -> Verdict {
        if self.field.is_none() && self.whitelist.is_empty() {
            return Verdict::Pass(body.clone());
        }
        let Ok(mut object) = serde_json::from_slice::<Map<String, Value>>(body) else {
            return Verdict::NoObject;
        };
        if let Some(field) = &self.field {
            let Some(found) = object.get(field) else { return Verdict::Drop };
            if self.value.as_ref().is_some_and(|wanted| !is(found, wanted)) {
                return Verdict::Drop;
            }
        }
        if self.whitelist.is_empty() {
            return Verdict::Pass(body.clone());
        }
        let mut kept = Map::new();
        for field in &self.whitelist {
            if let Some(mut value) = object.remove(field) {
                shorten(&mut value);
                kept.insert(field.clone(), value);
            }
        }
        Verdict::Pass(Value::Object(kept).to_string().into())
    }
}

/// A string is compared as text, a number as a number; nothing else is anything.
fn is(found: &Value, wanted: &str) -> bool {
    match found {
        Value::String(text) => text == wanted,
        Value::Number(number) => match (number.as_f64(), wanted.parse::<f64>()) {
            (Some(found), Ok(wanted)) => found == wanted,
            _ => false,
        },
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
    }
}

/// Writes whole numbers as such: `1.0` is `1`. The parser has seen to it that this ends.
fn shorten(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(float) = number.as_f64().filter(|_| number.is_f64())
                && float.trunc() == float
                && float.abs() < WHOLE_MAX
            {
                *number = Number::from(float as i64);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(shorten),
        Value::Object(object) => object.values_mut().for_each(shorten),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// 2^53: below it every whole number has a float of its own.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(filter: &Filter, body: &str) -> Verdict {
        filter.judge(&Bytes::copy_from_slice(body.as_bytes()))
    }

    fn pass(body: &str) -> Verdict {
        Verdict::Pass(Bytes::copy_from_slice(body.as_bytes()))
    }

    #[test]
    fn without_flags_anything_goes_on() {
        assert_eq!(judge(&Filter::default(), "no json"), pass("no json"));
    }

    #[test]
    fn a_field_may_be_required() {
        let filter = Filter { field: Some("a".into()), ..Filter::default() };
        assert_eq!(judge(&filter, r#"{ "a" : null}"#), pass(r#"{ "a" : null}"#));
        assert_eq!(judge(&filter, r#"{"b":1}"#), Verdict::Drop);
        for body in ["x", "[1]", "1", "", r#"{"a":1"#, &"[".repeat(100_000)] {
            assert_eq!(judge(&filter, body), Verdict::NoObject);
        }
    }

    #[test]
    fn its_value_may_be_required() {
        let filter = |value: &str| Filter {
            value: Some(value.into()),
            field: Some("a".into()),
            ..Filter::default()
        };
        for (value, body, passes) in [
            ("x", r#"{"a":"x"}"#, true),
            ("x", r#"{"a":"y"}"#, false),
            ("1", r#"{"a":1}"#, true),
            ("1.0", r#"{"a":1}"#, true),
            ("1e0", r#"{"a":1.0}"#, true),
            ("1", r#"{"a":"1"}"#, true),
            ("x", r#"{"a":1}"#, false),
            ("true", r#"{"a":true}"#, false),
            ("null", r#"{"a":null}"#, false),
            ("x", r#"{}"#, false),
        ] {
            assert_eq!(judge(&filter(value), body) == pass(body), passes, "{value} {body}");
        }
    }

    #[test]
    fn only_what_is_listed_goes_on() {
        let filter =
            Filter { whitelist: ["b", "a", "none"].map(String::from).into(), ..Filter::default() };
        assert_eq!(
            judge(&filter, r#"{"c":1, "b":[1.0, 1.5, {"z":2.0}], "a":18446744073709551615}"#),
            pass(r#"{"a":18446744073709551615,"b":[1,1.5,{"z":2}]}"#)
        );
        assert_eq!(judge(&filter, "{}"), pass("{}"));
        assert_eq!(judge(&filter, "[]"), Verdict::NoObject);
    }
}
