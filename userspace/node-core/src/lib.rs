//! node-core
