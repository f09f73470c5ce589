//! What PostgreSQL's plugin `pgoutput` says about rows, protocol version 1. Pure: bytes in, messages out.
//!
//! The replication client reads begin and commit itself; everything between them comes here. Cells are slices of the message, so nothing
//! is copied. Source: PostgreSQL's documentation, "Logical Replication Message Formats".

use std::str::Utf8Error;

use bytes::{Buf, Bytes};

/// A table as the stream describes it, before its first row and again after each change of its definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// The table's number.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its columns that are published, in order.
    pub columns: Vec<Column>,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The number of its type.
    pub type_oid: u32,
    /// Whether it belongs to the replica identity.
    pub key: bool,
}

/// One column's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// NULL.
    Null,
    /// A large value that the change did not touch; the database does not send it.
    Unchanged,
    /// The value as PostgreSQL writes it.
    Text(Text),
}

/// Bytes that are UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(Bytes);

impl Text {
    /// Takes bytes.
    ///
    /// # Errors
    /// They are not UTF-8.
    pub fn new(bytes: Bytes) -> Result<Self, Utf8Error> {
        std::str::from_utf8(&bytes).map(drop)?;
        Ok(Self(bytes))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Looked at when it was made.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// The values of a row.
pub type Row = Vec<Cell>;

/// What a change says about the row as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Before {
    /// The columns of the replica identity; the others say NULL and mean nothing.
    Key(Row),
    /// All of it: `REPLICA IDENTITY FULL`.
    Full(Row),
}

/// One message of the plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// How a table looks from here on.
    Relation(Relation),
    /// A new row.
    Insert {
        /// The table.
        relation: u32,
        /// The row.
        row: Row,
    },
    /// A changed row.
    Update {
        /// The table.
        relation: u32,
        /// The row as it was, where the database says.
        before: Option<Before>,
        /// The row as it is.
        row: Row,
    },
    /// A row that is gone.
    Delete {
        /// The table.
        relation: u32,
        /// The row as it was.
        before: Before,
    },
    /// Tables that were emptied.
    Truncate {
        /// The tables.
        relations: Vec<u32>,
    },
    /// Something that says nothing about rows: a type's name, an origin, a message of an application.
    Other,
}

/// What is wrong with a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It ends too early.
    #[error("a message of the replication stream ends too early")]
    Short,
    /// A text is not UTF-8.
    #[error("a text of the replication stream is not UTF-8")]
    NotUtf8,
    /// A tag that this version of the protocol does not have.
    #[error("the replication stream has a message or part {0:?} that protocol version 1 does not have")]
    Unknown(char),
}

impl From<Utf8Error> for Malformed {
    fn from(_: Utf8Error) -> Self {
        Self::NotUtf8
    }
}

/// Reads one message.
///
/// # Errors
/// [`Malformed`]: nothing that follows can be trusted; the session has to end.
pub fn read(bytes: Bytes) -> Result<Message, Malformed> {
    let mut rest = Rest(bytes);
    Ok(match rest.byte()? {
        b'R' => Message::Relation(rest.relation()?),
        b'I' => {
            let relation = rest.u32()?;
            rest.tag(b'N')?;
            Message::Insert {
                relation,
                row: rest.row()?,
            }
        }
        b'U' => {
            let relation = rest.u32()?;
            let before = match rest.byte()? {
                b'N' => None,
                tag => {
                    let before = rest.before(tag)?;
                    rest.tag(b'N')?;
                    Some(before)
                }
            };
            Message::Update {
                relation,
                before,
                row: rest.row()?,
            }
        }
        b'D' => {
            let relation = rest.u32()?;
            let tag = rest.byte()?;
            Message::Delete {
                relation,
                before: rest.before(tag)?,
            }
        }
        b'T' => {
            let count = rest.u32()?;
            rest.byte()?;
            let mut relations = Vec::new();
            for _ in 0..count {
                relations.push(rest.u32()?);
            }
            Message::Truncate { relations }
        }
        b'Y' | b'O' | b'M' => Message::Other,
        tag => return Err(Malformed::Unknown(char::from(tag))),
    })
}

struct Rest(Bytes);

impl Rest {
    fn byte(&mut self) -> Result<u8, Malformed> {
        self.0.try_get_u8().map_err(|_| Malformed::Short)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.0.try_get_u16().map_err(|_| Malformed::Short)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.0.try_get_u32().map_err(|_| Malformed::Short)
    }

    fn tag(&mut self, expected: u8) -> Result<(), Malformed> {
        match self.byte()? {
            tag if tag == expected => Ok(()),
            tag => Err(Malformed::Unknown(char::from(tag))),
        }
    }

    /// A text that ends with a zero.
    fn name(&mut self) -> Result<String, Malformed> {
        let end = self
            .0
            .iter()
            .position(|byte| *byte == 0)
            .ok_or(Malformed::Short)?;
        let name = std::str::from_utf8(&self.0[..end])?.to_owned();
        self.0.advance(end + 1);
        Ok(name)
    }

    fn relation(&mut self) -> Result<Relation, Malformed> {
        let oid = self.u32()?;
        let (schema, name) = (self.name()?, self.name()?);
        self.byte()?;
        let count = self.u16()?;
        let mut columns = Vec::with_capacity(usize::from(count).min(64));
        for _ in 0..count {
            let key = self.byte()? & 1 == 1;
            let name = self.name()?;
            let type_oid = self.u32()?;
            self.u32()?;
            columns.push(Column { name, type_oid, key });
        }
        Ok(Relation {
            oid,
            // The stream leaves the name of pg_catalog out.
            schema: if schema.is_empty() {
                "pg_catalog".to_owned()
            } else {
                schema
            },
            name,
            columns,
        })
    }

    fn before(&mut self, tag: u8) -> Result<Before, Malformed> {
        match tag {
            b'K' => Ok(Before::Key(self.row()?)),
            b'O' => Ok(Before::Full(self.row()?)),
            tag => Err(Malformed::Unknown(char::from(tag))),
        }
    }

    fn row(&mut self) -> Result<Row, Malformed> {
        let count = self.u16()?;
        let mut row = Vec::with_capacity(usize::from(count).min(self.0.len()));
        for _ in 0..count {
            row.push(match self.byte()? {
                b'n' => Cell::Null,
                b'u' => Cell::Unchanged,
                b't' => {
                    let len = self.u32()? as usize;
                    if len > self.0.len() {
                        return Err(Malformed::Short);
                    }
                    Cell::Text(Text::new(self.0.split_to(len))?)
                }
                tag => return Err(Malformed::Unknown(char::from(tag))),
            });
        }
        Ok(row)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use bytes::{BufMut, BytesMut};
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn text(text: &str) -> Cell {
        Cell::Text(Text::new(Bytes::copy_from_slice(text.as_bytes())).unwrap())
    }

    fn put_row(out: &mut BytesMut, row: &Row) {
        out.put_u16(u16::try_from(row.len()).unwrap());
        for cell in row {
            match cell {
                Cell::Null => out.put_u8(b'n'),
                Cell::Unchanged => out.put_u8(b'u'),
                Cell::Text(text) => {
                    out.put_u8(b't');
                    out.put_u32(u32::try_from(text.as_str().len()).unwrap());
                    out.put_slice(text.as_str().as_bytes());
                }
            }
        }
    }

    fn put_before(out: &mut BytesMut, before: &Before) {
        let (tag, row) = match before {
            Before::Key(row) => (b'K', row),
            Before::Full(row) => (b'O', row),
        };
        out.put_u8(tag);
        put_row(out, row);
    }

    /// As the server writes it.
    fn write(message: &Message) -> Bytes {
        let mut out = BytesMut::new();
        match message {
            Message::Relation(relation) => {
                out.put_u8(b'R');
                out.put_u32(relation.oid);
                for name in [&relation.schema, &relation.name] {
                    out.put_slice(name.as_bytes());
                    out.put_u8(0);
                }
                out.put_u8(b'd');
                out.put_u16(u16::try_from(relation.columns.len()).unwrap());
                for column in &relation.columns {
                    out.put_u8(u8::from(column.key));
                    out.put_slice(column.name.as_bytes());
                    out.put_u8(0);
                    out.put_u32(column.type_oid);
                    out.put_i32(-1);
                }
            }
            Message::Insert { relation, row } => {
                out.put_u8(b'I');
                out.put_u32(*relation);
                out.put_u8(b'N');
                put_row(&mut out, row);
            }
            Message::Update {
                relation,
                before,
                row,
            } => {
                out.put_u8(b'U');
                out.put_u32(*relation);
                if let Some(before) = before {
                    put_before(&mut out, before);
                }
                out.put_u8(b'N');
                put_row(&mut out, row);
            }
            Message::Delete { relation, before } => {
                out.put_u8(b'D');
                out.put_u32(*relation);
                put_before(&mut out, before);
            }
            Message::Truncate { relations } => {
                out.put_u8(b'T');
                out.put_u32(u32::try_from(relations.len()).unwrap());
                out.put_u8(0);
                relations.iter().for_each(|oid| out.put_u32(*oid));
            }
            Message::Other => out.put_slice(b"Y whatever"),
        }
        out.freeze()
    }

    fn row() -> impl Strategy<Value = Row> {
        let cell = prop_oneof![
            Just(Cell::Null),
            Just(Cell::Unchanged),
            ".{0,12}".prop_map(|value| text(&value)),
        ];
        proptest::collection::vec(cell, 0..6)
    }

    fn before() -> impl Strategy<Value = Before> {
        prop_oneof![row().prop_map(Before::Key), row().prop_map(Before::Full)]
    }

    fn message() -> impl Strategy<Value = Message> {
        let column = ("[a-zçü_]{1,8}", any::<u32>(), any::<bool>())
            .prop_map(|(name, type_oid, key)| Column { name, type_oid, key });
        let relation = (
            any::<u32>(),
            "[a-z]{1,6}",
            "[a-z]{1,6}",
            proptest::collection::vec(column, 0..5),
        )
            .prop_map(|(oid, schema, name, columns)| Relation {
                oid,
                schema,
                name,
                columns,
            });
        prop_oneof![
            relation.prop_map(Message::Relation),
            (any::<u32>(), row()).prop_map(|(relation, row)| Message::Insert { relation, row }),
            (any::<u32>(), proptest::option::of(before()), row()).prop_map(|(relation, before, row)| {
                Message::Update {
                    relation,
                    before,
                    row,
                }
            }),
            (any::<u32>(), before()).prop_map(|(relation, before)| Message::Delete { relation, before }),
            proptest::collection::vec(any::<u32>(), 0..4)
                .prop_map(|relations| Message::Truncate { relations }),
            Just(Message::Other),
        ]
    }

    proptest! {
        #[test]
        fn what_the_server_writes_is_what_is_read(message in message()) {
            prop_assert_eq!(read(write(&message)), Ok(message));
        }

        #[test]
        fn a_message_that_was_cut_is_refused(message in message(), cut in any::<prop::sample::Index>()) {
            let whole = write(&message);
            let cut = cut.index(whole.len());
            if message != Message::Other {
                prop_assert_eq!(read(whole.slice(..cut)), Err(Malformed::Short));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(Bytes::from(bytes));
        }
    }

    #[test]
    fn what_is_not_in_the_protocol_is_named() {
        for (bytes, expected) in [
            (&b""[..], Malformed::Short),
            (b"S....", Malformed::Unknown('S')),
            (b"I\0\0\0\x01K", Malformed::Unknown('K')),
            (b"I\0\0\0\x01N\0\x01b", Malformed::Unknown('b')),
            (b"I\0\0\0\x01N\0\x01t\0\0\0\x01\xff", Malformed::NotUtf8),
            (b"I\0\0\0\x01N\0\x01t\xff\xff\xff\xffx", Malformed::Short),
        ] {
            assert_eq!(read(Bytes::from_static(bytes)), Err(expected), "{bytes:?}");
        }
    }
}
