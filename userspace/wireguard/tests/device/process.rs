//! The tests' process of a device: `wireguard --device NAME [--foreground]` runs one, `spawn --device NAME` starts another
//! such process and ends.

fn main() {
    let mut options = wireguard::Options::new("");
    let mut spawn = false;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--device" => options.device = arguments.next().expect("--device has a value"),
            "--foreground" => options.foreground = true,
            "spawn" => spawn = true,
            _ => {}
        }
    }
    let done = match spawn {
        true => wireguard::spawn(&options.device, &wireguard::SpawnOptions::default()).map(drop),
        false => wireguard::run(&options),
    };
    if let Err(error) = done {
        eprintln!("{error}");
        std::process::exit(1);
    }
}
