//! Bytes for the file of topics and channels.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sansq_fuzz::metadata::check(data));
