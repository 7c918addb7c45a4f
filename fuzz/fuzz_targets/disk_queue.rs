//! Steps for a queue on disk.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sansq_fuzz::disk_queue::check(data));
