//! Bytes for nsqlookupd's command decoder.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sansq_fuzz::lookup_command::check(data));
