//! Bytes and operations for a whole nsqd.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sansq_fuzz::shard::check(data));
