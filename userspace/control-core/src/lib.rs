//! control-core
