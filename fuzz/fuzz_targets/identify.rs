//! JSON for IDENTIFY.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sansq_fuzz::identify::check(data));
