//! Requests to an nsqd over HTTP.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sansq_fuzz::http::check(data));
