//! Patterns of auth servers: Go's syntax as far as the engine here means the same by it.
//!
//! What an auth server writes is meant for Go's regexp. A pattern that silently meant something
//! else here would let somebody in, so whatever Go refuses or reads differently is refused, by
//! name, as are a few things that only Go knows (`\Q…\E`, octal digits, classes of Unicode, a `{`
//! that stands for itself). Names are ASCII, so bytes are matched and Unicode is off.
//!
//! Source: nsqd-protocol.md section 16 ("RE2 syntax").

use alloc::format;
use alloc::string::{String, ToString};

use regex_syntax::ast::parse::Parser;
use regex_syntax::ast::{
    AssertionKind, Ast, ClassSetBinaryOp, ClassSetItem, Flag, Flags, FlagsItemKind, GroupKind,
    HexLiteralKind, Literal, LiteralKind, Repetition, RepetitionKind, RepetitionRange, Span,
    Visitor, visit,
};
use regex_syntax::hir::Hir;
use regex_syntax::hir::translate::TranslatorBuilder;

/// Reads `pattern`, or says why it is refused.
pub(super) fn parse(pattern: &str) -> Result<Hir, String> {
    let ast = Parser::new().parse(pattern).map_err(|error| error.kind().to_string())?;
    visit(&ast, Differences { pattern })?;
    TranslatorBuilder::new()
        .unicode(false)
        .utf8(false)
        .build()
        .translate(pattern, &ast)
        .map_err(|error| error.kind().to_string())
}

/// Looks for what Go refuses or reads differently.
struct Differences<'a> {
    pattern: &'a str,
}

impl Visitor for Differences<'_> {
    type Output = ();
    type Err = String;

    fn finish(self) -> Result<(), String> {
        Ok(())
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), String> {
        match ast {
            Ast::Flags(set) => self.flags(&set.flags),
            Ast::Group(group) => match &group.kind {
                GroupKind::CaptureIndex(_) => Ok(()),
                GroupKind::CaptureName { name, .. } => self.name(&name.name, &name.span),
                GroupKind::NonCapturing(flags) => self.flags(flags),
            },
            Ast::Literal(literal) => self.literal(literal),
            Ast::Assertion(assertion) => match assertion.kind {
                AssertionKind::StartLine
                | AssertionKind::EndLine
                | AssertionKind::StartText
                | AssertionKind::EndText
                | AssertionKind::WordBoundary
                | AssertionKind::NotWordBoundary => Ok(()),
                AssertionKind::WordBoundaryStart
                | AssertionKind::WordBoundaryEnd
                | AssertionKind::WordBoundaryStartAngle
                | AssertionKind::WordBoundaryEndAngle
                | AssertionKind::WordBoundaryStartHalf
                | AssertionKind::WordBoundaryEndHalf => self.refuse(&assertion.span),
            },
            Ast::Repetition(repetition) => self.repetition(repetition),
            // Classes of Unicode are refused by the translator, which is told that there is none.
            Ast::Empty(_)
            | Ast::Dot(_)
            | Ast::ClassUnicode(_)
            | Ast::ClassPerl(_)
            | Ast::ClassBracketed(_)
            | Ast::Alternation(_)
            | Ast::Concat(_) => Ok(()),
        }
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), String> {
        match item {
            ClassSetItem::Literal(literal) => self.literal(literal),
            ClassSetItem::Range(range) => {
                self.literal(&range.start)?;
                self.literal(&range.end)
            }
            // In Go a `[` within a class stands for itself.
            ClassSetItem::Bracketed(class) => self.refuse(&class.span),
            ClassSetItem::Empty(_)
            | ClassSetItem::Ascii(_)
            | ClassSetItem::Unicode(_)
            | ClassSetItem::Perl(_)
            | ClassSetItem::Union(_) => Ok(()),
        }
    }

    fn visit_class_set_binary_op_pre(&mut self, op: &ClassSetBinaryOp) -> Result<(), String> {
        // In Go `&&`, `--` and `~~` are characters of the class.
        self.refuse(&op.span)
    }
}

impl Differences<'_> {
    fn refuse(&self, span: &Span) -> Result<(), String> {
        let text = self.pattern.get(span.start.offset..span.end.offset).unwrap_or(self.pattern);
        Err(format!("`{text}` is refused: it has no meaning in RE2, or another one than here"))
    }

    fn flags(&self, flags: &Flags) -> Result<(), String> {
        for item in &flags.items {
            match item.kind {
                FlagsItemKind::Negation
                | FlagsItemKind::Flag(
                    Flag::CaseInsensitive
                    | Flag::MultiLine
                    | Flag::DotMatchesNewLine
                    | Flag::SwapGreed,
                ) => {}
                FlagsItemKind::Flag(Flag::Unicode | Flag::CRLF | Flag::IgnoreWhitespace) => {
                    return self.refuse(&item.span);
                }
            }
        }
        Ok(())
    }

    fn name(&self, name: &str, span: &Span) -> Result<(), String> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if name.bytes().all(is_word) { Ok(()) } else { self.refuse(span) }
    }

    fn literal(&self, literal: &Literal) -> Result<(), String> {
        match &literal.kind {
            LiteralKind::HexFixed(HexLiteralKind::X)
            | LiteralKind::HexBrace(HexLiteralKind::X)
            | LiteralKind::Verbatim
            | LiteralKind::Meta
            | LiteralKind::Superfluous
            | LiteralKind::Special(_) => Ok(()),
            LiteralKind::HexFixed(_) | LiteralKind::HexBrace(_) | LiteralKind::Octal => {
                self.refuse(&literal.span)
            }
        }
    }

    fn repetition(&self, repetition: &Repetition) -> Result<(), String> {
        if matches!(*repetition.ast, Ast::Repetition(_)) {
            return self.refuse(&repetition.span);
        }
        let RepetitionKind::Range(range) = &repetition.op.kind else { return Ok(()) };
        let (written, max) = match range {
            RepetitionRange::Exactly(count) => (format!("{{{count}}}"), *count),
            RepetitionRange::AtLeast(min) => (format!("{{{min},}}"), *min),
            RepetitionRange::Bounded(min, max) => (format!("{{{min},{max}}}"), *max),
        };
        // Go takes `{,2}`, `{01}` and `{ 1}` for characters.
        let span = &repetition.op.span;
        let text = self.pattern.get(span.start.offset..span.end.offset).unwrap_or_default();
        if text.trim_end_matches('?') == written && max <= REPEAT_MAX {
            Ok(())
        } else {
            self.refuse(span)
        }
    }
}

/// The most times that a repetition may ask for, as in Go.
const REPEAT_MAX: u32 = 1000;
