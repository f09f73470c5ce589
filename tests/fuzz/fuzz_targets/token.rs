#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| roomcast_fuzz::token::check(bytes));
