//! Steps for a pool of producers and the world around it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sansq_fuzz::pool::check(data));
