//! The cases, judged on the host. No root.

use dataplane::compile;
use packet::{Bytes, for_controller};
use programs::cases;
use programs::tables::Tables;

#[test]
fn the_filter_judges_every_case_as_wanted() {
    let tables = Tables::new(compile(&cases::filter()).expect("the filter fits"));
    for case in cases::from_tunnel() {
        assert_eq!(Some(tables.from_tunnel(&case.packet)), case.want, "{}", case.name);
    }
}

#[test]
fn steering_recognizes_every_case_as_wanted() {
    for case in cases::steer() {
        let found = for_controller(&Bytes(&case.packet), cases::PORT.to_be_bytes());
        assert_eq!(found.map(|found| found.reason), case.want, "{}", case.name);
    }
}
