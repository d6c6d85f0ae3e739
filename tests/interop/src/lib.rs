//! Tests with the programs that everybody else runs: stock Tailscale clients on our server, the stock command line on our
//! node, Tailscale's own test coordination server, its STUN and DERP probes. All of them in `tests/`; nothing else is here.
