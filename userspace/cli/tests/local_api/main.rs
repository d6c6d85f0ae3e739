//! The LocalAPI over a real socket: its HTTP, our command line and the stock one as clients, and who may do what.

mod http;
mod ours;
mod scripted;
mod server;
mod stock;
