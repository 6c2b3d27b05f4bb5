//! Long texts, encrypted in chunks: what is written to a backup or an archive. The one owner of that
//! format; memory is constant in both directions.
//!
//! ```text
//! FQSEAL01 │ key id (8) │ salt (32) │ chunk │ chunk │ … │ last chunk
//!            │                        └ head (4): the highest bit marks the last chunk, the rest is
//!            │                          the length of its text; then cipher text and tag (16)
//!            └ says under which key, so that a wrong one is named as such; gives nothing away
//! ```
//!
//! Each stream has a key of its own: HMAC-SHA256 of head and context under the master key. Its
//! nonces count the chunks, so none is used twice, and a chunk that was cut off, moved, or taken from
//! another stream does not open. AES-256-GCM.

use crate::aead::{aes_key, open_with, seal_with};
use crate::digest::{hex_lower, hmac_sha256};
use crate::random_bytes;
use aws_lc_rs::aead::LessSafeKey;
use std::io::{self, Read, Write};

const MAGIC: &[u8; 8] = b"FQSEAL01";
const HEAD: usize = 8 + 8 + 32;
/// Text of a chunk: large enough for the tag to weigh nothing, small enough for many at once.
const CHUNK: usize = 64 * 1024;
const TAG: usize = 16;
const LAST: u32 = 1 << 31;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    #[error("it does not begin like a sealed stream of this program")]
    NotSealed,
    #[error("it is sealed under the key {theirs}, not under the one that was given ({ours})")]
    OtherKey { theirs: String, ours: String },
    #[error("it was changed, or is not what it is called: chunk {chunk} does not open")]
    Changed { chunk: u64 },
    #[error("it is cut off after {chunk} whole chunks")]
    Cut { chunk: u64 },
    #[error("something follows its last chunk")]
    Longer,
}

impl StreamError {
    /// What is wrong with a stream, if that is why reading it failed.
    pub fn of(error: &io::Error) -> Option<&StreamError> {
        error.get_ref()?.downcast_ref()
    }
}

fn refused<T>(error: StreamError) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidData, error))
}

/// What a key is called in a stream's head. Public.
pub fn stream_key_id(key: &[u8; 32]) -> String {
    hex_lower(&key_id(key))
}

fn key_id(key: &[u8; 32]) -> [u8; 8] {
    let tag = hmac_sha256(key, b"feiqian stream key id");
    tag[..8].try_into().expect("a tag has 32 bytes")
}

fn stream_key(key: &[u8; 32], head: &[u8; HEAD], context: &str) -> LessSafeKey {
    let label = [b"feiqian stream key\0".as_slice(), head, context.as_bytes()].concat();
    aes_key(&hmac_sha256(key, &label))
}

fn nonce(chunk: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&chunk.to_be_bytes());
    nonce
}

/// Encrypts what is written to it. Without [`SealedWriter::finish`] the stream has no end and no
/// reader accepts it.
pub struct SealedWriter<W: Write> {
    inner: W,
    key: LessSafeKey,
    chunk: u64,
    text: Vec<u8>,
}

impl<W: Write> SealedWriter<W> {
    /// - Input: `context` says what the stream is, such as a file's name. Reading needs the same.
    pub fn new(mut inner: W, key: &[u8; 32], context: &str) -> io::Result<SealedWriter<W>> {
        let mut head = [0; HEAD];
        head[..8].copy_from_slice(MAGIC);
        head[8..16].copy_from_slice(&key_id(key));
        head[16..].copy_from_slice(&random_bytes::<32>());
        inner.write_all(&head)?;
        let key = stream_key(key, &head, context);
        Ok(SealedWriter { inner, key, chunk: 0, text: Vec::with_capacity(CHUNK) })
    }

    fn seal(&mut self, last: bool) -> io::Result<()> {
        let length = u32::try_from(self.text.len()).expect("a chunk is 64 KiB at most");
        let head = (length | if last { LAST } else { 0 }).to_be_bytes();
        let closed = seal_with(&self.key, &nonce(self.chunk), &head, &self.text);
        self.inner.write_all(&head)?;
        self.inner.write_all(&closed)?;
        self.chunk += 1;
        self.text.clear();
        Ok(())
    }

    /// Writes the end. The inner writer is flushed, not synced.
    pub fn finish(mut self) -> io::Result<W> {
        self.seal(true)?;
        self.inner.flush()?;
        Ok(self.inner)
    }
}

impl<W: Write> Write for SealedWriter<W> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        // A full chunk waits for the next byte: it may be the last one.
        if self.text.len() == CHUNK {
            self.seal(false)?;
        }
        let taken = text.len().min(CHUNK - self.text.len());
        self.text.extend_from_slice(&text[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Reads what [`SealedWriter`] wrote. Hands out no byte that was not authenticated, and says that
/// the stream ends only where it was ended.
pub struct SealedReader<R: Read> {
    inner: R,
    key: LessSafeKey,
    chunk: u64,
    text: Vec<u8>,
    at: usize,
    ended: bool,
}

impl<R: Read> SealedReader<R> {
    /// - Errors: [`StreamError`] inside the `io::Error`, here and in reading.
    pub fn new(mut inner: R, key: &[u8; 32], context: &str) -> io::Result<SealedReader<R>> {
        let mut head = [0; HEAD];
        if fill(&mut inner, &mut head)? < HEAD || !head.starts_with(MAGIC) {
            return refused(StreamError::NotSealed);
        }
        if head[8..16] != key_id(key) {
            let theirs = hex_lower(&head[8..16]);
            return refused(StreamError::OtherKey { theirs, ours: stream_key_id(key) });
        }
        let key = stream_key(key, &head, context);
        Ok(SealedReader { inner, key, chunk: 0, text: Vec::new(), at: 0, ended: false })
    }

    fn open(&mut self) -> io::Result<()> {
        let chunk = self.chunk;
        let mut head = [0; 4];
        if fill(&mut self.inner, &mut head)? < head.len() {
            return refused(StreamError::Cut { chunk });
        }
        let word = u32::from_be_bytes(head);
        let length = usize::try_from(word & !LAST).unwrap_or(usize::MAX);
        if length > CHUNK {
            return refused(StreamError::Changed { chunk });
        }
        let mut closed = vec![0; length + TAG];
        if fill(&mut self.inner, &mut closed)? < closed.len() {
            return refused(StreamError::Cut { chunk });
        }
        self.text = match open_with(&self.key, &nonce(chunk), &head, &closed) {
            Ok(text) => text,
            Err(_) => return refused(StreamError::Changed { chunk }),
        };
        (self.at, self.chunk) = (0, chunk + 1);
        if word & LAST != 0 {
            if fill(&mut self.inner, &mut [0])? > 0 {
                return refused(StreamError::Longer);
            }
            self.ended = true;
        }
        Ok(())
    }
}

impl<R: Read> Read for SealedReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.text.len() && !self.ended {
            self.open()?;
        }
        let taken = into.len().min(self.text.len() - self.at);
        into[..taken].copy_from_slice(&self.text[self.at..self.at + taken]);
        self.at += taken;
        Ok(taken)
    }
}

/// Reads until `into` is full or nothing more comes; returns how much came.
fn fill(from: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match from.read(&mut into[filled..]) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: [u8; 32] = [7; 32];

    fn sealed(text: &[u8]) -> Vec<u8> {
        let mut writer = SealedWriter::new(Vec::new(), &KEY, "c").unwrap();
        writer.write_all(text).unwrap();
        writer.finish().unwrap()
    }

    fn opened(key: &[u8; 32], context: &str, closed: &[u8]) -> Result<Vec<u8>, StreamError> {
        let read = |closed| -> io::Result<Vec<u8>> {
            let mut text = Vec::new();
            SealedReader::new(closed, key, context)?.read_to_end(&mut text)?;
            Ok(text)
        };
        read(closed).map_err(|error| StreamError::of(&error).expect("nothing else fails").clone())
    }

    fn text(length: usize) -> Vec<u8> {
        (0..length).map(|it| u8::try_from(it % 251).unwrap()).collect()
    }

    #[test]
    fn whole_chunks_are_no_special_case() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5] {
            assert_eq!(opened(&KEY, "c", &sealed(&text(length))), Ok(text(length)), "{length}");
        }
    }

    #[test]
    fn each_way_to_be_wrong_has_a_name() {
        let closed = sealed(&text(3 * CHUNK));
        let one = 4 + CHUNK + TAG;
        let check = |closed: &[u8], want| assert_eq!(opened(&KEY, "c", closed), Err(want));
        check(b"", StreamError::NotSealed);
        check(&[b'x'; 100], StreamError::NotSealed);
        check(&closed[..closed.len() - 1], StreamError::Cut { chunk: 2 });
        check(&closed[..HEAD + 2 * one], StreamError::Cut { chunk: 2 });
        check(&closed[..HEAD], StreamError::Cut { chunk: 0 });
        check(&[closed.as_slice(), b"x"].concat(), StreamError::Longer);
        // Two chunks exchanged, and one left out.
        let (head, rest) = closed.split_at(HEAD);
        let swapped = [head, &rest[one..2 * one], &rest[..one], &rest[2 * one..]].concat();
        check(&swapped, StreamError::Changed { chunk: 0 });
        check(&[head, &rest[..one], &rest[2 * one..]].concat(), StreamError::Changed { chunk: 1 });
        // A chunk of another stream under the same key.
        let other = sealed(&text(3 * CHUNK));
        let mixed = [&closed[..HEAD + one], &other[HEAD + one..]].concat();
        check(&mixed, StreamError::Changed { chunk: 1 });

        let renamed = opened(&KEY, "d", &closed);
        assert_eq!(renamed, Err(StreamError::Changed { chunk: 0 }));
        let wrong = opened(&[8; 32], "c", &closed);
        assert!(matches!(wrong, Err(StreamError::OtherKey { .. })), "{wrong:?}");
    }

    #[test]
    fn the_same_text_is_never_sealed_the_same() {
        assert_ne!(sealed(b"text")[HEAD..], sealed(b"text")[HEAD..]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn it_reads_back_however_it_was_written(
            parts in prop::collection::vec(0_usize..90_000, 0..5),
        ) {
            let mut writer = SealedWriter::new(Vec::new(), &KEY, "c").unwrap();
            let mut whole = Vec::new();
            for part in parts {
                writer.write_all(&text(part)).unwrap();
                whole.extend(text(part));
            }
            prop_assert_eq!(opened(&KEY, "c", &writer.finish().unwrap()), Ok(whole));
        }

        #[test]
        fn any_flipped_bit_and_any_cut_are_noticed(
            length in 0_usize..140_000,
            at in any::<prop::sample::Index>(),
            bit in 0_u8..8,
        ) {
            let closed = sealed(&text(length));
            let at = at.index(closed.len());
            prop_assert!(opened(&KEY, "c", &closed[..at]).is_err());
            let mut flipped = closed;
            flipped[at] ^= 1 << bit;
            prop_assert!(opened(&KEY, "c", &flipped).is_err());
        }

        #[test]
        fn any_bytes_are_answered(rest in prop::collection::vec(any::<u8>(), 0..200)) {
            let head = &sealed(b"")[..HEAD];
            prop_assert!(opened(&KEY, "c", &[head, &rest].concat()).is_err());
            prop_assert!(opened(&KEY, "c", &rest).is_err());
        }
    }
}
