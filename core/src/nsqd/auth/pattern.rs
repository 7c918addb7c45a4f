//! Compiled patterns, shared by all connections of a shard that have the same.
//!
//! An auth server gives most of its clients the same few patterns, and a compiled one is some
//! kilobytes. Limits: [`PATTERNS_MAX`], [`PATTERN_SIZE_MAX`]. Matching takes time in proportion to
//! the name's length (64 bytes at most) times the pattern's size.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use core::fmt;

use regex_automata::nfa::thompson::pikevm::{Cache, PikeVM};
use regex_automata::nfa::thompson::{Compiler, Config, WhichCaptures};

use super::syntax::parse;

/// The most compiled patterns that a shard remembers. At one more it forgets all; connections keep
/// those that they have.
pub const PATTERNS_MAX: usize = 1024;

/// Bytes that one compiled pattern may have. A larger one is refused like one that does not
/// compile.
pub const PATTERN_SIZE_MAX: usize = 256 * 1024;

/// A compiled pattern. A clone costs next to nothing.
#[derive(Clone)]
pub(crate) struct Pattern(PikeVM);

/// What a shard remembers about patterns.
#[derive(Default)]
pub(crate) struct Patterns {
    compiled: BTreeMap<Box<str>, Pattern>,
    scratch: Option<Cache>,
}

impl Patterns {
    /// Compiles a pattern in Go's syntax, unless it is known.
    pub(super) fn compile(&mut self, pattern: &str) -> Result<Pattern, String> {
        if let Some(known) = self.compiled.get(pattern) {
            return Ok(known.clone());
        }
        let compiled = compile(pattern)?;
        if self.compiled.len() >= PATTERNS_MAX {
            self.compiled.clear();
        }
        self.compiled.insert(pattern.into(), compiled.clone());
        Ok(compiled)
    }

    /// Whether the pattern matches some part of `name`.
    pub(super) fn is_match(&mut self, pattern: &Pattern, name: &str) -> bool {
        let scratch = self.scratch.get_or_insert_with(|| pattern.0.create_cache());
        scratch.reset(&pattern.0);
        pattern.0.is_match(scratch, name)
    }
}

fn compile(pattern: &str) -> Result<Pattern, String> {
    let config = Config::new()
        .utf8(false)
        .nfa_size_limit(Some(PATTERN_SIZE_MAX))
        .which_captures(WhichCaptures::None);
    let nfa = Compiler::new()
        .configure(config)
        .build_from_hir(&parse(pattern)?)
        .map_err(|error| error.to_string())?;
    PikeVM::builder().build_from_nfa(nfa).map(Pattern).map_err(|error| error.to_string())
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pattern")
    }
}

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patterns").field("compiled", &self.compiled.len()).finish_non_exhaustive()
    }
}
