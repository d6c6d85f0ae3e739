//! What a packet costs, by the number of rules: printed as JSON for `bench`, and held to the aim. Needs root.
//!
//! `cargo test --release --package programs --test cost -- --nocapture` prints one object a row.

use dataplane::{Program, Programs};
use node_core::filter::Filter;
use programs::cases::{PORT, address, filter};
use programs::cost::{Shape, from_tunnel, measure};
use programs::namespace::Namespace;
use programs::packets::{ip, tcp, wireguard};
use programs::{Loaded, skipped};

const DEVICE: &str = "test2";
const RUNS: u32 = 9;
const REPEAT: u32 = 200_000;
/// Ten thousand rules may cost this many times one rule.
const AIM: f64 = 1.5;

#[test]
fn ten_thousand_rules_cost_about_what_one_costs() {
    if skipped("ten_thousand_rules_cost_about_what_one_costs") {
        return;
    }
    Namespace::new().run(|| {
        let mut programs = Loaded::new(DEVICE);
        let mut cost = |shape, count| {
            let time = from_tunnel(&mut programs, shape, count, RUNS, REPEAT).expect("the filter fits");
            let row = serde_json::json!({
                "bench": "from_tunnel", "case": format!("{count} {}", shape.name()), "unit": "ns", "ours": time.as_nanos() as u64
            });
            println!("{row}");
            time.as_nanos() as f64
        };
        let ratios: Vec<_> = Shape::ALL
            .into_iter()
            .map(|shape| {
                let one = cost(shape, 1);
                cost(shape, 1_000);
                (shape.name(), cost(shape, 10_000) / one)
            })
            .collect();
        unfiltered(&mut programs);
        for (shape, ratio) in ratios {
            assert!(ratio <= AIM, "{shape}: 10,000 rules cost {ratio:.2} times one rule");
        }
    });
}

/// The usual packets, for comparison: TCP of a connection that exists, and WireGuard data passing `steer`.
fn unfiltered(programs: &mut Programs) {
    programs.install(&Filter { ..filter() }).expect("the filter fits");
    programs.set_ports(PORT, 9).expect("the map takes them");
    let established = ip(address("8.1.1.1"), address("1.2.3.4"), 6, &tcp(1, 2, 0x10));
    let data = programs::packets::udp(5000, PORT, &wireguard(4, 128));
    let data = ip(address("192.0.2.2"), address("192.0.2.1"), 17, &data);
    let other = ip(address("192.0.2.2"), address("192.0.2.1"), 6, &tcp(1, 2, 0x10));
    let outbound = ip(address("102.102.102.102"), address("1.2.3.4"), 17, &programs::packets::udp(1, 2, &[]));
    for (case, program, packet) in [
        ("established TCP", Program::FromTunnel, established),
        ("WireGuard data", Program::Steer, data),
        ("other traffic", Program::Steer, other),
        ("a known UDP flow", Program::IntoTunnel, outbound),
    ] {
        let time = measure(programs, program, &packet, RUNS, REPEAT).expect("the kernel runs it");
        let row = serde_json::json!({"bench": program.name(), "case": case, "unit": "ns", "ours": time.as_nanos() as u64});
        println!("{row}");
    }
}
