//! Steps for an nsqlookupd and those around it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sansq_fuzz::lookupd::check(data));
