//! What operators write about one event: conditions with CEL's meaning ([`predicate`]), the fields they name ([`row`]), and numbers that
//! are compared and added exactly ([`decimal`]). Pure: whoever uses it says what the fields are.

pub mod decimal;
pub mod predicate;
pub mod row;
