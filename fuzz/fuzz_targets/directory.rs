//! Steps for a directory, and what nsqlookupds answer it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sansq_fuzz::directory::check(data));
