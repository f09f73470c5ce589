//! What a mapping file says, understood key by key.

use roomcast_access::yaml::{self, At, Mistakes, Node, Value};
use roomcast_access::{Mistake, Policy};
use roomcast_cel::predicate::{parse_after, parse_computed};
use roomcast_cel::row::{Attribute, Path, is_identifier};
use roomcast_proto::ids::{Audience, Room, Tenant, is_token};

use super::{Columns, FIELDS_MAX, Field, Mapping, Name, Named, Part, SlotLost, TABLES_MAX, Table, Types};

const TOP: [&str; 9] = [
    "version",
    "tenant",
    "source",
    "slot",
    "publication",
    "failover",
    "slot_lost",
    "outbox",
    "tables",
];
const TABLE: [&str; 10] = [
    "table", "room", "audience", "types", "columns", "old", "fields", "where", "state", "priority",
];
const TYPES: [&str; 5] = ["insert", "update", "delete", "truncate", "snapshot"];
const PRIORITIES: [&str; 4] = ["critical", "high", "medium", "low"];
/// Members of `data` that a computed field may not replace.
const TAKEN: [&str; 5] = ["op", "table", "row", "old", "unchanged"];
/// Longest name PostgreSQL keeps, in bytes.
const NAME_BYTES_MAX: usize = 63;
/// Longest event type, in bytes.
const TYPE_BYTES_MAX: usize = 128;

struct Reader<'a> {
    mistakes: Mistakes<'a>,
    policy: Option<&'a Policy>,
}

pub(super) fn mapping(text: &str, file: &str, policy: Option<&Policy>) -> Result<Mapping, Vec<Mistake>> {
    let (root, mistakes) = yaml::read(text, file)?;
    let mut reader = Reader { mistakes, policy };
    match reader.file(&root) {
        Some(mapping) if reader.mistakes.is_empty() => Ok(mapping),
        _ => Err(reader.mistakes.finish()),
    }
}

impl Reader<'_> {
    fn file(&mut self, root: &Node) -> Option<Mapping> {
        if matches!(root.value, Value::Nothing) {
            self.mistakes.add(
                root.at,
                "the file is empty; it needs `version: 1`, `source` and `tables` or `outbox`",
            );
            return None;
        }
        let top = self
            .mistakes
            .fields(root, "the file", &TOP, &["version", "source"])?;
        if let Some(node) = top
            .get("version")
            .filter(|node| !matches!(node.value, Value::Whole(1)))
        {
            self.mistakes
                .add(node.at, "expected version 1, the only one there is");
        }
        let tenant = match top.get("tenant") {
            None => Tenant::parse("main").ok(),
            Some(node) => self.parsed(node, "a tenant", Tenant::parse),
        };
        let source = top.get("source").and_then(|node| {
            self.checked(
                node,
                "a name",
                is_token,
                "a name of letters, digits, _ and -, at most 64 bytes",
            )
        });
        let slot = self.name_or(top.get("slot").copied(), "slot", |name| {
            name.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        });
        let publication = self.name_or(top.get("publication").copied(), "publication", |name| {
            !name.contains('\0')
        });
        let failover = top.get("failover").and_then(|node| match node.value {
            Value::Flag(wanted) => wanted.then_some(node.at),
            _ => {
                self.mistakes.add(node.at, "failover is true or false");
                None
            }
        });
        let slot_lost = top
            .get("slot_lost")
            .map_or(Some(SlotLost::Stop), |node| self.slot_lost(node));
        let outbox = top.get("outbox").and_then(|node| self.table_name(node));
        let tables = top.get("tables").map_or_else(Vec::new, |node| self.tables(node));
        if !top.contains_key("outbox") && !top.contains_key("tables") {
            self.mistakes
                .add(root.at, "nothing is mapped; the file needs `tables` or `outbox`");
        }
        self.twice(&tables, outbox.as_ref());
        Some(Mapping {
            tenant: tenant?,
            source: source?,
            slot: slot?,
            publication: publication?,
            failover,
            slot_lost: slot_lost?,
            tables,
            outbox,
        })
    }

    fn slot_lost(&mut self, node: &Node) -> Option<SlotLost> {
        match self.mistakes.text(node, "stop or snapshot")? {
            "stop" => Some(SlotLost::Stop),
            "snapshot" => Some(SlotLost::Snapshot),
            other => {
                let message = format!("slot_lost is stop or snapshot, not {other:?}");
                self.mistakes
                    .unknown(node.at, message, other, ["stop", "snapshot"]);
                None
            }
        }
    }

    fn tables(&mut self, node: &Node) -> Vec<Table> {
        let Value::List(items) = &node.value else {
            self.mistakes.add(
                node.at,
                format!("expected `tables` as a list, found {}", node.value.kind()),
            );
            return Vec::new();
        };
        if items.is_empty() || items.len() > TABLES_MAX {
            self.mistakes.add(
                node.at,
                format!("expected 1 to {TABLES_MAX} tables, found {}", items.len()),
            );
        }
        items
            .iter()
            .take(TABLES_MAX)
            .filter_map(|item| self.table(item))
            .collect()
    }

    fn twice(&mut self, tables: &[Table], outbox: Option<&Name>) {
        let names: Vec<&Name> = tables.iter().map(|table| &table.name).chain(outbox).collect();
        for (index, name) in names.iter().enumerate() {
            let before = names[..index]
                .iter()
                .find(|other| other.schema == name.schema && other.table == name.table);
            if let Some(before) = before {
                let (line, first) = (before.at.line, (*name).to_string());
                self.mistakes
                    .add(name.at, format!("{first} is mapped already, in line {line}"));
            }
        }
    }

    fn table(&mut self, node: &Node) -> Option<Table> {
        let found = self.mistakes.fields(
            node,
            "a table",
            &TABLE,
            &["table", "room", "audience", "types", "columns"],
        )?;
        let name = found.get("table").and_then(|node| self.table_name(node));
        let types = found.get("types").and_then(|node| self.types(node));
        let room = found.get("room").and_then(|node| self.room(node));
        let audience = found.get("audience").and_then(|node| self.audience(node));
        let columns = found.get("columns").and_then(|node| self.columns(node));
        let old = found
            .get("old")
            .map_or(Some(Columns::These(Vec::new())), |node| self.columns(node));
        let mut paths = Vec::new();
        let condition = found.get("where").map(|node| self.condition(node, &mut paths));
        let condition_paths = paths.len();
        let fields = found
            .get("fields")
            .map_or_else(Vec::new, |node| self.computed(node, &mut paths));
        let state = found.get("state").map_or(Some(Vec::new()), |node| self.key(node));
        let priority = found.get("priority").map(|node| self.priority(node));
        let by_row = |parts: &Vec<Part>| parts.iter().any(|part| matches!(part, Part::Column(_)));
        if let (Some(room), Some(types), Some(at)) = (&room, &types, found.get("types").map(|node| node.at)) {
            if types.truncate.is_some() && by_row(room) {
                self.mistakes.add(
                    at,
                    "an emptied table has no row, so `truncate` needs a room without {column}",
                );
            }
            if types.truncate.is_some() && state.as_ref().is_some_and(|key| !key.is_empty()) {
                self.mistakes.add(
                    at,
                    "an emptied table has no row, so `truncate` does not go with `state`",
                );
            }
        }
        Some(Table {
            name: name?,
            room: room?,
            audience: audience?,
            types: types?,
            columns: columns?,
            old: old?,
            fields,
            condition: match condition {
                None => None,
                Some(condition) => Some(condition?),
            },
            paths,
            condition_paths,
            state: state?,
            priority: match priority {
                None => None,
                Some(priority) => Some(priority?),
            },
        })
    }

    /// `schema.table`, or a table of the schema public.
    fn table_name(&mut self, node: &Node) -> Option<Name> {
        let text = self.mistakes.text(node, "a table")?;
        let (schema, table) = text.split_once('.').unwrap_or(("public", text));
        let fits =
            |name: &str| (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.contains(['.', '\0', '"']);
        if fits(schema) && fits(table) {
            return Some(Name {
                schema: schema.to_owned(),
                table: table.to_owned(),
                at: node.at,
            });
        }
        self.mistakes.add(
            node.at,
            format!("{text:?} is not a table such as tickets or sales.orders (as the catalogue has it, without quotes)"),
        );
        None
    }

    fn types(&mut self, node: &Node) -> Option<Types> {
        let found = self.mistakes.fields(node, "`types`", &TYPES, &[])?;
        if found.is_empty() {
            self.mistakes.add(
                node.at,
                "nothing is published; `types` needs insert, update, delete, truncate or snapshot",
            );
        }
        let mut one = |name: &str| {
            let node = found.get(name)?;
            self.checked(
                node,
                "an event type",
                |text| (1..=TYPE_BYTES_MAX).contains(&text.len()),
                "an event type of 1 to 128 bytes",
            )
        };
        Some(Types {
            insert: one("insert"),
            update: one("update"),
            delete: one("delete"),
            truncate: one("truncate"),
            snapshot: one("snapshot"),
        })
    }

    /// `tickets`, or `property.{property_id}`.
    fn room(&mut self, node: &Node) -> Option<Vec<Part>> {
        let text = self.mistakes.text(node, "a room")?;
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((column, after)) = after.split_once('}').filter(|(column, _)| !column.is_empty()) else {
                self.mistakes
                    .add(node.at, format!("{text:?} has a {{ without a column and its }}"));
                return None;
            };
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Column(Named {
                name: column.to_owned(),
                at: node.at,
            }));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        let example: String = parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.as_str(),
                Part::Column(_) => "x",
            })
            .collect();
        match Room::parse(&example) {
            Err(bad) => {
                self.mistakes.add(node.at, bad.to_string());
                None
            }
            Ok(room) => {
                let unknown = |policy: &&Policy| !policy.knows_room(&room);
                if self.policy.as_ref().is_some_and(unknown) {
                    self.mistakes
                        .add(node.at, format!("no entry of the policy makes the room {text}"));
                }
                Some(parts)
            }
        }
    }

    fn audience(&mut self, node: &Node) -> Option<Audience> {
        let name = self.mistakes.text(node, "an audience")?;
        if let Some(policy) = self.policy.filter(|policy| policy.audience(name).is_none()) {
            let known: Vec<&str> = policy.audiences().collect();
            let message = format!("no role {name:?} in the policy");
            self.mistakes.unknown(node.at, message, name, known);
            return None;
        }
        self.parsed(node, "an audience", Audience::parse)
    }

    /// `all`, or a list of columns.
    fn columns(&mut self, node: &Node) -> Option<Columns> {
        if let Value::Text(text) = &node.value
            && text == "all"
        {
            return Some(Columns::All);
        }
        self.named(node).map(Columns::These)
    }

    fn key(&mut self, node: &Node) -> Option<Vec<Named>> {
        let list = self.named(node)?;
        if list.is_empty() {
            self.mistakes.add(node.at, "`state` needs the columns of the key");
        }
        Some(list)
    }

    fn named(&mut self, node: &Node) -> Option<Vec<Named>> {
        let Value::List(items) = &node.value else {
            self.mistakes.add(
                node.at,
                format!("expected a list of columns, found {}", node.value.kind()),
            );
            return None;
        };
        let mut list: Vec<Named> = Vec::new();
        for item in items {
            let Some(name) = self.mistakes.text(item, "a column") else {
                continue;
            };
            if list.iter().any(|known| known.name == name) {
                self.mistakes
                    .add(item.at, format!("the column {name} is listed twice"));
            }
            list.push(Named {
                name: name.to_owned(),
                at: item.at,
            });
        }
        Some(list)
    }

    fn condition(
        &mut self,
        node: &Node,
        paths: &mut Vec<(Path, At)>,
    ) -> Option<roomcast_cel::predicate::Expr> {
        let text = self.mistakes.text(node, "a condition")?;
        let known = paths.iter().map(|(path, _)| path.clone()).collect();
        match parse_after(text, known) {
            Ok(parsed) => {
                self.paths(node.at, parsed.paths, paths);
                Some(parsed.expr)
            }
            Err(wrong) => {
                self.mistakes.inside(node.at, text, wrong.offset, &wrong.message);
                None
            }
        }
    }

    fn computed(&mut self, node: &Node, paths: &mut Vec<(Path, At)>) -> Vec<Field> {
        let Value::Map(members) = &node.value else {
            self.mistakes.add(
                node.at,
                format!("expected `fields` as a map, found {}", node.value.kind()),
            );
            return Vec::new();
        };
        if members.len() > FIELDS_MAX {
            self.mistakes
                .add(node.at, format!("expected at most {FIELDS_MAX} fields"));
        }
        let mut fields = Vec::new();
        for (key, value) in members {
            let (Some(name), Some(text)) = (
                self.mistakes.text(key, "a name"),
                self.mistakes.text(value, "an expression"),
            ) else {
                continue;
            };
            if !is_identifier(name) || TAKEN.contains(&name) {
                let message =
                    format!("a field's name is a letter, then letters, digits and _, and none of {TAKEN:?}");
                self.mistakes.add(key.at, message);
                continue;
            }
            let known = paths.iter().map(|(path, _)| path.clone()).collect();
            match parse_computed(text, known) {
                Ok((computed, found)) => {
                    self.paths(value.at, found, paths);
                    fields.push(Field {
                        name: name.to_owned(),
                        value: computed,
                    });
                }
                Err(wrong) => self.mistakes.inside(value.at, text, wrong.offset, &wrong.message),
            }
        }
        fields
    }

    /// Adds what an expression names, if it is there to be named.
    fn paths(&mut self, at: At, found: Vec<Path>, paths: &mut Vec<(Path, At)>) {
        for path in found.into_iter().skip(paths.len()) {
            let there = match &path {
                Path::Attribute(Attribute::Type) => true,
                Path::Attribute(_) => false,
                Path::Data(members) => match members.as_slice() {
                    [one] => one == "op",
                    [row, _] => row == "row" || row == "old",
                    _ => false,
                },
            };
            if !there {
                let message = format!(
                    "{path} is not there; an expression reads data.row.…, data.old.…, data.op and type"
                );
                self.mistakes.add(at, message);
            }
            paths.push((path, at));
        }
    }

    fn priority(&mut self, node: &Node) -> Option<String> {
        let name = self.mistakes.text(node, "a priority")?;
        if PRIORITIES.contains(&name) {
            return Some(name.to_owned());
        }
        self.mistakes
            .unknown(node.at, format!("no priority {name:?}"), name, PRIORITIES);
        None
    }

    fn name_or(&mut self, node: Option<&Node>, what: &str, fits: impl Fn(&str) -> bool) -> Option<String> {
        let Some(node) = node else {
            return Some("roomcast".to_owned());
        };
        let rule = format!("a {what}'s name as PostgreSQL has it: 1 to 63 bytes, of a slot a-z, 0-9 and _");
        self.checked(
            node,
            "a name",
            |name| (1..=NAME_BYTES_MAX).contains(&name.len()) && fits(name),
            &rule,
        )
    }

    fn checked(
        &mut self,
        node: &Node,
        what: &str,
        fits: impl Fn(&str) -> bool,
        rule: &str,
    ) -> Option<String> {
        let text = self.mistakes.text(node, what)?;
        if fits(text) {
            return Some(text.to_owned());
        }
        self.mistakes.add(node.at, format!("{text:?} is not {rule}"));
        None
    }

    fn parsed<T, E: std::fmt::Display>(
        &mut self,
        node: &Node,
        what: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        match parse(self.mistakes.text(node, what)?) {
            Ok(value) => Some(value),
            Err(bad) => {
                self.mistakes.add(node.at, bad.to_string());
                None
            }
        }
    }
}
