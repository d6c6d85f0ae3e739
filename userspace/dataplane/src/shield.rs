//! The shield in front of WireGuard's handshakes: on with a public key, or off.

use abi::Shield;
use packet::shield::mac1_state;
use types::NodePublic;

use crate::disco::random;
use crate::{Error, Programs};

impl Programs {
    /// Drops on WireGuard's port what cannot be valid for the owner of `key`, and DISCO and STUN beyond a rate a source;
    /// without a key everything passes.
    ///
    /// Switch it off before the device's key changes and on afterwards: handshakes with another key than this die.
    ///
    /// # Errors
    /// When the map refuses.
    pub fn set_shield(&mut self, key: Option<&NodePublic>) -> Result<(), Error> {
        let known = self.maps.shield.get(&0, 0).map_err(Error::map("SHIELD"))?;
        let seed = match known.seed {
            0 => random::<1>()?[0] | 1,
            seed => seed,
        };
        let mac1 = key.map(|key| mac1_state(key.as_bytes()));
        let wanted = Shield { mac1: mac1.unwrap_or_default(), on: u32::from(key.is_some()), seed };
        if wanted == known {
            return Ok(());
        }
        // A program may read while we write: the key while it is off, then the switch.
        for step in [Shield { on: 0, ..known }, Shield { on: 0, ..wanted }, wanted] {
            self.maps.shield.set(0, step, 0).map_err(Error::map("SHIELD"))?;
        }
        Ok(())
    }

    /// Whether it is on.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn is_shielded(&self) -> Result<bool, Error> {
        self.maps.shield.get(&0, 0).map(|shield| shield.on != 0).map_err(Error::map("SHIELD"))
    }
}
