//! Bodies for MPUB.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sansq_fuzz::mpub::check(data));
