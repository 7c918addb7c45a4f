//! Files of PEM, block by block (RFC 7468): one that can't be read leaves the others as they are.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::{Error as PemError, PemObject};

use super::in_file;

/// What a file has in it.
#[derive(Debug)]
pub(super) struct Blocks {
    pub(super) blocks: Vec<Block>,
    /// What the file is, if it is no text.
    no_text: Option<&'static str>,
}

/// One block, from its BEGIN line to its END line.
#[derive(Debug)]
pub(super) struct Block {
    /// The first one is number 1.
    pub(super) number: usize,
    /// What it says it is, such as `CERTIFICATE`. Empty if that is no [`label`].
    pub(super) label: String,
    /// Whether it says that it is encrypted.
    pub(super) is_encrypted: bool,
    /// What is in it, or why it can't be read.
    pub(super) der: Result<Vec<u8>, &'static str>,
}

impl Blocks {
    /// Reads a file.
    ///
    /// # Errors
    /// If it can't be read, or is larger than [`FILE_LEN_MAX`]; the text names the file.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let mut text = Vec::new();
        let file = File::open(path).map_err(|error| in_file(path, error))?;
        file.take(FILE_LEN_MAX + 1).read_to_end(&mut text).map_err(|error| in_file(path, error))?;
        if text.len() as u64 > FILE_LEN_MAX {
            let why = format!("it is larger than {} MiB, too large for PEM", FILE_LEN_MAX >> 20);
            return Err(in_file(path, why));
        }
        Ok(Self::parse(&text))
    }

    /// Takes `text` apart. What is outside of blocks is no matter, nor is a mark that it is UTF-8.
    pub(super) fn parse(text: &[u8]) -> Self {
        let no_text = no_text(text);
        let text = text.strip_prefix(UTF_8).unwrap_or(text);
        let mut blocks = Vec::new();
        let mut open: Option<Open> = None;
        for line in text.split(|byte| matches!(byte, b'\n' | b'\r')) {
            let line = line.trim_ascii();
            if let Some((label, rest)) = marker(line, b"-----BEGIN ") {
                blocks.extend(open.take().map(|open| open.cut_off(blocks.len() + 1)));
                let begun = Open::new(label);
                if rest.is_empty() {
                    open = Some(begun);
                } else {
                    blocks.push(begun.close(blocks.len() + 1, Err(LINES_LOST)));
                }
            } else if let Some((label, rest)) = marker(line, b"-----END ") {
                let end = |open: Open| open.end(blocks.len() + 1, label, rest);
                blocks.extend(open.take().map(end));
            } else if let Some(open) = &mut open {
                open.push(line);
            }
        }
        blocks.extend(open.take().map(|open| open.cut_off(blocks.len() + 1)));
        Self { blocks, no_text }
    }

    /// Why there is no `what` in it, if there is none, and what there is instead.
    pub(super) fn lacks(&self, what: &str) -> String {
        let is_certificate = |block: &Block| block.label == CERTIFICATE;
        let instead = if let Some(no_text) = self.no_text {
            format!(": {no_text}")
        } else if self.blocks.is_empty() {
            " (no block between -----BEGIN and -----END)".into()
        } else if self.blocks.iter().any(Block::is_key) {
            ", but a private key; perhaps the files of the certificate and of the key are swapped"
                .into()
        } else if self.blocks.iter().any(is_certificate) {
            ", but a certificate; perhaps the files of the certificate and of the key are swapped"
                .into()
        } else {
            let shown = |block: &Block| match block.label.as_str() {
                "" => block.shown(),
                label => label.into(),
            };
            let mut labels: Vec<_> = self.blocks.iter().map(shown).collect();
            labels.dedup();
            labels.truncate(LABELS_MAX);
            format!(", but {}", labels.join(", "))
        };
        format!("there is no {what} in it{instead}")
    }
}

impl Block {
    /// Whether it is a private key, encrypted or not.
    pub(super) fn is_key(&self) -> bool {
        self.label == "PRIVATE KEY" || self.label.ends_with(" PRIVATE KEY")
    }

    /// Its number and what it says it is, for people. Nothing else of it is shown: it may be a key.
    pub(super) fn shown(&self) -> String {
        let Self { number, label, .. } = self;
        if label.is_empty() {
            format!("block {number}")
        } else {
            format!("block {number} ({label})")
        }
    }
}

/// A block whose end was not there yet.
struct Open {
    label: Option<String>,
    is_encrypted: bool,
    base64: Vec<u8>,
}

impl Open {
    fn new(marked: &[u8]) -> Self {
        let label = label(marked);
        let is_encrypted = label.is_some_and(|label| label.starts_with("ENCRYPTED "));
        Self { label: label.map(Into::into), is_encrypted, base64: Vec::new() }
    }

    fn push(&mut self, line: &[u8]) {
        if line.contains(&b':') {
            // A header, which certificates have none of, and keys only if they are encrypted.
            self.is_encrypted |= line.starts_with(b"Proc-Type:") && line.ends_with(b"ENCRYPTED");
            self.is_encrypted |= line.starts_with(b"DEK-Info:");
        } else {
            self.base64.extend_from_slice(line);
        }
    }

    fn cut_off(self, number: usize) -> Block {
        self.close(number, Err("it has no END line"))
    }

    fn end(self, number: usize, marked: &[u8], rest: &[u8]) -> Block {
        let der = if label(marked) != self.label.as_deref() {
            Err("its END line does not match its BEGIN line")
        } else if !rest.is_empty() {
            Err("there is more in its END line")
        } else {
            decode(&self.base64)
        };
        self.close(number, der)
    }

    fn close(self, number: usize, der: Result<Vec<u8>, &'static str>) -> Block {
        let label = self.label.unwrap_or_default();
        Block { number, label, is_encrypted: self.is_encrypted, der }
    }
}

/// What a line that begins or ends a block has for a label, and what comes after that.
fn marker<'a>(line: &'a [u8], start: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let marked = line.strip_prefix(start)?;
    let end = marked.windows(DASHES.len()).position(|five| five == DASHES)?;
    Some((&marked[..end], &marked[end + DASHES.len()..]))
}

/// The label that `marked` is. Lines show labels; what is none may be anything, also part of a key.
fn label(marked: &[u8]) -> Option<&str> {
    let is_fit = |byte: &u8| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b' ');
    let is_label = (1..=LABEL_LEN_MAX).contains(&marked.len()) && marked.iter().all(is_fit);
    str::from_utf8(marked).ok().filter(|_| is_label)
}

/// What a file is that has no text, or one that nobody here reads, and what to do about it.
fn no_text(file: &[u8]) -> Option<&'static str> {
    let has = |part: &[u8]| file.windows(part.len()).any(|window| window == part);
    if UTF_16.iter().any(|mark| file.starts_with(mark)) || has(UTF_16_DASHES) {
        Some("it is UTF-16; save it as UTF-8")
    } else if file.starts_with(&[0x30]) && file.contains(&0) {
        // A SEQUENCE, and nothing that anybody would write in front of a block.
        Some("it is DER, and has to be PEM (see openssl x509 and openssl pkey, -inform DER)")
    } else {
        None
    }
}

/// The bytes that `base64` stands for. It may be a key: so it is decoded as one, in constant time.
fn decode(base64: &[u8]) -> Result<Vec<u8>, &'static str> {
    let block = [b"-----BEGIN PRIVATE KEY-----\n", base64, b"\n-----END PRIVATE KEY-----\n"];
    let key = PrivatePkcs8KeyDer::from_pem_slice(&block.concat());
    match key {
        Ok(key) if key.secret_pkcs8_der().is_empty() => Err("it is empty"),
        Ok(key) => Ok(key.secret_pkcs8_der().to_vec()),
        Err(PemError::Base64Decode(_)) => Err("it is not valid base64"),
        Err(_) => Err("it is no PEM"),
    }
}

/// What a certificate's block says it is.
pub(super) const CERTIFICATE: &str = "CERTIFICATE";

/// The largest file, in bytes: some thousand certificates are a megabyte.
const FILE_LEN_MAX: u64 = 16 << 20;

/// What ends a label.
const DASHES: &[u8] = b"-----";

/// The most characters of a label. The longest that is in use has half of that.
const LABEL_LEN_MAX: usize = 64;

/// What is wrong with a block whose BEGIN line goes on.
const LINES_LOST: &str = "its BEGIN has to be a line of its own; perhaps its line ends were lost";

/// What some editors begin a file of UTF-8 with.
const UTF_8: &[u8] = b"\xef\xbb\xbf";

/// What files of UTF-16 begin with, in either order of bytes.
const UTF_16: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// Dashes in UTF-16, in either order of bytes, for files without a mark.
const UTF_16_DASHES: &[u8] = b"-\0-\0-\0";

/// The most labels that a line shows.
const LABELS_MAX: usize = 4;
