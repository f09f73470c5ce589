//! A request whose body is here as a whole: made into what [`crate::intake`] takes, or refused with what was read of it.
//!
//! Called by [`crate::door_http`], which brings it to its end whoever hangs up.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use roomcast_proto::refusal::Refusal;

use crate::accept::Sender;
use crate::answer::Answer;
use crate::binary_mode;
use crate::body::{Content, Media, Read};
use crate::capacity::Place;
use crate::door_http::{HttpDoor, PATH, Posted};
use crate::intake::{Request, Shape};
use crate::metrics::Door;
use crate::now_micros;
use crate::trigger;

/// One such request.
#[derive(Debug)]
pub(crate) struct WholeBody {
    pub(crate) door: Arc<HttpDoor>,
    pub(crate) posted: Posted,
    pub(crate) sender: Arc<Sender>,
    /// Held until it is answered.
    pub(crate) place: Place,
    pub(crate) headers: HeaderMap,
    /// What the body is, or why that is nothing we take.
    pub(crate) content: Result<Content, Refusal>,
    pub(crate) backfill: bool,
    pub(crate) read: Read,
}

impl WholeBody {
    /// Takes or refuses it.
    ///
    /// # Cancel safety
    /// As [`crate::intake::Intake::take`].
    pub(crate) async fn answer(mut self) -> Answer {
        let refusal = self.read.refusal.take();
        let answer = match (&self.content, refusal) {
            (Ok(content), None) => match self.posted {
                Posted::Events => self.take(content.media).await,
                Posted::Trigger => {
                    let bytes = self.read.bytes.clone();
                    trigger::take(&self.door.intake, &self.sender, self.backfill, bytes).await
                }
            },
            (Err(refusal), _) => self.refuse(refusal.clone(), self.read.bytes.clone()).await,
            (Ok(content), Some(refusal)) => {
                let bytes = match content.media {
                    Media::Data => binary_mode::original(&self.headers, &self.read.bytes),
                    Media::Json(_) | Media::Lines => self.read.bytes.clone(),
                };
                self.refuse(refusal, bytes).await
            }
        };
        drop(self.place);
        answer
    }

    async fn take(&self, media: Media) -> Answer {
        let body = self.read.bytes.clone();
        let mut request = Request::posted(&self.sender, self.backfill, PATH, Shape::One, body);
        match media {
            Media::Json(shape) => request.shape = shape,
            Media::Data | Media::Lines => {
                request.original = Some(binary_mode::original(&self.headers, &request.body));
                match binary_mode::event(&self.headers, &request.body) {
                    Ok(event) => request.body = event,
                    Err(refusal) => return self.door.intake.refused_whole(&request, refusal).await,
                }
            }
        }
        self.door.intake.take(request, now_micros()).await
    }

    async fn refuse(&self, refusal: Refusal, bytes: Bytes) -> Answer {
        let (origin, original) = (self.posted.path(), self.read.original_bytes);
        let intake = &self.door.intake;
        intake
            .refuse(Door::Http, &self.sender, origin, bytes, original, refusal)
            .await
    }
}
