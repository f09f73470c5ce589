//! The way from `scenario.yaml` to a [`Scenario`]: every rule, and the place where one is broken.

use roomcast_proto::event::Priority;
use roomcast_proto::ids::{Audience, Room};
use serde_saphyr::{Location, Spanned};

use super::Scenario;
use super::pace::Pace;
use super::story::{Cell, Field, Row, Step, Story, Table, Template, Whereto};
use super::written::{CellFile, FieldFile, File, Ordered, PaceFile, RangeFile, RowFile, StepFile, StoryFile};

/// Largest number a cell may hold; a product of two stays far inside 64 bits.
const NUMBER_MAX: f64 = 1e7;

/// What is wrong and where.
pub(super) struct Wrong {
    pub(super) at: Location,
    pub(super) message: String,
}

/// Ties a message to a place.
fn wrong<T>(spanned: &Spanned<T>, message: impl Into<String>) -> Wrong {
    Wrong {
        at: spanned.referenced,
        message: message.into(),
    }
}

/// Reads and checks a scenario.
pub(super) fn parse(text: &str) -> Result<Scenario, Wrong> {
    let mut options = serde_saphyr::Options::default();
    options.with_snippet = false;
    let file: File = serde_saphyr::from_str_with_options(text, options).map_err(|error| Wrong {
        at: error.location().unwrap_or(Location::UNKNOWN),
        message: words(&error),
    })?;
    if file.version.value != 1 {
        return Err(wrong(
            &file.version,
            format!("version {} is not known; this is version 1", file.version.value),
        ));
    }
    let room = Room::parse(&file.room.value).map_err(|bad| wrong(&file.room, bad.to_string()))?;
    let audience =
        Audience::parse(&file.audience.value).map_err(|bad| wrong(&file.audience, bad.to_string()))?;
    let zone = jiff::tz::TimeZone::get(&file.timezone.value).map_err(|_| {
        wrong(
            &file.timezone,
            format!("{:?} is not an IANA time zone", file.timezone.value),
        )
    })?;
    let PaceFile {
        seconds,
        ref hours,
        growth_percent_per_day,
    } = file.pace.value;
    let pace = Pace::new(seconds, hours, growth_percent_per_day, zone)
        .map_err(|message| wrong(&file.pace, message))?;
    let tables = file
        .tables
        .into_iter()
        .map(table)
        .collect::<Result<Vec<_>, _>>()?;
    let everywhere = Whereto {
        room: Template::of(room.as_str()),
        audience: audience.clone(),
        priority: Priority::default(),
        key: None,
    };
    if file.stories.value.is_empty() {
        return Err(wrong(&file.stories, "there is no story to tell"));
    }
    let stories = file
        .stories
        .value
        .into_iter()
        .map(|found| story(found, &everywhere, &tables))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Scenario {
        room,
        audience,
        claims: file.claims,
        pace,
        tables,
        stories,
    })
}

/// The error's words without the place, which is told separately.
fn words(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let text = text.split(" at line ").next().unwrap_or(&text);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn table((name, rows): (String, Vec<Spanned<RowFile>>)) -> Result<Table, Wrong> {
    let rows = rows
        .into_iter()
        .map(|spanned| {
            let Spanned {
                value: RowFile(mut cells),
                referenced: at,
                ..
            } = spanned;
            let fail = |message: String| Wrong { at, message };
            let weight = match cells.remove("weight") {
                None => 1.0,
                Some(CellFile::Number(weight)) => weight,
                Some(_) => return Err(fail("weight is a number".to_owned())),
            };
            let weight = weight_of(weight).map_err(fail)?;
            let cells = cells
                .into_iter()
                .map(|(column, found)| Ok((column, cell(found)?)))
                .collect::<Result<_, String>>();
            Ok(Row {
                weight,
                cells: cells.map_err(fail)?,
            })
        })
        .collect::<Result<Vec<_>, Wrong>>()?;
    Ok(Table { name, rows })
}

fn weight_of(weight: f64) -> Result<u32, String> {
    let whole = hundredths(weight)
        .ok()
        .filter(|&found| found > 0 && found % 100 == 0)
        .map(|found| found / 100);
    whole
        .and_then(|found| u32::try_from(found).ok())
        .ok_or_else(|| "weight is a whole number from 1".to_owned())
}

fn cell(found: CellFile) -> Result<Cell, String> {
    Ok(match found {
        CellFile::Text(text) => Cell::Texts(vec![text]),
        CellFile::Texts(texts) if texts.is_empty() => {
            return Err("an empty list has nothing to draw from".to_owned());
        }
        CellFile::Texts(texts) => Cell::Texts(texts),
        CellFile::Number(number) => {
            let number = hundredths(number)?;
            Cell::Range {
                from: number,
                to: number,
                step: 1,
            }
        }
        CellFile::Range(RangeFile { from, to, step }) => {
            let (from, to, step) = (hundredths(from)?, hundredths(to)?, hundredths(step)?);
            if from > to || step <= 0 {
                return Err("a range goes from the smaller to the larger number in steps above 0".to_owned());
            }
            Cell::Range { from, to, step }
        }
    })
}

/// A number of the file in hundredths; more decimals than two are a mistake, not something to round.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked first")]
fn hundredths(number: f64) -> Result<i64, String> {
    let scaled = number * 100.0;
    if !(0.0..=NUMBER_MAX).contains(&number) || (scaled - scaled.round()).abs() > 1e-6 {
        return Err(format!(
            "{number} is not a number from 0 to {NUMBER_MAX} with at most two decimals"
        ));
    }
    Ok(scaled.round() as i64)
}

fn fields(found: Ordered<Spanned<FieldFile>>, tables: &[Table]) -> Result<Vec<(String, Field)>, Wrong> {
    let read = |(name, spanned): (String, Spanned<FieldFile>)| {
        let at = spanned.referenced;
        let field = field(spanned.value, tables).map_err(|message| Wrong { at, message })?;
        Ok((name, field))
    };
    found.0.into_iter().map(read).collect()
}

/// Where an event goes, as a story or a step of it says.
struct WhereFile {
    room: Option<Spanned<String>>,
    audience: Option<Spanned<String>>,
    priority: Option<Spanned<String>>,
    key: Option<Spanned<String>>,
}

/// What is said here counts, else what was said before.
fn whereto(found: &WhereFile, before: &Whereto, tables: &[Table]) -> Result<Whereto, Wrong> {
    let template = |spanned: &Spanned<String>| {
        Template::parse(&spanned.value, tables).map_err(|message| wrong(spanned, message))
    };
    let mut whereto = before.clone();
    if let Some(spanned) = &found.room {
        let room = template(spanned)?;
        room.check_room(tables)
            .map_err(|message| wrong(spanned, message))?;
        whereto.room = room;
    }
    if let Some(spanned) = &found.audience {
        whereto.audience = Audience::parse(&spanned.value).map_err(|bad| wrong(spanned, bad.to_string()))?;
    }
    if let Some(spanned) = &found.priority {
        let priority = Priority::from_name(&spanned.value);
        whereto.priority =
            priority.ok_or_else(|| wrong(spanned, "priority is critical, high, medium or low"))?;
    }
    if let Some(spanned) = &found.key {
        whereto.key = Some(template(spanned)?);
    }
    Ok(whereto)
}

fn story(found: StoryFile, everywhere: &Whereto, tables: &[Table]) -> Result<Story, Wrong> {
    let weight = match &found.weight {
        None => 1,
        Some(weight) if weight.value > 0 => weight.value,
        Some(weight) => return Err(wrong(weight, "weight is a whole number from 1")),
    };
    let own = WhereFile {
        room: found.room,
        audience: found.audience,
        priority: found.priority,
        key: found.key,
    };
    let own = whereto(&own, everywhere, tables)?;
    let data = fields(found.data, tables)?;
    if found.steps.value.is_empty() {
        return Err(wrong(&found.steps, "a story has at least one step"));
    }
    if found
        .steps
        .value
        .first()
        .is_some_and(|first| first.chance.is_some() && first.r#else.is_none())
    {
        return Err(wrong(
            &found.steps,
            "the first step of a story always happens: no chance, or an else",
        ));
    }
    let steps = found
        .steps
        .value
        .into_iter()
        .map(|found| step(found, &data, &own, tables))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Story { weight, steps })
}

fn field(found: FieldFile, tables: &[Table]) -> Result<Field, String> {
    const EXPECTED: &str =
        "expected one of { number: a }, { multiply: [a, b] }, { quantity: a, unit: b } and { object: { … } }";
    let made = match found {
        FieldFile::Text(text) => return Template::parse(&text, tables).map(Field::Text),
        FieldFile::Made(made) => made,
    };
    match (made.number, made.multiply, made.quantity, made.unit, made.object) {
        (Some(number), None, None, None, None) => Table::number(tables, &number).map(Field::Number),
        (None, Some(factors), None, None, None) => {
            let [a, b] = factors.as_slice() else {
                return Err("multiply takes two numbers".to_owned());
            };
            Ok(Field::Multiply(
                Table::number(tables, a)?,
                Table::number(tables, b)?,
            ))
        }
        (None, None, Some(quantity), Some(unit), None) => Ok(Field::Quantity(
            Table::number(tables, &quantity)?,
            Table::text(tables, &unit)?,
        )),
        (None, None, None, None, Some(members)) => {
            let read = |(name, found)| Ok((name, field(found, tables)?));
            members
                .0
                .into_iter()
                .map(read)
                .collect::<Result<_, String>>()
                .map(Field::Object)
        }
        _ => Err(EXPECTED.to_owned()),
    }
}

/// A step has the story's data and place, but for what it says itself.
fn step(found: StepFile, data: &[(String, Field)], own: &Whereto, tables: &[Table]) -> Result<Step, Wrong> {
    let named = |kind: &Spanned<String>| {
        let good =
            !kind.value.is_empty() && !kind.value.contains(|c: char| c.is_whitespace() || c.is_control());
        if good {
            Ok(kind.value.clone())
        } else {
            Err(wrong(kind, "a type is text without blanks"))
        }
    };
    let kind = named(&found.r#type)?;
    let otherwise = found.r#else.as_ref().map(named).transpose()?;
    let chance = match &found.chance {
        None => 1.0,
        Some(chance) if (0.0..=1.0).contains(&chance.value) => chance.value,
        Some(chance) => return Err(wrong(chance, "chance is a number from 0 to 1")),
    };
    let after_seconds = match &found.after_seconds {
        None => [0.0, 0.0],
        Some(span) if span.value[0] >= 0.0 && span.value[0] <= span.value[1] && span.value[1] <= 86_400.0 => {
            span.value
        }
        Some(span) => {
            return Err(wrong(
                span,
                "after_seconds goes from the smaller to the larger number, at most a day",
            ));
        }
    };
    let said = WhereFile {
        room: found.room,
        audience: found.audience,
        priority: found.priority,
        key: found.key,
    };
    let more = fields(found.data.unwrap_or_else(|| Ordered(Vec::new())), tables)?;
    let mut data = data.to_vec();
    data.retain(|(name, _)| !more.iter().any(|(newer, _)| newer == name));
    data.extend(more);
    Ok(Step {
        whereto: whereto(&said, own, tables)?,
        data,
        kind,
        otherwise,
        chance,
        after_seconds,
    })
}
