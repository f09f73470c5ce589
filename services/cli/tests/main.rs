//! The `roomcast` binary from outside: what it prints, how it ends, what it leaves behind.

mod dev;
mod offline;
mod system;
