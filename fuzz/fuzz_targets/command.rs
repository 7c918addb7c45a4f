//! Bytes for nsqd's command decoder.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sansq_fuzz::command::check(data));
