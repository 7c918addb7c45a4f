//! Proves that neither sansq-core nor anything below it links std.
//!
//! std brings a panic handler, and a program has one only: with the handler below, a std anywhere
//! in the tree is the compiler's error E0152. This needs no target without std to be installed.
#![no_std]

extern crate sansq_core;

use core::panic::PanicInfo;

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}
