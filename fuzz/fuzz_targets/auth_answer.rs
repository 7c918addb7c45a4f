//! Answers of auth servers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sansq_fuzz::auth_answer::check(data));
