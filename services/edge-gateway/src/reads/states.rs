//! The values of rooms: of many with one request, of one that holds more than that gives in pieces.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use roomcast_chassis::jetstream::{At, JetStream, LastMessages, Newest, StoredMessage};
use roomcast_proto::subject::{STATE_ALL, room_state_filter, stream};

use super::{BATCH, ROOMS_AT_ONCE, ReadError, again, count};
use crate::delivery::Delivery;
use crate::hub::Hub;
use crate::place::{self, Place};
use crate::spine_driver::of_stored;

/// Values that one request should bring: the server gives at most 1,024, and with half of that the next request may ask for more rooms.
const VALUES_AT_ONCE: usize = 512;

/// Reads rooms with as few requests as what they hold allows. `at_once`: how many the next request may name.
pub(super) async fn read_states(hub: &Hub, js: &JetStream, mut places: Vec<Place>, at_once: &AtomicUsize) {
    while !places.is_empty() {
        let limit = at_once.load(Ordering::Relaxed).clamp(1, places.len());
        let part = places.split_off(places.len() - limit);
        if let [place] = &part[..] {
            read_state(hub, js, place).await;
            at_once.fetch_max(2, Ordering::Relaxed);
            continue;
        }
        let life = hub.life();
        match again(|| states_of(js, &part)).await {
            Some(Some(messages)) => {
                if messages.len() <= VALUES_AT_ONCE {
                    at_once.fetch_max((2 * limit).min(ROOMS_AT_ONCE), Ordering::Relaxed);
                }
                hand_out(hub, life, &part, messages);
            }
            Some(None) => {
                at_once.store((limit / 2).max(1), Ordering::Relaxed);
                places.extend(part);
            }
            None => {
                for place in &part {
                    count(hub, "state", false);
                    hub.loaded(&place.key, life, None);
                }
            }
        }
    }
}

pub(super) async fn read_state(hub: &Hub, js: &JetStream, place: &Place) {
    let life = hub.life();
    let read = again(|| state_of(js, place)).await;
    count(hub, "state", read.is_some());
    let values = read.map(|messages| {
        messages
            .into_iter()
            .filter_map(|message| value(hub, message))
            .filter(|(value, _)| value.room == place.room)
            .collect()
    });
    hub.loaded(&place.key, life, values);
}

fn value(hub: &Hub, message: StoredMessage) -> Option<(Delivery, Option<i64>)> {
    let placed = of_stored(message);
    hub.old_value(placed.sequence, placed.time_micros, &placed.message)
}

/// Gives each room its own.
fn hand_out(hub: &Hub, life: u64, places: &[Place], messages: Vec<StoredMessage>) {
    let of = |place: &Place| (Arc::clone(&place.key), Vec::new());
    let mut values: HashMap<Arc<str>, Vec<(Delivery, Option<i64>)>> = places.iter().map(of).collect();
    for (value, ends) in messages.into_iter().filter_map(|message| value(hub, message)) {
        let key = place::key(value.tenant.as_str(), value.room.as_str());
        if let Some(of_room) = values.get_mut(key.as_str()) {
            of_room.push((value, ends));
        }
    }
    for (key, values) in values {
        count(hub, "state", true);
        hub.loaded(&key, life, Some(values));
    }
}

/// All values of several rooms; `None`: more than the server gives at once.
async fn states_of(js: &JetStream, places: &[Place]) -> Result<Option<Vec<StoredMessage>>, ReadError> {
    let filter = |place: &Place| room_state_filter(&place.tenant, &place.room);
    let filters: Vec<String> = places.iter().map(filter).collect();
    let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
    match js.newest(stream::STATE, STATE_ALL, &filters).await? {
        Newest::Messages(messages) => Ok(Some(messages)),
        Newest::TooMany => Ok(None),
        Newest::Behind => Err(ReadError::Behind),
    }
}

/// All values of a room. Over 1,024 keys the server refuses to give them at once; one by one from the beginning gives the same, because
/// the stream holds one message per subject, and a later one replaces an earlier one when they are put together.
async fn state_of(js: &JetStream, place: &Place) -> Result<Vec<StoredMessage>, ReadError> {
    let filter = room_state_filter(&place.tenant, &place.room);
    let Some(last) = js.message(stream::STATE, At::Last(&filter)).await? else {
        return Ok(Vec::new());
    };
    let reaches = |messages: &[StoredMessage]| {
        messages
            .last()
            .is_some_and(|newest| newest.sequence >= last.sequence)
    };
    if let LastMessages::Messages { messages, up_to } = js.multi_last(stream::STATE, &[&filter], None).await?
    {
        let is_new_enough = up_to.is_some_and(|up_to| up_to >= last.sequence) || reaches(&messages);
        return if is_new_enough {
            Ok(messages)
        } else {
            Err(ReadError::Behind)
        };
    }
    let (mut all, mut from) = (Vec::new(), 1);
    loop {
        let batch = js.direct_batch(stream::STATE, from, BATCH, Some(&filter)).await?;
        from = batch.messages.last().map_or(from, |newest| newest.sequence + 1);
        all.extend(batch.messages);
        if batch.pending == 0 {
            return if reaches(&all) {
                Ok(all)
            } else {
                Err(ReadError::Behind)
            };
        }
    }
}
