//! One story: what it draws, and the data its events carry.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use fastrand::Rng;
use roomcast_proto::event::Priority;
use roomcast_proto::ids::{Audience, Room, is_token};

use super::quoted;

/// Rows of which a story draws one.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) rows: Vec<Row>,
}

/// One row; heavier ones are drawn more often.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) weight: u32,
    pub(super) cells: BTreeMap<String, Cell>,
}

/// What a cell is drawn from. Numbers are in hundredths.
#[derive(Debug)]
pub(super) enum Cell {
    Texts(Vec<String>),
    Range { from: i64, to: i64, step: i64 },
}

/// A drawn cell.
#[derive(Debug, Clone)]
enum Drawn<'a> {
    Text(&'a str),
    Number(i64),
}

/// A cell of a table, by the table's place and the column's name; checked to be in every row.
#[derive(Debug, Clone)]
pub(super) struct Reference {
    table: usize,
    column: String,
}

/// A story's definition.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) weight: u32,
    pub(super) steps: Vec<Step>,
}

/// Where an event goes.
#[derive(Debug, Clone)]
pub(super) struct Whereto {
    pub(super) room: Template,
    pub(super) audience: Audience,
    pub(super) priority: Priority,
    /// The key of a state event.
    pub(super) key: Option<Template>,
}

/// One member of the data.
#[derive(Debug, Clone)]
pub(super) enum Field {
    /// Text with drawn parts.
    Text(Template),
    /// A number as it was drawn.
    Number(Reference),
    /// Members of its own.
    Object(Vec<(String, Field)>),
    /// A number with two decimals.
    Multiply(Reference, Reference),
    /// A count and its unit: `1 day`, `3 days`.
    Quantity(Reference, Reference),
}

/// One event of a story.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) kind: String,
    /// The type when the chance goes the other way; `None`: there is no event then, and the story ends.
    pub(super) otherwise: Option<String>,
    pub(super) chance: f64,
    /// After the step before.
    pub(super) after_seconds: [f64; 2],
    pub(super) whereto: Whereto,
    pub(super) data: Vec<(String, Field)>,
}

/// Text with drawn parts.
#[derive(Debug, Clone)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug, Clone)]
enum Part {
    Text(String),
    /// The story's number, filled with zeros up to a width.
    Number(usize),
    Cell(Reference),
}

impl Table {
    fn find(tables: &[Table], path: &str) -> Result<(Reference, Vec<bool>), String> {
        let (table, column) = path
            .split_once('.')
            .ok_or_else(|| format!("{path:?} is not table.column"))?;
        let index = tables
            .iter()
            .position(|found| found.name == table && !found.rows.is_empty())
            .ok_or_else(|| format!("no table {table:?} with rows"))?;
        let cells: Option<Vec<&Cell>> = tables[index]
            .rows
            .iter()
            .map(|row| row.cells.get(column))
            .collect();
        let cells = cells.ok_or_else(|| format!("no row cell {path}, or not in every row"))?;
        let numbers = cells
            .iter()
            .map(|cell| matches!(cell, Cell::Range { .. }))
            .collect();
        Ok((
            Reference {
                table: index,
                column: column.to_owned(),
            },
            numbers,
        ))
    }

    /// A cell that is a number in every row.
    ///
    /// # Errors
    /// What is expected instead.
    pub(super) fn number(tables: &[Table], path: &str) -> Result<Reference, String> {
        let (reference, numbers) = Self::find(tables, path)?;
        if numbers.iter().all(|number| *number) {
            Ok(reference)
        } else {
            Err(format!("{path} is not a number in every row"))
        }
    }

    /// A cell that is text in every row.
    ///
    /// # Errors
    /// What is expected instead.
    pub(super) fn text(tables: &[Table], path: &str) -> Result<Reference, String> {
        let (reference, numbers) = Self::find(tables, path)?;
        if numbers.iter().any(|number| *number) {
            Err(format!("{path} is not text in every row"))
        } else {
            Ok(reference)
        }
    }
}

impl Template {
    /// Reads `text {table.column} text {number:6}`.
    ///
    /// # Errors
    /// What is expected instead.
    pub(super) fn parse(text: &str, tables: &[Table]) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            if open > 0 {
                parts.push(Part::Text(rest[..open].to_owned()));
            }
            let close = rest[open..]
                .find('}')
                .ok_or_else(|| "\"{\" without \"}\"".to_owned())?
                + open;
            let inside = &rest[open + 1..close];
            parts.push(match inside.strip_prefix("number:") {
                Some(width) => match width.parse() {
                    Ok(width @ 1..=12) => Part::Number(width),
                    _ => return Err("number has a width from 1 to 12: {number:6}".to_owned()),
                },
                None => Part::Cell(Table::find(tables, inside)?.0),
            });
            rest = &rest[close + 1..];
        }
        if !rest.is_empty() || parts.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }

    /// Text without drawn parts.
    pub(super) fn of(text: &str) -> Self {
        Self(vec![Part::Text(text.to_owned())])
    }

    /// Whether it makes rooms, whatever is drawn.
    ///
    /// # Errors
    /// What is expected instead.
    pub(super) fn check_room(&self, tables: &[Table]) -> Result<(), String> {
        let mut sample = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => sample += text,
                Part::Number(width) => sample += &"0".repeat(*width),
                Part::Cell(Reference { table, column }) => {
                    let rows = tables.get(*table).map_or(&[][..], |table| &table.rows);
                    let cells = rows.iter().filter_map(|row| row.cells.get(column));
                    let good = |cell: &Cell| match cell {
                        Cell::Texts(texts) => texts.iter().all(|text| is_token(text)),
                        Cell::Range { from, step, .. } => from % 100 == 0 && (step % 100 == 0 || *step == 1),
                    };
                    if !cells.clone().all(good) {
                        return Err(format!("{column} holds what no part of a room's name can be"));
                    }
                    sample.push('0');
                }
            }
        }
        Room::parse(&sample).map(drop).map_err(|bad| bad.to_string())
    }

    /// The text for what was drawn.
    fn fill(&self, rows: &Rows<'_>, number: u64) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Number(width) => format!("{number:0width$}"),
            Part::Cell(reference) => rows.text(reference),
        };
        self.0.iter().map(part).collect()
    }
}

/// Draws an index by weight.
pub(super) fn weighted(rng: &mut Rng, weights: impl Iterator<Item = u32> + Clone) -> usize {
    let total: u64 = weights.clone().map(u64::from).sum();
    let mut drawn = rng.u64(0..total.max(1));
    for (index, weight) in weights.enumerate() {
        match drawn.checked_sub(u64::from(weight)) {
            Some(left) => drawn = left,
            None => return index,
        }
    }
    0
}

/// What a story has drawn: a row of each table.
#[derive(Debug)]
pub(super) struct Rows<'a>(Vec<BTreeMap<&'a str, Drawn<'a>>>);

impl<'a> Rows<'a> {
    /// Draws them.
    pub(super) fn draw(tables: &'a [Table], rng: &mut Rng) -> Self {
        Self(tables.iter().map(|table| draw(table, rng)).collect())
    }

    fn cell(&self, reference: &Reference) -> Option<&Drawn<'a>> {
        self.0.get(reference.table)?.get(reference.column.as_str())
    }

    fn hundredths(&self, reference: &Reference) -> i64 {
        match self.cell(reference) {
            Some(Drawn::Number(number)) => *number,
            _ => 0,
        }
    }

    fn text(&self, reference: &Reference) -> String {
        match self.cell(reference) {
            Some(Drawn::Text(text)) => (*text).to_owned(),
            Some(Drawn::Number(number)) => short(*number),
            None => String::new(),
        }
    }
}

impl Step {
    /// The data of the event, as JSON.
    pub(super) fn data(&self, rows: &Rows<'_>, number: u64) -> String {
        object(&self.data, rows, number)
    }

    /// The attributes that say where it goes, as members of a JSON object.
    pub(super) fn attributes(&self, rows: &Rows<'_>, number: u64) -> String {
        let Whereto {
            room,
            audience,
            priority,
            key,
        } = &self.whereto;
        let mut text = format!(
            "\"room\":{},\"audience\":{}",
            quoted(&room.fill(rows, number)),
            quoted(audience.as_str())
        );
        if *priority != Priority::default() {
            let _ = write!(text, ",\"priority\":{}", quoted(priority.as_str()));
        }
        if let Some(key) = key {
            let _ = write!(
                text,
                ",\"delivery\":\"state\",\"statekey\":{}",
                quoted(&key.fill(rows, number))
            );
        }
        text
    }
}

fn object(fields: &[(String, Field)], rows: &Rows<'_>, number: u64) -> String {
    let mut json = String::with_capacity(256);
    for (index, (name, field)) in fields.iter().enumerate() {
        let separator = if index == 0 { '{' } else { ',' };
        let value = field.value(rows, number);
        let _ = write!(json, "{separator}{}:{value}", quoted(name));
    }
    json.push_str(if fields.is_empty() { "{}" } else { "}" });
    json
}

fn draw<'a>(table: &'a Table, rng: &mut Rng) -> BTreeMap<&'a str, Drawn<'a>> {
    let Some(row) = table
        .rows
        .get(weighted(rng, table.rows.iter().map(|row| row.weight)))
    else {
        return BTreeMap::new();
    };
    row.cells
        .iter()
        .map(|(column, cell)| (column.as_str(), cell.draw(rng)))
        .collect()
}

impl Cell {
    fn draw(&self, rng: &mut Rng) -> Drawn<'_> {
        match self {
            Self::Texts(texts) => Drawn::Text(rng.choice(texts).map_or("", String::as_str)),
            Self::Range { from, to, step } => Drawn::Number(from + step * rng.i64(0..=(to - from) / step)),
        }
    }
}

impl Field {
    fn value(&self, rows: &Rows<'_>, number: u64) -> String {
        match self {
            Self::Text(template) => quoted(&template.fill(rows, number)),
            Self::Number(reference) => short(rows.hundredths(reference)),
            Self::Object(members) => object(members, rows, number),
            Self::Multiply(a, b) => {
                let product = (rows.hundredths(a) * rows.hundredths(b) + 50) / 100;
                format!("{}.{:02}", product / 100, product % 100)
            }
            Self::Quantity(count, unit) => {
                let plural = if rows.hundredths(count) == 100 { "" } else { "s" };
                quoted(&format!(
                    "{} {}{plural}",
                    short(rows.hundredths(count)),
                    rows.text(unit)
                ))
            }
        }
    }
}

/// Hundredths without needless zeros: `3`, `12.5`.
fn short(hundredths: i64) -> String {
    let text = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_short_and_exact() {
        for (hundredths, text) in [
            (0, "0"),
            (300, "3"),
            (1250, "12.5"),
            (1205, "12.05"),
            (100_000, "1000"),
        ] {
            assert_eq!(short(hundredths), text);
        }
    }

    #[test]
    fn weights_decide_how_often() {
        let mut rng = Rng::with_seed(7);
        let mut counts = [0_u32; 3];
        for _ in 0..10_000 {
            counts[weighted(&mut rng, [8, 0, 2].into_iter())] += 1;
        }
        assert!(
            (7_700..8_300).contains(&counts[0]) && counts[1] == 0,
            "{counts:?}"
        );
    }
}
