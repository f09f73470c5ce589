//! What a field is worth: a number for sums, an identity for distinct values.

use super::{CARRIED_BYTES_MAX, Reason};
use crate::engine::decimal::{Decimal, Unfit};
use crate::engine::row::Field;

/// A JSON number, or a text that is exactly one.
pub(super) fn number(field: &Field<'_>) -> Result<Decimal, Reason> {
    let text = match field {
        Field::Absent | Field::Null => return Err(Reason::Missing),
        Field::Number(text) => text,
        Field::Text(text) => text.as_ref(),
        Field::Flag(_) | Field::Compound => return Err(Reason::NotANumber),
    };
    Decimal::parse(text).map_err(|unfit| match unfit {
        Unfit::NotANumber => Reason::NotANumber,
        Unfit::OutOfRange => Reason::OutOfRange,
    })
}

/// A value as it is: a number as it was written, a text, `true` or `false`.
pub(super) fn carried(field: &Field<'_>) -> Result<Box<str>, Reason> {
    let text = match field {
        Field::Absent | Field::Null => return Err(Reason::Missing),
        Field::Compound => return Err(Reason::NotAScalar),
        Field::Flag(flag) => {
            if *flag {
                "true"
            } else {
                "false"
            }
        }
        Field::Number(text) => text,
        Field::Text(text) => text.as_ref(),
    };
    if text.len() > CARRIED_BYTES_MAX {
        return Err(Reason::OutOfRange);
    }
    Ok(text.into())
}

/// A key of a top: a text, a number in one form, `true` or `false`.
pub(super) fn key(field: &Field<'_>) -> Result<Box<str>, Reason> {
    match field {
        Field::Number(text) => match Decimal::parse(text) {
            Ok(number) => Ok(number.to_string().into()),
            Err(_) => Err(Reason::OutOfRange),
        },
        other => carried(other),
    }
}

/// A value's identity: type and value, so that 1 and 1.0 are one and "1" is another. 128 bits of SHA-256.
pub(super) fn digest(field: &Field<'_>) -> Result<u128, Reason> {
    let (kind, text): (u8, std::borrow::Cow<'_, str>) = match field {
        Field::Absent | Field::Null => return Err(Reason::Missing),
        Field::Compound => return Err(Reason::NotAScalar),
        Field::Flag(flag) => (b'b', if *flag { "true".into() } else { "false".into() }),
        Field::Number(text) => {
            let exact = crate::engine::decimal::Exact::parse(text).ok_or(Reason::NotANumber)?;
            (b'n', exact.canonical().into())
        }
        Field::Text(text) => (b's', text.as_ref().into()),
    };
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    context.update(&[kind]);
    context.update(text.as_bytes());
    let sum = context.finish();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&sum.as_ref()[..16]);
    Ok(u128::from_le_bytes(bytes))
}
