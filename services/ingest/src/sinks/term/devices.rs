//! The devices, as their bucket says, and those whose users may not be told any more.

use std::time::Instant;

use roomcast_chassis::jetstream::{ApiError, At};
use roomcast_proto::device::{Device, Devices};
use roomcast_proto::subject::{DEVICES_ALL, devices_key, parse_devices_key, stream};

use super::super::devices;
use super::super::recipients::principal;
use super::super::roster::{Roster, Whose};
use super::{REVOKED_AT_ONCE, SWEEP_EVERY, Stop, Term, now_secs};

/// Up to where the bucket of devices was read.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// When the bucket was made; empty: nobody was asked yet.
    created: String,
    /// Its last position that was read.
    last: u64,
    /// Whether all was read once that the leader had.
    is_whole: bool,
}

impl Progress {
    /// Whether the roster can be sent by: a device that is not in it is gone.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Hears from the leader when the bucket was made. Whether it is another one: then it is read from its beginning.
    fn is_anew(&mut self, created: String) -> bool {
        let anew = !self.created.is_empty() && self.created != created;
        if anew {
            *self = Self::default();
        }
        self.created = created;
        anew
    }
}

impl Term {
    /// Reads the devices until none is missing that the leader of the bucket has: another replica may be behind it, and its answer is then
    /// that there is nothing more.
    pub(super) async fn read_all_devices(&mut self) -> Result<(), Stop> {
        if self.shared.config.push.is_none() {
            self.devices.is_whole = true;
            return Ok(());
        }
        let jetstream = &self.shared.jetstream;
        let Some(info) = jetstream.stream_info(stream::DEVICES).await? else {
            return Err(ApiError::Malformed("there is no bucket of devices".to_owned()).into());
        };
        if self.devices.is_anew(info.created) {
            tracing::warn!("the bucket of devices was made anew; what it held from before counts no more");
            self.roster = Roster::default();
            self.unlooked.clear();
        }
        self.follow_devices().await?;
        if self.devices.last < info.state.last_seq {
            // Records end with their time, also the last one.
            let at = At::Next {
                from: self.devices.last + 1,
                subject: DEVICES_ALL,
            };
            if self
                .shared
                .jetstream
                .message(stream::DEVICES, at)
                .await?
                .is_some()
            {
                return Err(Stop::Behind);
            }
            self.devices.last = info.state.last_seq;
        }
        self.devices.is_whole = true;
        Ok(())
    }

    /// Reads what is new in the bucket of devices, as far as the replica that answers has it.
    pub(super) async fn follow_devices(&mut self) -> Result<(), Stop> {
        if self.shared.config.push.is_none() {
            return Ok(());
        }
        loop {
            let read = self.portion(stream::DEVICES, self.devices.last + 1).await?;
            let Some(last) = read.last() else {
                break;
            };
            self.devices.last = last.sequence;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_that_was_made_anew_is_read_from_its_beginning() {
        let mut progress = Progress::default();
        assert!(!progress.is_anew("monday".to_owned()), "the first one");
        (progress.last, progress.is_whole) = (7, true);
        assert!(!progress.is_anew("monday".to_owned()));
        assert_eq!((progress.last, progress.is_whole()), (7, true));
        assert!(progress.is_anew("tuesday".to_owned()));
        assert_eq!((progress.last, progress.is_whole()), (0, false));
        assert!(!progress.is_anew("tuesday".to_owned()));
    }
}
