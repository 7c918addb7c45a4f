//! JSON objects, written member by member in a given order.

use alloc::string::String;
use core::fmt::{Display, Write as _};

use crate::protocol::json;

/// An object under way.
#[derive(Debug)]
pub(super) struct Members<'a> {
    out: &'a mut String,
    is_first: bool,
}

/// Appends an object with what `fill` adds to it.
pub(super) fn push_object(out: &mut String, fill: impl FnOnce(&mut Members<'_>)) {
    out.push('{');
    fill(&mut Members { out, is_first: true });
    out.push('}');
}

impl Members<'_> {
    /// Adds a member whose value is a string.
    pub(super) fn text(&mut self, key: &str, text: &str) {
        self.value(key, "");
        json::push_string(self.out, text);
    }

    /// Adds a member whose value shows itself as JSON: a number, a truth value, `null`.
    pub(super) fn value(&mut self, key: &str, value: impl Display) {
        if !self.is_first {
            self.out.push(',');
        }
        self.is_first = false;
        write!(self.out, "\"{key}\":{value}").expect("a String takes all text");
    }

    /// Adds a member whose value is an object.
    pub(super) fn object(&mut self, key: &str, fill: impl FnOnce(&mut Members<'_>)) {
        self.value(key, "");
        push_object(self.out, fill);
    }

    /// Adds a member whose value is a list with one object per item.
    pub(super) fn list<T>(
        &mut self,
        key: &str,
        items: impl IntoIterator<Item = T>,
        mut fill: impl FnMut(&mut Members<'_>, T),
    ) {
        self.value(key, "[");
        for (at, item) in items.into_iter().enumerate() {
            if at > 0 {
                self.out.push(',');
            }
            push_object(self.out, |members| fill(members, item));
        }
        self.out.push(']');
    }
}
