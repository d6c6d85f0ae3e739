//! packet
#![no_std]
