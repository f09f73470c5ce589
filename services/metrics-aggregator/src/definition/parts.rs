//! The parts of a metric as written: where from, what, over which window, where to.

use roomcast_access::yaml::{Found, Node, Value};
use roomcast_proto::ids::{Audience, Room};

use super::read::{DAY, EVERY_DEFAULT, HOUR, MINUTE, Reader, SECOND};
use super::{Clock, Compare, Leg, Publish, RoomPattern, STEPS_MAX, Unit, Window};
use crate::engine::predicate;
use crate::engine::row::Path;

impl Reader<'_> {
    /// What is folded, and the window that comes with it where it has one of its own.
    pub(super) fn leg(&mut self, found: &Found<'_>) -> Option<(Leg, Option<Window>)> {
        let mut paths: Vec<Path> = Vec::new();
        let condition = found.get("where").and_then(|node| {
            let text = self.mistakes.text(node, "a condition")?;
            match predicate::parse(text) {
                Ok(parsed) => {
                    paths = parsed.paths;
                    Some(parsed.expr)
                }
                Err(wrong) => {
                    self.mistakes.inside(node.at, text, wrong.offset, &wrong.message);
                    None
                }
            }
        });
        let valued = found.get("value").and_then(|node| self.value(node, &mut paths));
        let group_by = found
            .get("group_by")
            .map(|node| self.group_by(node, &mut paths))
            .unwrap_or_default();
        let (rooms, types) = found.get("from").and_then(|node| self.from(node))?;
        let valued = valued?;
        let leg = Leg {
            rooms,
            types,
            condition,
            group_by,
            aggregate: valued.aggregate,
            holds: valued.holds,
            paths,
        };
        self.shapes(found, &leg);
        Some((leg, valued.window))
    }

    pub(super) fn from(&mut self, node: &Node) -> Option<(RoomPattern, Vec<String>)> {
        let found = self
            .mistakes
            .fields(node, "`from`", &["room", "type"], &["room"])?;
        let types = found
            .get("type")
            .map(|node| self.texts(node, "a type"))
            .unwrap_or_default();
        let room = *found.get("room")?;
        let text = self.mistakes.text(room, "a room")?;
        let Some(rooms) = RoomPattern::parse(text) else {
            let message = format!(
                "bad room {text:?}: tokens of letters, digits, - or _ joined by dots; * stands for one token"
            );
            self.mistakes.add(room.at, message);
            return None;
        };
        Some((rooms, types.into_iter().map(|(_, text)| text).collect()))
    }

    pub(super) fn group_by(&mut self, node: &Node, paths: &mut Vec<Path>) -> Vec<usize> {
        let texts = self.texts(node, "a field such as data.category");
        let mut places = Vec::new();
        for (at, text) in texts {
            match Path::parse(&text) {
                Some(path) => {
                    let place = place(paths, path);
                    if places.contains(&place) {
                        self.mistakes.add(at, format!("{text} is there twice"));
                    }
                    places.push(place);
                }
                None => self
                    .mistakes
                    .add(at, format!("{text:?} is not a field such as data.category")),
            }
        }
        places
    }

    /// The window, and whether the current one ends now.
    pub(super) fn window(&mut self, node: &Node) -> Option<(Window, bool)> {
        let found = self.mistakes.fields(
            node,
            "`window`",
            &["sliding", "step", "tumbling", "total", "to_date", "session"],
            &[],
        )?;
        if let (Some(unit), 1) = (found.get("to_date"), found.len()) {
            return Some((Window::Tumbling(self.unit(unit)?), true));
        }
        if let (Some(gap), 1) = (found.get("session"), found.len()) {
            let gap = self.duration(gap, MINUTE, 7 * DAY)?;
            return Some((Window::Session { gap }, false));
        }
        let window = match (
            found.get("sliding"),
            found.get("tumbling"),
            found.get("total"),
            found.get("step"),
        ) {
            (Some(size), None, None, Some(step)) if found.len() == 2 => self.sliding(size, step),
            (None, Some(unit), None, None) if found.len() == 1 => self.unit(unit).map(Window::Tumbling),
            (None, None, Some(flag), None) if found.len() == 1 && matches!(flag.value, Value::Flag(true)) => {
                Some(Window::Total)
            }
            _ => {
                let message = "a window is { sliding: 24h, step: 1m }, { tumbling: day }, { to_date: month }, { session: 30m } or { total: true }";
                self.mistakes.add(node.at, message);
                None
            }
        };
        window.map(|window| (window, false))
    }

    fn unit(&mut self, node: &Node) -> Option<Unit> {
        let name = self.mistakes.text(node, "a unit")?;
        let unit = Unit::ALL.into_iter().find(|(known, _)| *known == name);
        if unit.is_none() {
            let known = Unit::ALL.iter().map(|(known, _)| *known);
            self.mistakes
                .unknown(node.at, format!("no unit {name:?}"), name, known);
        }
        unit.map(|(_, unit)| unit)
    }

    pub(super) fn sliding(&mut self, size_node: &Node, step_node: &Node) -> Option<Window> {
        let size = self.duration(size_node, SECOND, 366 * DAY);
        let step = self.duration(step_node, SECOND, 366 * DAY);
        let (size, step) = (size?, step?);
        if size % step != 0 {
            self.mistakes
                .add(step_node.at, "the window's size must be a multiple of its step");
            return None;
        }
        if size / step > STEPS_MAX {
            let message = format!("a window has at most {STEPS_MAX} steps, this one {}", size / step);
            self.mistakes.add(step_node.at, message);
            return None;
        }
        Some(Window::Sliding { size, step })
    }

    pub(super) fn clock(&mut self, node: &Node) -> Option<Clock> {
        match self.mistakes.text(node, "wall or event")? {
            "wall" => Some(Clock::Wall),
            "event" => Some(Clock::Event),
            other => {
                self.mistakes.unknown(
                    node.at,
                    format!("clock is wall or event, not {other:?}"),
                    other,
                    ["wall", "event"],
                );
                None
            }
        }
    }

    pub(super) fn compare(&mut self, node: &Node) -> Option<Compare> {
        match self.mistakes.text(node, "previous")? {
            "previous" => Some(Compare::Previous),
            "same_weekday" => Some(Compare::SameWeekday),
            "previous_elapsed" => Some(Compare::PreviousElapsed),
            other => {
                self.mistakes.unknown(
                    node.at,
                    format!("no comparison {other:?}"),
                    other,
                    ["previous", "previous_elapsed", "same_weekday"],
                );
                None
            }
        }
    }

    pub(super) fn publish(&mut self, node: &Node) -> Option<Publish> {
        let found = self.mistakes.fields(
            node,
            "`publish`",
            &["room", "audience", "at_most_every"],
            &["room", "audience"],
        )?;
        let every = found
            .get("at_most_every")
            .map_or(Some(EVERY_DEFAULT), |node| self.duration(node, 50_000, HOUR));
        let (room, audience) = self.room_and_audience(found.get("room")?, found.get("audience")?)?;
        Some(Publish {
            room,
            audience,
            at_most_every_micros: every?,
        })
    }

    /// Where something is published and for whom; the audience is one of the policy's, where there is one.
    pub(super) fn room_and_audience(
        &mut self,
        room_node: &Node,
        audience_node: &Node,
    ) -> Option<(Room, Audience)> {
        let room = self.mistakes.text(room_node, "a room").map(Room::parse);
        if let Some(Err(bad)) = &room {
            self.mistakes.add(room_node.at, bad.to_string());
        }
        let name = self.mistakes.text(audience_node, "an audience")?;
        let audience = Audience::parse(name);
        match (&audience, self.policy) {
            (Err(bad), _) => self.mistakes.add(audience_node.at, bad.to_string()),
            (Ok(_), Some(policy)) if policy.audience(name).is_none() => {
                let known: Vec<&str> = policy.audiences().collect();
                let message = format!("no role {name:?} in the policy");
                self.mistakes.unknown(audience_node.at, message, name, known);
            }
            _ => {}
        }
        Some((room?.ok()?, audience.ok()?))
    }
}

pub(super) fn place(paths: &mut Vec<Path>, path: Path) -> usize {
    paths.iter().position(|known| *known == path).unwrap_or_else(|| {
        paths.push(path);
        paths.len() - 1
    })
}
