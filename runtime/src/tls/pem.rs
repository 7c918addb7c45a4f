//! Files of PEM, block by block (RFC 7468): one that can't be read leaves the others as they are.

use std::borrow::Cow;
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
    is_der: bool,
}

/// One block, from its BEGIN line to its END line.
#[derive(Debug)]
pub(super) struct Block {
    /// The first one is number 1.
    pub(super) number: usize,
    /// What it says it is, such as `CERTIFICATE`.
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

    /// Takes `text` apart. What is outside of blocks is no matter.
    pub(super) fn parse(text: &[u8]) -> Self {
        // A SEQUENCE, and nothing that anybody would write in front of a block.
        let is_der = text.starts_with(&[0x30]) && text.contains(&0);
        let mut blocks = Vec::new();
        let mut open: Option<Open> = None;
        for line in text.split(|byte| matches!(byte, b'\n' | b'\r')) {
            let line = line.trim_ascii();
            if let Some(label) = marker(line, b"-----BEGIN ") {
                blocks.extend(open.take().map(|open| open.cut_off(blocks.len() + 1)));
                open = Some(Open::new(label));
            } else if let Some(label) = marker(line, b"-----END ") {
                blocks.extend(open.take().map(|open| open.end(blocks.len() + 1, &label)));
            } else if let Some(open) = &mut open {
                open.push(line);
            }
        }
        blocks.extend(open.take().map(|open| open.cut_off(blocks.len() + 1)));
        Self { blocks, is_der }
    }

    /// Why there is no `what` in it, if there is none, and what there is instead.
    pub(super) fn lacks(&self, what: &str) -> String {
        let is_certificate = |block: &Block| block.label == CERTIFICATE;
        let instead = if self.is_der {
            "; it is DER, and has to be PEM (see openssl x509 and openssl pkey, -inform DER)".into()
        } else if self.blocks.is_empty() {
            " (no block between -----BEGIN and -----END)".into()
        } else if self.blocks.iter().any(Block::is_key) {
            ", but a private key; perhaps the files of the certificate and of the key are swapped"
                .into()
        } else if self.blocks.iter().any(is_certificate) {
            ", but a certificate; perhaps the files of the certificate and of the key are swapped"
                .into()
        } else {
            let mut labels: Vec<_> = self.blocks.iter().map(Block::shown_label).collect();
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

    /// Its number and what it says it is, for people.
    pub(super) fn shown(&self) -> String {
        format!("block {} ({})", self.number, self.shown_label())
    }

    fn shown_label(&self) -> String {
        self.label.escape_debug().take(LABEL_LEN_MAX).collect()
    }
}

/// A block whose end was not there yet.
struct Open {
    label: String,
    is_encrypted: bool,
    base64: Vec<u8>,
}

impl Open {
    fn new(label: Cow<'_, str>) -> Self {
        let is_encrypted = label.starts_with("ENCRYPTED ");
        Self { label: label.into_owned(), is_encrypted, base64: Vec::new() }
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

    fn end(self, number: usize, label: &str) -> Block {
        let der = if label == self.label {
            decode(&self.base64)
        } else {
            Err("its END line does not match its BEGIN line")
        };
        self.close(number, der)
    }

    fn close(self, number: usize, der: Result<Vec<u8>, &'static str>) -> Block {
        Block { number, label: self.label, is_encrypted: self.is_encrypted, der }
    }
}

/// The label of a line that begins or ends a block.
fn marker<'a>(line: &'a [u8], start: &[u8]) -> Option<Cow<'a, str>> {
    let label = line.strip_prefix(start)?.strip_suffix(b"-----")?;
    Some(String::from_utf8_lossy(label))
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

/// The most characters of a label that a line shows.
const LABEL_LEN_MAX: usize = 64;

/// The most labels that a line shows.
const LABELS_MAX: usize = 4;
