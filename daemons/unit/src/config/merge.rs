//! Merges TOML documents without forgetting where each value was written.
//!
//! The parser gives every key and value a range of positions in its text. Here the texts are thought
//! to follow one another, so positions are unique over all files; whatever the deserialiser complains
//! about afterwards is found again in its file.

use super::words::{Keys, reworded};
use super::{ConfigError, Text};
use serde::de::DeserializeOwned;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer};

/// The texts to be merged, in order.
#[derive(Debug)]
pub(super) struct Sources<'t> {
    texts: &'t [Text],
    /// Where each text begins. One position is left between two of them, since the end of a text
    /// is a position of that text.
    offsets: Vec<usize>,
}

impl<'t> Sources<'t> {
    pub(super) fn new(texts: &'t [Text]) -> Self {
        let mut next = 0;
        let offsets = texts
            .iter()
            .map(|text| {
                let offset = next;
                next += text.text.len() + 1;
                offset
            })
            .collect();
        Self { texts, offsets }
    }

    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let mut merged = DeTable::new();
        for (text, offset) in self.texts.iter().zip(&self.offsets) {
            let table = DeTable::parse(&text.text)
                .map_err(|error| self.locate(&error, *offset, &Keys::default()))?
                .into_inner();
            merge(&mut merged, shift_table(table, *offset));
        }
        let keys = Keys::of(&merged);
        // An empty range for the whole: what is missing from it has no line.
        let whole = Spanned::new(usize::MAX..usize::MAX, merged);
        T::deserialize(Deserializer::from(whole)).map_err(|error| self.locate(&error, 0, &keys))
    }

    fn locate(&self, error: &toml::de::Error, offset: usize, keys: &Keys) -> ConfigError {
        let message = error.message().trim_end().replace('\n', ", ");
        let position = error.span().map(|span| span.start.saturating_add(offset));
        let message = reworded(position.and_then(|position| keys.at(position)), &message);
        match position.and_then(|position| self.find(position)) {
            Some((file, line)) => ConfigError::Invalid {
                file: file.to_owned(),
                line,
                message,
            },
            None => {
                let files: Vec<&str> = self.texts.iter().map(|text| text.file.as_str()).collect();
                ConfigError::Whole {
                    message,
                    files: if files.is_empty() {
                        "no file".to_owned()
                    } else {
                        files.join(", ")
                    },
                }
            }
        }
    }

    /// File and line of a position.
    fn find(&self, position: usize) -> Option<(&'t str, usize)> {
        let index = self.offsets.partition_point(|offset| *offset <= position);
        let index = index.checked_sub(1)?;
        let text = &self.texts[index];
        let before = text.text.as_bytes().get(..position - self.offsets[index])?;
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Some((&text.file, line))
    }
}

/// Tables key by key; everything else is replaced.
fn merge<'i>(into: &mut DeTable<'i>, from: DeTable<'i>) {
    for (key, value) in from {
        // Taken out first: `insert` would keep the old key, and with it the old position.
        let before = into.remove(&key).map(Spanned::into_inner);
        let span = value.span();
        let value = match (before, value.into_inner()) {
            (Some(DeValue::Table(mut both)), DeValue::Table(new)) => {
                merge(&mut both, new);
                DeValue::Table(both)
            }
            (_, value) => value,
        };
        into.insert(key, Spanned::new(span, value));
    }
}

fn shift_table(table: DeTable<'_>, offset: usize) -> DeTable<'_> {
    table
        .into_iter()
        .map(|(key, value)| {
            let span = shifted(key.span(), offset);
            (Spanned::new(span, key.into_inner()), shift(value, offset))
        })
        .collect()
}

fn shift(value: Spanned<DeValue<'_>>, offset: usize) -> Spanned<DeValue<'_>> {
    let span = shifted(value.span(), offset);
    let value = match value.into_inner() {
        DeValue::Table(table) => DeValue::Table(shift_table(table, offset)),
        DeValue::Array(array) => DeValue::Array(
            array
                .into_iter()
                .map(|item| shift(item, offset))
                .collect::<DeArray<'_>>(),
        ),
        scalar => scalar,
    };
    Spanned::new(span, value)
}

fn shifted(span: Range<usize>, offset: usize) -> Range<usize> {
    span.start + offset..span.end + offset
}
