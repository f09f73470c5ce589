//! `scenario.yaml` as it is written: its members and their kinds, with places for what may be wrong.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) version: Spanned<u32>,
    pub(super) room: Spanned<String>,
    pub(super) audience: Spanned<String>,
    pub(super) timezone: Spanned<String>,
    pub(super) pace: Spanned<PaceFile>,
    #[serde(default)]
    pub(super) claims: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    pub(super) tables: BTreeMap<String, Vec<Spanned<RowFile>>>,
    pub(super) stories: Spanned<Vec<StoryFile>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PaceFile {
    pub(super) seconds: [f64; 2],
    pub(super) hours: Vec<f64>,
    #[serde(default)]
    pub(super) growth_percent_per_day: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoryFile {
    pub(super) weight: Option<Spanned<u32>>,
    pub(super) room: Option<Spanned<String>>,
    pub(super) audience: Option<Spanned<String>>,
    pub(super) priority: Option<Spanned<String>>,
    pub(super) key: Option<Spanned<String>>,
    pub(super) data: Ordered<Spanned<FieldFile>>,
    pub(super) steps: Spanned<Vec<StepFile>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StepFile {
    pub(super) r#type: Spanned<String>,
    pub(super) after_seconds: Option<Spanned<[f64; 2]>>,
    pub(super) chance: Option<Spanned<f64>>,
    pub(super) r#else: Option<Spanned<String>>,
    pub(super) room: Option<Spanned<String>>,
    pub(super) audience: Option<Spanned<String>>,
    pub(super) priority: Option<Spanned<String>>,
    pub(super) key: Option<Spanned<String>>,
    pub(super) data: Option<Ordered<Spanned<FieldFile>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Made {
    pub(super) multiply: Option<Vec<String>>,
    pub(super) quantity: Option<String>,
    pub(super) unit: Option<String>,
    pub(super) number: Option<String>,
    pub(super) object: Option<Ordered<FieldFile>>,
}

pub(super) enum FieldFile {
    Text(String),
    Made(Made),
}

/// A row as written: its cells by name, `weight` among them.
pub(super) struct RowFile(pub(super) BTreeMap<String, CellFile>);

pub(super) enum CellFile {
    Number(f64),
    Text(String),
    Texts(Vec<String>),
    Range(RangeFile),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RangeFile {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) step: f64,
}

/// A map that keeps the order of the file.
pub(super) struct Ordered<T>(pub(super) Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Ordered<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered<T>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Ordered(members))
            }
        }
        deserializer.deserialize_map(Members(std::marker::PhantomData))
    }
}

impl<'de> Deserialize<'de> for RowFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for FieldFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = FieldFile;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "text with {table.column} in it, { number: a }, { multiply: [a, b] }, { quantity: a, unit: b } or { object: { … } }",
                )
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<FieldFile, E> {
                Ok(FieldFile::Text(text.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<FieldFile, A::Error> {
                Made::deserialize(de::value::MapAccessDeserializer::new(map)).map(FieldFile::Made)
            }
        }
        deserializer.deserialize_any(Read)
    }
}

impl<'de> Deserialize<'de> for CellFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = CellFile;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, a list of texts, a number or { from, to, step }")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<CellFile, E> {
                Ok(CellFile::Text(text.to_owned()))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<CellFile, E> {
                u32::try_from(number)
                    .map(|n| CellFile::Number(n.into()))
                    .map_err(|_| E::custom("the number is too large"))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<CellFile, E> {
                i32::try_from(number)
                    .map(|n| CellFile::Number(n.into()))
                    .map_err(|_| E::custom("the number is too large"))
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<CellFile, E> {
                Ok(CellFile::Number(number))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<CellFile, A::Error> {
                Vec::deserialize(de::value::SeqAccessDeserializer::new(seq)).map(CellFile::Texts)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<CellFile, A::Error> {
                RangeFile::deserialize(de::value::MapAccessDeserializer::new(map)).map(CellFile::Range)
            }
        }
        deserializer.deserialize_any(Read)
    }
}
