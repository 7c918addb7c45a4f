//! Commands for a channel.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sansq_fuzz::channel::check(data));
