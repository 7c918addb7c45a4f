//! A cluster's topology, and what breaks in it when.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sansq_fuzz::simulator::check(data));
