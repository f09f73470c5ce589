//! The devices, as their bucket says, and those whose users may not be told any more.

use std::time::Instant;

use roomcast_proto::device::{Device, Devices};
use roomcast_proto::subject::{devices_key, parse_devices_key, stream};

use super::super::devices;
use super::super::recipients::principal;
use super::super::roster::Whose;
use super::{REVOKED_AT_ONCE, SWEEP_EVERY, Stop, Term, now_secs};

impl Term {
    /// Reads what is new in the bucket of devices.
    pub(super) async fn follow_devices(&mut self) -> Result<(), Stop> {
        if self.shared.config.push.is_none() {
            return Ok(());
        }
        loop {
            let read = self.portion(stream::DEVICES, self.devices_next).await?;
            let Some(last) = read.last() else {
                break;
            };
            self.devices_next = last.sequence + 1;
            for message in &read {
                let Some((tenant, user)) = parse_devices_key(&message.subject) else {
                    continue;
                };
                match serde_json::from_slice::<Devices>(&message.payload) {
                    Ok(record) => {
                        let whose = (tenant, user.to_owned());
                        if self.generation != 0 {
                            self.unlooked.insert(whose.clone());
                        }
                        self.roster.put(whose, record);
                    }
                    Err(error) => {
                        tracing::error!(%error, "a user's devices cannot be read: {error}");
                    }
                }
            }
        }
        if Instant::now() >= self.sweep_due {
            self.sweep_due = Instant::now() + SWEEP_EVERY;
            self.roster.sweep(now_secs());
        }
        Ok(())
    }

    /// Takes devices out whose user or token was revoked, also those that were on their way here then. A revocation is remembered for as
    /// long as a token lives, and a device counts for longer than that.
    pub(super) async fn drop_revoked(&mut self) {
        let in_force = self.shared.rights.now();
        let all_again = in_force.generation != self.generation;
        if !all_again && self.unlooked.is_empty() {
            return;
        }
        let now_secs = now_secs();
        let is_revoked = |((tenant, _), device): &(&Whose, &Device)| {
            in_force
                .check(&principal(tenant, &device.holder), now_secs)
                .is_err()
        };
        let owned = |(whose, device): (&Whose, &Device)| (whose.clone(), device.clone());
        let most = REVOKED_AT_ONCE + 1;
        let mut revoked: Vec<(Whose, Device)> = if all_again {
            let all = self.roster.all().filter(is_revoked);
            all.take(most).map(owned).collect()
        } else {
            let new = self.unlooked.iter().flat_map(|whose| self.roster.of(whose));
            new.filter(is_revoked).take(most).map(owned).collect()
        };
        let all = revoked.len() <= REVOKED_AT_ONCE;
        revoked.truncate(REVOKED_AT_ONCE);
        for ((tenant, _), device) in revoked {
            let key = devices_key(&tenant, &device.holder.user);
            let forgotten =
                devices::forget(&self.shared.devices, &key, &device.device, device.at, now_secs).await;
            match forgotten {
                Ok(()) => self.shared.metrics.revoked.inc(),
                // Looked at again with the next turn.
                Err(_) => return,
            }
        }
        if all {
            self.generation = in_force.generation;
            self.unlooked.clear();
        }
    }
}
