//! Pinned routes: by which of several uplinks our own packets leave to a peer's address.
//!
//! They stand in a table of their own that only packets with our mark ask, WireGuard's among them, and lead to single
//! addresses. Nothing of the machine's own routes is touched, and nobody else's packets follow them. Deliberately not here:
//! the rule (`reconcile`) and the choice of an uplink (`node-core`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use netlink::{Handle, Route, RouteChange};
use node_core::Hop;

use crate::reconcile::PROTOCOL;

/// Makes the routes of `table` these. The table is looked at each time: the kernel drops routes with their device.
///
/// # Errors
/// The first route the kernel refuses; the others are set.
pub(crate) async fn pin(handle: &Handle, table: u32, wanted: &BTreeMap<IpAddr, Hop>) -> netlink::Result<()> {
    let present = handle.routes(Some(table)).await?.into_iter().filter(|route| route.protocol == PROTOCOL);
    let changes = changes(&present.collect(), &wanted.iter().map(|pin| route(table, pin)).collect());
    match handle.change_routes(changes).await.into_iter().next() {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

fn route(table: u32, (address, hop): (&IpAddr, &Hop)) -> Route {
    let to_device = Route::to_device(table, IpNet::from(*address), hop.uplink.0);
    Route { gateway: hop.gateway, protocol: PROTOCOL, ..to_device }
}

/// The new before the old: a route of the same destination is replaced in one step.
fn changes(present: &BTreeSet<Route>, wanted: &BTreeSet<Route>) -> Vec<RouteChange> {
    let leads = |route: &Route| (route.destination, route.device, route.gateway);
    let has =
        |routes: &BTreeSet<Route>, route: &Route| routes.iter().any(|other| leads(other) == leads(route));
    let added = wanted.iter().filter(|route| !has(present, route)).cloned().map(RouteChange::Replace);
    let stays = |route: &&Route| wanted.iter().any(|other| other.destination == route.destination);
    let removed = present.iter().filter(|route| !stays(route)).cloned().map(RouteChange::Remove);
    added.chain(removed).collect()
}

#[cfg(test)]
mod tests {
    use node_core::Uplink;

    use super::*;

    #[test]
    fn only_what_differs_is_written() {
        let pin = |last: u8, uplink| {
            let hop = Hop { metric: 0, uplink: Uplink(uplink), gateway: Some([192, 0, 2, 254].into()) };
            route(53, (&[203, 0, 113, last].into(), &hop))
        };
        let present: BTreeSet<Route> = [pin(1, 2), pin(2, 2), pin(3, 2)].into();
        let wanted: BTreeSet<Route> = [pin(1, 2), pin(2, 3), pin(4, 3)].into();
        let expected = [
            RouteChange::Replace(pin(2, 3)),
            RouteChange::Replace(pin(4, 3)),
            RouteChange::Remove(pin(3, 2)),
        ];
        assert_eq!(changes(&present, &wanted), expected);
        assert_eq!(changes(&present, &present), []);
    }
}
