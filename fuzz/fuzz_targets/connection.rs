//! Bytes for a connection with layers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sansq_fuzz::connection::check(data));
