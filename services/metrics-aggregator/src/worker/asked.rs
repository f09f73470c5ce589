//! Answers gateways that ask for one group of a metric: from memory, as it is now, whether or not the group is state.

use async_nats::{Message, SubscribeError, Subscriber};
use roomcast_proto::event::StateEvent;
use roomcast_proto::metric::UPDATED;
use roomcast_proto::series::{ANSWER_BYTES_MAX, Answer, Question};
use roomcast_proto::subject::series_heard;
use serde_json::value::RawValue;

use super::Session;

impl Session<'_> {
    /// Where this shard is asked.
    pub(super) async fn ears(&self) -> Result<Subscriber, SubscribeError> {
        let subject = series_heard(&self.shared.tenant, self.number);
        self.shared.jetstream.client().subscribe(subject).await
    }

    /// Answers one question; one that cannot be read, or names nowhere to answer, is only counted.
    pub(super) async fn answer(&mut self, asked: Message) {
        let answer = serde_json::from_slice::<Question>(&asked.payload).ok();
        let answer = answer.map(|question| self.said_of(&question));
        let outcome = match &answer {
            Some(Answer::Windows { .. }) => "windows",
            Some(Answer::Absent {}) => "absent",
            Some(Answer::Behind {}) => "behind",
            None => "unreadable",
        };
        self.shared.counters.asked(outcome);
        let body = answer.and_then(|answer| serde_json::to_vec(&answer).ok());
        if let (Some(reply), Some(body)) = (asked.reply, body)
            && let Err(error) = self.shared.jetstream.client().publish(reply, body.into()).await
        {
            tracing::debug!(%error, "an answer about a group was not sent: {error}");
        }
    }

    fn said_of(&mut self, question: &Question) -> Answer {
        if !self.live {
            return Answer::Behind {};
        }
        self.advance();
        let found = self.shard.metric(&question.metric);
        let Some((metric, publish)) = found.and_then(|metric| {
            let publish = metric.definition.publish.as_ref()?;
            (publish.room == question.room).then_some((metric, publish))
        }) else {
            return Answer::Absent {};
        };
        if !metric.is_live() {
            return Answer::Behind {};
        }
        let source = format!("roomcast://{}/metrics", self.shared.tenant);
        let (mut events, mut bytes) = (Vec::new(), 0);
        for (key, update) in metric.windows_of(&question.group) {
            let data = serde_json::to_string(&update).ok();
            let event = StateEvent {
                id: &key,
                source: &source,
                kind: UPDATED,
                time_micros: self.shard.as_of(),
                room: &publish.room,
                audience: &publish.audience,
                statekey: &key,
                expires_micros: None,
                data: data.as_deref(),
            };
            let event = String::from_utf8(event.to_json().to_vec()).map(RawValue::from_string);
            let Ok(Ok(event)) = event else { continue };
            bytes += event.get().len();
            if bytes > ANSWER_BYTES_MAX {
                break;
            }
            events.push(event);
        }
        Answer::Windows {
            audience: publish.audience.clone(),
            events,
        }
    }
}
