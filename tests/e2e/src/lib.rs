//! Tests of the whole stack live in `tests/`; there is nothing to use here.
