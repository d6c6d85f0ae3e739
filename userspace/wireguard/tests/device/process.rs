//! Runs one embedded device until it is told to end: `wireguard --device NAME [--foreground]`.

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut options = wireguard::Options::new("");
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--device" => options.device = arguments.next().expect("--device has a value"),
            "--foreground" => options.foreground = true,
            _ => {}
        }
    }
    if let Err(error) = wireguard::run(&options) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}
